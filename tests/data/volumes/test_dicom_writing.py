"""Derived series: the same voxels at the same places, of the same patient and study, and no more of the source."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch

from lightning_mbir.data import read_volume
from lightning_mbir.data.units import MU_WATER
from lightning_mbir.data.volumes.dicom_reading import read_dicom
from lightning_mbir.data.volumes.dicom_writing import check_dicom, dicom_headers, write_dicom
from lightning_mbir.data.volumes.resample import cut_slices, resize_in_plane, square_in_plane
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.errors import InputError
from tests.data.volumes.dicom_made import enhanced, slice_of, worst, write_series

TURN = np.radians(20)
TILTED = (1.0, 0.0, 0.0, 0.0, float(np.cos(TURN)), float(-np.sin(TURN)))
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, -0.8)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def write(folder: Path, volume: Volume) -> list[Any]:
    write_dicom(folder, volume, dicom_headers(volume, "made by a test"))
    return [pydicom.dcmread(file) for file in sorted(folder.iterdir())]


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), OBLIQUE, SAGITTAL, TILTED])
@pytest.mark.parametrize("fitted", [False, True])
def test_the_same_voxels_at_the_same_places(tmp_path: Path, orientation: tuple[float, ...], fitted: bool) -> None:
    step = (0, 0, 5.0) if orientation is TILTED else None
    write_series(tmp_path / "scan", orientation=orientation, step=step, spacing=(1.5, 1.5))
    volume = read_volume(tmp_path / "scan", "ct")
    headers = write(tmp_path / "derived", square_in_plane(volume) if fitted else volume)
    source, again = read_dicom(tmp_path / "scan"), read_dicom(tmp_path / "derived", modality="ct")
    np.testing.assert_allclose(again.affine, source.affine, atol=1e-5)
    resampled = fitted and orientation in (SAGITTAL, OBLIQUE)  # of which the volume has slices across
    tolerance = 40 if resampled else 0.05
    np.testing.assert_allclose(again.array, np.maximum(source.array, -1000), atol=tolerance)
    assert len(headers) == 5 and [one.InstanceNumber for one in headers] == [1, 2, 3, 4, 5]
    if orientation is TILTED:
        return  # ITK takes no such series
    itk = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "derived")))
    np.testing.assert_allclose(sitk.GetArrayFromImage(itk).transpose(2, 1, 0), again.array, atol=1e-3)
    place = np.array(itk.TransformIndexToPhysicalPoint((3, 4, 2)))
    np.testing.assert_allclose(place, (source.affine @ [3, 4, 2, 1])[:3] * [-1, -1, 1], atol=1e-4)


def test_a_coarser_working_grid_comes_back_to_the_slices_of_the_source(tmp_path: Path) -> None:
    write_series(tmp_path / "scan")
    volume = resize_in_plane(read_volume(tmp_path / "scan", "ct"), 16)
    write(tmp_path / "derived", volume)
    again = read_dicom(tmp_path / "derived")
    assert again.array.shape == (12, 10, 5) and worst_inside(again.array, tmp_path) < 10


def worst_inside(array: np.ndarray, folder: Path) -> float:
    source = np.maximum(read_dicom(folder / "scan").array, -1000)
    return float(np.abs(array - source)[2:-2, 2:-2].max())


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), SAGITTAL, TILTED])
def test_of_slices_that_were_cut_away_nothing_is_written(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    write_series(tmp_path / "scan", n=8, orientation=orientation, step=(0, 0, 5.0) if orientation is TILTED else None)
    headers = write(tmp_path / "derived", cut_slices(read_volume(tmp_path / "scan", "ct"), 2, 6))
    again = read_dicom(tmp_path / "derived")
    assert worst(again) <= 0.6  # each voxel has the value of its place
    assert again.array.shape == ((12, 4, 8) if orientation is SAGITTAL else (12, 10, 4))
    sources = [one.SourceImageSequence[0].ReferencedSOPInstanceUID for one in headers]
    files = [pydicom.dcmread(file).SOPInstanceUID for file in sorted((tmp_path / "scan").iterdir())]
    assert sources in (files, files[::-1]) if orientation is SAGITTAL else sources in (files[2:6], files[5:1:-1])


def test_header(tmp_path: Path) -> None:
    def full(k: int, one: Any) -> None:
        one.PatientBirthDate, one.PatientSex, one.AccessionNumber = "19700101", "F", "A1"
        one.SeriesNumber, one.SeriesDescription, one.Manufacturer = 4, "THORAX", "Maker"
        one.FrameOfReferenceUID, one.KVP, one.WindowCenter, one.WindowWidth = "1.2.3.9", 120, [-600, 40], [1500, 400]
        one.PixelPaddingValue, one.SmallestImagePixelValue, one.OperatorsName = -2000, 3, "Somebody"
        one.LossyImageCompression, one.LossyImageCompressionRatio = "01", 8
        one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        one.add_new(0x00091001, "LO", "private")
        one.add_new(0x60003000, "OW", bytes(30))

    write_series(tmp_path / "scan", edit=full)
    source = pydicom.dcmread(tmp_path / "scan" / "s000.dcm")
    headers = write(tmp_path / "derived", read_volume(tmp_path / "scan", "ct"))
    first = headers[0]
    for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "AccessionNumber"):
        assert first[name].value == source[name].value
    for name in ("SOPClassUID", "Modality", "FrameOfReferenceUID", "KVP", "SliceThickness"):
        assert first[name].value == source[name].value
    assert len({one.SeriesInstanceUID for one in headers} - {source.SeriesInstanceUID}) == 1
    assert len({one.SOPInstanceUID for one in headers} - {source.SOPInstanceUID}) == 5
    assert first.file_meta.MediaStorageSOPInstanceUID == first.SOPInstanceUID
    assert list(first.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert first.DerivationDescription == "made by a test"
    assert (first.SeriesNumber, first.SeriesDescription) == (1004, "THORAX (lightning_mbir)")
    assert first.Manufacturer == "lightning_mbir" and first.SoftwareVersions
    assert first.ContributingEquipmentSequence[0].Manufacturer == "Maker"
    assert (first.WindowCenter, first.WindowWidth, first.RescaleType) == (-600, 1500, "HU")
    assert (first.LossyImageCompression, first.LossyImageCompressionRatio) == ("01", 8)
    gone = ("PixelPaddingValue", "SmallestImagePixelValue", "OperatorsName")
    assert not any(name in one for name in gone for one in headers)
    assert not any(tag.is_private or tag.group == 0x6000 for one in headers for tag in sorted(one.keys()))
    pydicom.dcmread(tmp_path / "derived" / "0001.dcm", force=False)


def test_mri_has_its_own_unit_and_window(tmp_path: Path) -> None:
    write_series(tmp_path / "scan", modality="MR", edit=lambda _, one: setattr(one, "RescaleSlope", 0.37))
    volume = read_volume(tmp_path / "scan", "mri")
    volume = volume.with_data(volume.data.abs() * 1e-3)
    headers = write(tmp_path / "derived", volume)
    again = read_volume(tmp_path / "derived", "mri")
    largest = float(volume.data.max())
    assert float((again.data - volume.data).abs().max()) <= 0.51 * largest / 65535
    window = float(headers[0].WindowWidth)
    assert headers[0].SOPClassUID == "1.2.840.10008.5.1.4.1.1.4" and 0.8 * largest < window <= largest
    assert headers[0].ScanningSequence == "RM" and list(headers[0].ImageType) == ["DERIVED", "SECONDARY", "OTHER"]


@pytest.mark.parametrize(("low", "high", "error"), [(-1000, 2000, 0.026), (-1000, 5000, 0.051), (-3000, 29000, 0.26)])
def test_16_bits_hold_all_values(tmp_path: Path, low: float, high: float, error: float) -> None:
    write_series(tmp_path / "scan")
    volume = read_volume(tmp_path / "scan", "ct")
    hu = torch.linspace(low, high, volume.data.numel()).reshape(volume.data.shape)
    write(tmp_path / "derived", volume.with_data(MU_WATER * (1 + hu / 1000)))
    array = read_dicom(tmp_path / "derived").array
    assert float(np.abs(np.sort(array.ravel()) - hu.ravel().numpy()).max()) < error


def test_a_constant_volume(tmp_path: Path) -> None:
    write_series(tmp_path / "scan", modality="MR")
    volume = read_volume(tmp_path / "scan", "mri")
    write(tmp_path / "derived", volume.with_data(torch.zeros_like(volume.data)))
    assert (read_dicom(tmp_path / "derived").array == 0).all()


def test_an_enhanced_object_becomes_single_slices(tmp_path: Path) -> None:
    whole = enhanced([slice_of(k) for k in (3, 1, 0, 2, 4)])
    whole.SeriesInstanceUID = whole.StudyInstanceUID = "1.2.3.4"
    (tmp_path / "scan").mkdir()
    whole.save_as(tmp_path / "scan" / "enhanced.dcm", enforce_file_format=True)
    headers = write(tmp_path / "derived", read_volume(tmp_path / "scan", "ct"))
    again = read_dicom(tmp_path / "derived")
    assert worst(again) <= 0.6 and again.array.shape == (12, 10, 5)
    assert headers[0].SOPClassUID == "1.2.840.10008.5.1.4.1.1.2" and headers[0].SliceThickness == 3
    assert [one.SourceImageSequence[0].ReferencedFrameNumber for one in headers] == [3, 2, 4, 1, 5]
    assert "PerFrameFunctionalGroupsSequence" not in headers[0]


def test_what_cannot_be_copied_is_told_before_the_work(tmp_path: Path) -> None:
    file = write_series(tmp_path, edit=lambda _, one: setattr(one, "PregnancyStatus", 4))[0]
    data = file.read_bytes()
    file.write_bytes(data.replace(b"\x10\0\xc0\x21US\2\0", b"\x10\0\xc0\x21UL\2\0"))  # two bytes for four
    volume = read_volume(tmp_path, "ct")
    with pytest.raises(InputError, match=r"s000.dcm: --write dicom: has a value that cannot be copied"):
        dicom_headers(volume, "")


def test_only_dicom_has_what_a_series_is_derived_from(tmp_path: Path) -> None:
    write_series(tmp_path / "scan")
    check_dicom([tmp_path / "scan"], False)
    (tmp_path / "other.nii").write_bytes(b"0")
    told = [
        ([tmp_path / "scan", tmp_path / "other.nii"], False, "other.nii, which is no DICOM"),
        ([3], False, "a demo"),
    ]
    for scans, measured, text in [*told, ([tmp_path / "scan"], True, "a measurement")]:
        with pytest.raises(InputError, match=f"--write dicom: .*{text}"):
            check_dicom(scans, measured)
    with pytest.raises(InputError, match="was not read from a DICOM series"):
        dicom_headers(Volume(torch.zeros(2, 4, 4), np.eye(4), "v", "ct"), "")
