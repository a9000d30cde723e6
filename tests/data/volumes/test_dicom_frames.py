"""Enhanced multi-frame objects: places and values in the groups of the frames."""

from pathlib import Path
from typing import Any

import pytest
from pydicom.sequence import Sequence as Items

from lightning_mbir.data import read_volume
from lightning_mbir.data.volumes.dicom_reading import read_dicom
from lightning_mbir.errors import InputError
from tests.data.volumes.dicom_made import enhanced, item, slice_of, worst


def write(folder: Path, whole: Any) -> Path:
    whole.SeriesInstanceUID, whole.SeriesNumber = "1.2.3.4", 8
    file = folder / "enhanced.dcm"
    whole.save_as(file, enforce_file_format=True)
    return file


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4], [3, 0, 4, 2, 1]])
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_frames_are_sorted_by_place(tmp_path: Path, order: list[int], modality: str) -> None:
    file = write(tmp_path, enhanced([slice_of(k, modality=modality) for k in order]))
    for path in (file, tmp_path):
        image = read_dicom(path)
        assert image.array.shape == (12, 10, 5) and worst(image) <= 0.51 and image.notes == ()
    assert read_volume(file, "ct" if modality == "CT" else "mri").data.shape == (5, 10, 12)


def test_legacy_converted_objects_are_read(tmp_path: Path) -> None:
    whole = enhanced([slice_of(k) for k in range(5)])
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.2"
    assert worst(read_dicom(write(tmp_path, whole))) <= 0.51


def test_each_frame_has_its_own_rescale(tmp_path: Path) -> None:
    slices = [slice_of(k) for k in range(5)]
    whole = enhanced(slices)
    del whole.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    for k, groups in enumerate(whole.PerFrameFunctionalGroupsSequence):
        groups.PixelValueTransformationSequence = Items([item(RescaleSlope=2.0, RescaleIntercept=-1024.0 + k)])
    image = read_dicom(write(tmp_path, whole))
    stored = [slices[0].PixelData[240 * k : 240 * k + 2] for k in range(5)]
    expected = [2 * int.from_bytes(raw, "little", signed=True) - 1024 + k for k, raw in enumerate(stored)]
    assert image.array[0, 0].tolist() == expected


def test_phases_are_refused_by_name(tmp_path: Path) -> None:
    whole = enhanced([slice_of(k % 5) for k in range(10)])
    for k, groups in enumerate(whole.PerFrameFunctionalGroupsSequence):
        groups.FrameContentSequence = Items(
            [item(TemporalPositionIndex=k // 5 + 1, DimensionIndexValues=[k // 5, k % 5])]
        )
    file = write(tmp_path, whole)
    with pytest.raises(InputError, match=r"2 stacks of slices in one series, .*: 8:1 .*TemporalPositionIndex 1.*8:2"):
        read_dicom(file)
    assert worst(read_dicom(tmp_path, "8:2")) <= 0.51


def test_phases_that_only_the_dimensions_tell_apart(tmp_path: Path) -> None:
    whole = enhanced([slice_of(k % 5) for k in range(10)])
    for k, groups in enumerate(whole.PerFrameFunctionalGroupsSequence):
        groups.FrameContentSequence = Items([item(DimensionIndexValues=[k % 5 + 1, k // 5 + 1])])
    with pytest.raises(InputError, match=r"8:1 .*dimension 2 1\), 8:2 .*dimension 2 2\)"):
        read_dicom(write(tmp_path, whole))


def test_a_gap_between_frames_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, enhanced([slice_of(k) for k in (0, 1, 2, 5, 6)]))
    with pytest.raises(InputError, match=r"2 slices are missing.* 2 between frame 3 of enhanced.dcm at -24.00"):
        read_dicom(file)


def test_frames_without_places_are_refused(tmp_path: Path) -> None:
    whole = enhanced([slice_of(k) for k in range(5)])
    del whole.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence
    with pytest.raises(InputError, match=r"enhanced.dcm: lacks ImagePositionPatient"):
        read_dicom(write(tmp_path, whole))


def test_frames_without_groups_are_refused(tmp_path: Path) -> None:
    one = slice_of(0)
    one.NumberOfFrames, one.PixelData = 4, one.PixelData * 4
    with pytest.raises(InputError, match="multi-frame image whose 4 frames have no places"):
        read_dicom(write(tmp_path, one))


def test_more_frames_than_places_are_refused(tmp_path: Path) -> None:
    whole = enhanced([slice_of(k) for k in range(5)])
    del whole.PerFrameFunctionalGroupsSequence[4]
    with pytest.raises(InputError, match="has 5 frames and the places of 4"):
        read_dicom(write(tmp_path, whole))


def test_a_multi_frame_object_cut_short_is_refused(tmp_path: Path) -> None:
    whole = enhanced([slice_of(k) for k in range(5)])
    file = write(tmp_path, whole)
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(InputError, match=r"enhanced.dcm: its pixels cannot be decoded, they may be cut short"):
        read_dicom(file)
