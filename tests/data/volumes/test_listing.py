"""Which files and folders are volumes, what they are called, and what of a folder is passed over."""

import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from lightning_mbir.data import SliceDataModule, VolumeDataModule
from lightning_mbir.data.volumes.listing import SUFFIXES, list_volumes, passed_over, volume_name
from lightning_mbir.data.volumes.reading import read_volume
from lightning_mbir.errors import InputError
from tests.data.volumes.dicom_made import write_series

sitk: Any = SimpleITK
APPLE = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(200)


def save(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(0).random((16, 16, 4)).astype(np.float32)
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    return path


def names(folder: Path) -> list[str]:
    return [path.name for path in list_volumes(folder)]


def refused(path: Path, words: str) -> None:
    for use in (list_volumes, lambda path: VolumeDataModule(path, modality="mri").check()):
        with pytest.raises(InputError, match=words) as caught:
            use(path)
        assert "\n" not in str(caught.value)


def test_hidden_files_are_counted_and_others_named(tmp_path: Path) -> None:
    for name in ("b.nii.gz", "a.nii"):
        save(tmp_path / name)
        (tmp_path / f"._{name}").write_bytes(APPLE)
    for name in (".partial-x.nii.gz", ".DS_Store", "Thumbs.db", "DICOMDIR"):
        (tmp_path / name).write_bytes(b"?")
    assert names(tmp_path) == ["a.nii", "b.nii.gz"]
    assert passed_over(tmp_path) == f"{tmp_path}: passed over: 6 hidden files"
    for name in ("LICENSE", "notes.txt", "results.csv", "z.pdf"):
        (tmp_path / name).write_text("text")
    (tmp_path / "old").mkdir()
    assert names(tmp_path) == ["a.nii", "b.nii.gz"]
    expected = "passed over: LICENSE, notes.txt, old/ and 2 more and 6 hidden files"
    assert passed_over(tmp_path) == f"{tmp_path}: {expected}"
    assert passed_over(tmp_path / "a.nii") == ""


def test_what_is_passed_over_is_told_once_before_the_work(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "a_one.nii")
    save(tmp_path / "b_one.nii")
    (tmp_path / "notes.txt").write_text("text")
    data = VolumeDataModule(tmp_path, modality="mri")
    data.setup("predict")
    data.setup("predict")
    assert caplog.messages == [f"{tmp_path}: passed over: notes.txt"]
    caplog.clear()
    SliceDataModule(tmp_path, "mri", image_size=16, phantom_volumes=1).setup("fit")
    assert caplog.text.count("passed over: notes.txt\n") == 1


def test_voxels_beside_a_header_are_no_volume_of_their_own(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.random.default_rng(0).random((4, 5, 6)).astype(np.float32))
    for name in ("a.mhd", "b.nhdr", "c.mha", "d.nrrd"):
        sitk.WriteImage(image, str(tmp_path / name), useCompression=name == "b.nhdr")
    nib.save(nib.Nifti1Pair(np.ones((4, 4, 4), np.float32), np.eye(4)), tmp_path / "e.img")
    (tmp_path / "other.raw").write_bytes(b"?")
    assert names(tmp_path) == ["a.mhd", "b.nhdr", "c.mha", "d.nrrd", "e.hdr"]
    assert passed_over(tmp_path) == f"{tmp_path}: passed over: other.raw"
    refused(tmp_path / "e.img", "give its header, .hdr")


def test_dicom_folders_are_one_volume_or_several(tmp_path: Path) -> None:
    write_series(tmp_path / "one")
    assert list_volumes(tmp_path / "one") == [tmp_path / "one"]
    assert passed_over(tmp_path / "one") == ""
    write_series(tmp_path / "many/p2")
    write_series(tmp_path / "many/p1/study/series")
    save(tmp_path / "many/p3.nii.gz")
    (tmp_path / "many/empty").mkdir()
    assert names(tmp_path / "many") == ["p1", "p2", "p3.nii.gz"]
    assert passed_over(tmp_path / "many").endswith("passed over: empty/")
    single = write_series(tmp_path / "single")[0]
    assert list_volumes(single) == [single] and volume_name(single) == "s000"


def test_one_series_in_several_folders_is_one_volume(tmp_path: Path) -> None:
    files = write_series(tmp_path / "scan/a", n=6)
    (tmp_path / "scan/b").mkdir()
    for file in files[3:]:
        file.rename(tmp_path / "scan/b" / file.name)
    assert list_volumes(tmp_path / "scan") == [tmp_path / "scan"]
    assert read_volume(tmp_path / "scan", "ct").data.shape[0] == 6


def test_dicom_files_beside_other_volumes_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path)
    save(tmp_path / "mask.nii.gz")
    refused(tmp_path, r"holds DICOM files \(s000.dcm\) and other volumes \(mask.nii.gz\)")


def test_dicom_is_found_behind_other_files(tmp_path: Path) -> None:
    for name in ("0.txt", "1.txt", "2.txt", "3.txt", "._s000.dcm"):
        (tmp_path / name).write_bytes(APPLE)
    write_series(tmp_path)
    assert list_volumes(tmp_path) == [tmp_path]


@pytest.mark.parametrize("name", ["a [1] *?.nii.gz", "мозг 脳.nii", "x" * 240 + ".nii.gz", "-v.nii", "UPPER.NII.GZ"])
def test_any_name_is_a_name(name: str, tmp_path: Path) -> None:
    path = save(tmp_path / "in [a*]" / name)
    assert list_volumes(path) == list_volumes(path.parent) == [path]
    stem = name[: name.lower().index(".nii")]
    assert read_volume(path, "mri").name == stem


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_are_without_suffix(suffix: str) -> None:
    assert volume_name(Path(f"a/scan.1{suffix}")) == volume_name(Path(f"a/scan.1{suffix.upper()}")) == "scan.1"


def test_links_have_their_own_names(tmp_path: Path) -> None:
    target = save(tmp_path / "annex/SHA256-123.nii.gz")
    (tmp_path / "in").mkdir()
    for name in ("a.nii.gz", "b.nii.gz"):
        (tmp_path / "in" / name).symlink_to(target)
    data = VolumeDataModule(tmp_path / "in", modality="mri")
    assert [volume_name(path) for path in data.scans if isinstance(path, Path)] == ["a", "b"]
    save(tmp_path / "in/a.nii")
    with pytest.raises(InputError, match="rename one of them"):
        VolumeDataModule(tmp_path / "in", modality="mri")


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii")
    (tmp_path / "loop.nii").symlink_to(tmp_path / "loop.nii")
    (tmp_path / "gone.nii").symlink_to(tmp_path / "nowhere.nii")
    refused(tmp_path / "pipe.nii", "neither a file nor a folder")
    refused(Path("/dev/null"), "neither a file nor a folder")
    refused(tmp_path / "loop.nii", "cannot be read|no such file")
    refused(tmp_path / "gone.nii", "no such file")
    refused(tmp_path / ("x" * 300 + ".nii"), "cannot be read")
    refused(tmp_path / "zero\0.nii", "cannot be read|no such file")
    refused(tmp_path / "file.nii" / "deeper.nii", "no such file")
    refused(tmp_path, "holds no volume")
    save(tmp_path / "a.nii")
    assert names(tmp_path) == ["a.nii"]
    assert passed_over(tmp_path).endswith("passed over: gone.nii, loop.nii, pipe.nii")


def test_what_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.nii")
    monkeypatch.setattr(os, "access", lambda *_: False)
    refused(path, "you may not read it")
    refused(tmp_path, "you may not read it")


@pytest.mark.parametrize("name", ["tooth.h5", "meas.DAT", "scan.mat", "ksp.cfl", "scan.xtekct"])
def test_a_measurement_that_is_given_for_a_volume_is_told_its_flag(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"no volume")
    told = f"{path}: not a volume, but maybe a measurement; give that with --data.measurement"
    for use in (list_volumes, lambda path: read_volume(path, "ct")):
        with pytest.raises(InputError) as error:
            use(path)
        assert str(error.value) == told
