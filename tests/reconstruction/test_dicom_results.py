"""What of a DICOM source comes into results: with ``--write dicom`` patient and study, without it nothing."""

import gzip
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest

from lightning_mbir.cli import main
from lightning_mbir.data.volumes.dicom_reading import read_dicom
from tests.data.volumes.dicom_made import write_series

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("bundled")]
FBP = ["--task", "sv_ct", "--views", "16", "--method", "fbp"]
NAMES = {
    "PatientName": "Zyxwin^Qwerta",
    "PatientID": "PID-778812",
    "PatientBirthDate": "19430217",
    "AccessionNumber": "ACC-551177",
    "InstitutionName": "Hospital Quux",
    "ReferringPhysicianName": "Doctor^Frobnitz",
    "StudyDescription": "STUDY-TEXT-9931",
    "SeriesDescription": "SERIES-TEXT-9932",
    "StudyDate": "20190523",
    "DeviceSerialNumber": "SN-4477-XY",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.111222333",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.444555666",
    "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.777888999",
}
OBJECTS = "1.2.826.0.1.3680043.8.498.123321"


def named(k: int, one: Any) -> None:
    for name, value in NAMES.items():
        setattr(one, name, value)
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"{OBJECTS}.{k}"


def contents(folder: Path) -> bytes:
    """All that lies in the files of a folder, unpacked too."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            found += [path.name.encode(), data]
            if data[:2] == b"\x1f\x8b":
                found.append(gzip.decompress(data))
            at = 8
            while data[:4] == b"\x89PNG" and at < len(data):  # texts of PNG may be deflated
                size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
                text = data[at + 8 : at + 8 + size]
                if kind == b"zTXt":
                    found.append(zlib.decompress(text.partition(b"\0")[2][1:]))
                at += 12 + size
    return b"\n".join(found)


@pytest.mark.slow
def test_without_write_dicom_no_name_or_identifier_of_the_source_leaves(tmp_path: Path) -> None:
    write_series(tmp_path / "scan", edit=named)
    scout = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_series(tmp_path / "scan", prefix="other", edit=lambda _, one: setattr(one, "ImageType", scout))
    write = ["--data.path", str(tmp_path / "scan"), "--output_dir", str(tmp_path / "out")]
    assert main(["predict", *FBP, *write]) == 0
    assert main(["test", *FBP, *write]) == 0
    assert main(["test", "--task", "sv_ct", "--views", "16", "--methods", "fbp,sirt", *write]) == 0
    found = contents(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out" / "sv_ct" / "scan").iterdir()} >= {"recon.nii.gz", "metrics.json"}
    assert any(path.name.startswith("events.") for path in (tmp_path / "out").rglob("*"))
    assert b"recon.nii.gz" in found and b"scan" in found  # names of files and folders are the user's own
    secret = [*NAMES.values(), *NAMES["PatientName"].split("^"), OBJECTS]
    assert [value for value in secret if value.encode() in found] == []
    header = nib.load(tmp_path / "out" / "sv_ct" / "scan" / "recon.nii.gz").header
    assert header["descrip"] == b"" and header["db_name"] == b"" and not header.extensions


def test_write_dicom_puts_a_derived_series_beside_the_nifti(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_series(tmp_path / "scan", edit=named)
    args = ["predict", *FBP, "--data.path", str(tmp_path / "scan"), "--output_dir", str(tmp_path / "out")]
    folder = tmp_path / "out" / "sv_ct" / "scan"
    assert main(args) == 0 and not (folder / "dicom").exists()
    assert main([*args, "--write", "dicom"]) == 0  # not finished: it lacks the series
    image = nib.load(folder / "recon.nii.gz")
    derived = read_dicom(folder / "dicom", modality="ct")
    np.testing.assert_allclose(derived.array, image.get_fdata(), atol=0.051)
    np.testing.assert_allclose(derived.affine, image.affine, atol=1e-4)
    one = pydicom.dcmread(folder / "dicom" / "0001.dcm")
    for name in ("PatientName", "PatientID", "StudyInstanceUID", "AccessionNumber", "FrameOfReferenceUID"):
        assert one[name].value == NAMES[name]
    assert one.SeriesInstanceUID != NAMES["SeriesInstanceUID"] and not one.SOPInstanceUID.startswith(OBJECTS)
    assert "fbp, from a measurement simulated from the source images, sv_ct (views 16" in one.DerivationDescription
    capsys.readouterr()
    assert main([*args, "--write", "dicom"]) == 0
    assert "finished before" in capsys.readouterr().out


def test_a_part_of_the_slices_at_another_size(tmp_path: Path) -> None:
    write_series(tmp_path / "scan", n=8)
    args = [*FBP, "--data.path", str(tmp_path / "scan"), "--output_dir", str(tmp_path / "out"), "--write", "dicom"]
    assert main(["predict", *args, "--data.slices", "2:6", "--data.image_size", "32"]) == 0
    derived = read_dicom(tmp_path / "out" / "sv_ct" / "scan" / "dicom")
    assert derived.array.shape == (12, 10, 4)
    source = read_dicom(tmp_path / "scan")
    np.testing.assert_allclose(derived.affine[:3, 3], (source.affine @ [0, 0, 2, 1])[:3], atol=1e-4)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["predict", "--write", "png"], "--write png: give nifti or dicom"),
        (["predict", *FBP, "--write", "dicom"], "not from a demo phantom"),
        (["predict", *FBP, "--write", "dicom", "--data.path", "{}/v.nii"], "v.nii, which is no DICOM"),
        (["test", *FBP, "--model.write", "dicom"], "of use to `predict` alone"),
    ],
)
def test_write_dicom_needs_dicom(
    tmp_path: Path, args: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    nib.save(nib.Nifti1Image(np.zeros((20, 20, 4), np.float32), np.eye(4)), tmp_path / "v.nii")
    given = [arg.format(tmp_path) for arg in args]
    assert main([*given, "--output_dir", str(tmp_path / "out")]) == 2
    assert told in capsys.readouterr().err and not (tmp_path / "out" / "sv_ct").exists()
