"""DICOM series are read rightly or refused: slices by their places, one series, nothing left out without a line."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_mbir.data import read_volume
from lightning_mbir.data.volumes.dicom.files import dicom_files, is_dicom
from lightning_mbir.data.volumes.dicom_reading import read_dicom
from lightning_mbir.errors import InputError
from tests.data.volumes.dicom_made import AXIAL, SIZE, slice_of, worst, write_series

OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, -0.8)


def put(name: str, value: Any) -> Any:
    return lambda _, one: setattr(one, name, value)


def drop(name: str) -> Any:
    return lambda _, one: delattr(one, name)


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE, (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1)])
def test_voxels_are_where_the_headers_say(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    write_series(tmp_path, orientation=orientation)
    image = read_dicom(tmp_path)
    assert image.array.shape == (SIZE[1], SIZE[0], 5) and image.array.dtype == np.float32
    assert image.notes == () and image.written is None
    assert worst(image) <= 0.51
    np.testing.assert_allclose(np.linalg.norm(image.affine[:3, :3], axis=0), (1.25, 1.5, 3.0), rtol=1e-6)


@pytest.mark.parametrize("numbers", [[3, 1, 5, 2, 4], [1, 1, 1, 1, 1], ["", "", "", "", ""]])
def test_places_not_instance_numbers_nor_names_are_the_order(tmp_path: Path, numbers: list[Any]) -> None:
    files = write_series(tmp_path, edit=lambda k, one: setattr(one, "InstanceNumber", numbers[k]))
    files[0].rename(tmp_path / "z.dcm")
    assert worst(read_dicom(tmp_path)) <= 0.51


def test_slices_go_up_the_normal_when_they_are_stored_from_the_other_end(tmp_path: Path) -> None:
    write_series(tmp_path, step=(0, 0, -3.0))
    image = read_dicom(tmp_path)
    assert worst(image) <= 0.51 and image.affine[2, 2] == pytest.approx(3.0)


def test_missing_slices_are_refused_and_said_where(tmp_path: Path) -> None:
    write_series(tmp_path, n=9, drop=(4, 5))
    with pytest.raises(
        InputError, match=r"2 slices are missing, a gap .* 2 between s003.dcm at -21.00 mm and s006.dcm"
    ):
        read_dicom(tmp_path)


def test_unequal_distances_are_refused_and_said_where(tmp_path: Path) -> None:
    def late(k: int, one: Any) -> None:
        one.ImagePositionPatient = [-8.0, -9.0, -30.0 + 3 * k + 0.7 * (k > 2)]

    write_series(tmp_path, edit=late)
    with pytest.raises(InputError, match=r"unequal distances, 3 to 3.7 mm, such as 3.7 mm from s002.dcm at -24.00 mm"):
        read_dicom(tmp_path)


@pytest.mark.parametrize(("off", "read"), [(0.0, True), (0.02, True), (0.1, False)])
def test_a_slice_may_be_off_by_rounding_alone(tmp_path: Path, off: float, read: bool) -> None:
    def one_off(k: int, one: Any) -> None:
        one.ImagePositionPatient = [-8.0, -9.0, round(-30 + 3 * k + off * (k == 2), 3)]

    write_series(tmp_path, edit=one_off)
    if read:
        assert worst(read_dicom(tmp_path)) <= 1
    else:
        with pytest.raises(InputError, match="unequal distances"):
            read_dicom(tmp_path)


def test_positions_with_one_decimal_are_rounded_not_unequal(tmp_path: Path) -> None:
    def rounded(k: int, one: Any) -> None:
        one.ImagePositionPatient = [-8.0, -9.0, round(-30 + 0.625 * k, 1)]

    write_series(tmp_path, n=9, step=(0, 0, 0.625), edit=rounded)
    assert read_dicom(tmp_path).affine[2, 2] == pytest.approx(0.625, abs=0.01)


def test_slices_that_are_shifted_in_their_plane_are_refused(tmp_path: Path) -> None:
    def shifted(k: int, one: Any) -> None:
        one.ImagePositionPatient = [-8.0 + 2.0 * (k == 3), -9.0, -30.0 + 3 * k]

    write_series(tmp_path, edit=shifted)
    with pytest.raises(InputError, match=r"shifted against each other within their plane, most s003.dcm"):
        read_dicom(tmp_path)


def test_two_slices_at_one_place_are_refused(tmp_path: Path) -> None:
    uid = write_series(tmp_path)[0]
    series = read_dicom(tmp_path).stack.slices[0].series  # type: ignore[union-attr]
    again = slice_of(2)
    again.SeriesInstanceUID = series
    again.save_as(tmp_path / "again.dcm", enforce_file_format=True)
    with pytest.raises(
        InputError, match=r"1 pair of slices at the same place, such as again.dcm and s002.dcm at -24.00"
    ):
        read_dicom(tmp_path)
    assert uid.exists()


def test_phases_in_one_series_are_listed_and_chosen(tmp_path: Path) -> None:
    uid = "1.2.826.0.1.3680043.8.498.77"

    def phase(number: int, offset: int) -> Any:
        def edit(k: int, one: Any) -> None:
            one.SeriesInstanceUID, one.SeriesNumber, one.TemporalPositionIdentifier = uid, 4, number
            one.RescaleIntercept = -1024.0 + offset

        return edit

    write_series(tmp_path, prefix="a", edit=phase(1, 0))
    write_series(tmp_path, prefix="b", edit=phase(2, 50))
    with pytest.raises(
        InputError, match=r"2 stacks of slices in one series, .*: 4:1 .*TemporalPositionIdentifier 1.*4:2"
    ):
        read_dicom(tmp_path)
    with pytest.raises(InputError, match=r"--data.series 4: 2 in .*give one such as 4:1"):
        read_dicom(tmp_path, "4")
    assert worst(read_dicom(tmp_path, "4:1")) <= 0.51
    second = read_dicom(tmp_path, "4:2")
    assert 49 <= worst(second) <= 51 and "series 4:2 is read; passed over: 4:1 (5 images)" in second.notes


def test_copies_of_files_are_used_once_with_a_line(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    shutil.copy(files[1], tmp_path / "s001 (1).dcm")
    image = read_dicom(tmp_path)
    assert worst(image) <= 0.51 and image.array.shape[2] == 5
    assert image.notes == ("1 file is a copy of another and not used twice: s001.dcm",)


def test_two_series_are_listed_and_chosen_by_number_uid_or_its_beginning(tmp_path: Path) -> None:
    def numbered(uid: str, number: int, description: str) -> Any:
        def edit(k: int, one: Any) -> None:
            one.SeriesInstanceUID, one.SeriesNumber, one.SeriesDescription = uid, number, description

        return edit

    write_series(tmp_path, prefix="a", edit=numbered("1.2.3.10", 3, "THIN"))
    write_series(tmp_path, n=4, prefix="b", edit=numbered("1.2.3.20", 12, "LUNG"), first=(-8, -9, 50))
    listed = r'2 series: 3 "THIN" \(CT, 5 slices of 12 x 10 pixels\), 12 "LUNG" \(CT, 4 slices.*--data.series'
    with pytest.raises(InputError, match=listed):
        read_dicom(tmp_path)
    for name in ("12", "1.2.3.20", "1.2.3.2"):
        image = read_dicom(tmp_path, name)
        assert image.array.shape[2] == 4 and worst(image) <= 0.51
        assert image.notes == ("series 12 is read; passed over: 3 (5 images)",)
    with pytest.raises(InputError, match=r"--data.series 1.2.3: 2 in"):
        read_dicom(tmp_path, "1.2.3")
    with pytest.raises(InputError, match=r"--data.series 7: not in .* which has 3 .*12"):
        read_dicom(tmp_path, "7")


def test_series_of_one_number_are_told_by_their_uid(tmp_path: Path) -> None:
    for uid in ("1.2.3.10", "1.2.3.20"):

        def edit(k: int, one: Any, uid: str = uid) -> None:
            one.SeriesInstanceUID, one.SeriesNumber = uid, 3

        write_series(tmp_path, prefix=uid, edit=edit)
    with pytest.raises(InputError, match=r"2 series: 1.2.3.10 .*, 1.2.3.20"):
        read_dicom(tmp_path)
    with pytest.raises(InputError, match=r"--data.series 3: 2 in"):
        read_dicom(tmp_path, "3")


@pytest.mark.parametrize(
    ("name", "value"),
    [("PixelSpacing", [1.5, 1.5]), ("ImageOrientationPatient", [1, 0, 0, 0, 0.98, -0.198997487]), ("Rows", 5)],
)
def test_slices_that_differ_within_a_series_are_refused(tmp_path: Path, name: str, value: Any) -> None:
    def differs(k: int, one: Any) -> None:
        if k > 2:
            setattr(one, name, value)

    write_series(tmp_path, edit=differs)
    with pytest.raises(InputError, match="2 stacks of slices in one series"):
        read_dicom(tmp_path)


def test_a_localizer_and_other_objects_are_passed_over_with_a_line(tmp_path: Path) -> None:
    write_series(tmp_path)
    scout = slice_of(0, (0, 1, 0, 0, 0, -1))
    scout.SeriesInstanceUID, scout.SeriesNumber, scout.ImageType = "1.2.3.4", 1, ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.save_as(tmp_path / "scout.dcm", enforce_file_format=True)
    kinds = {"RTSTRUCT": "481.3", "SEG": "66.4", "SR": "88.11", "PR": "11.1", "CT": "7"}
    for modality, number in kinds.items():
        other = slice_of(0)
        other.Modality, other.SeriesInstanceUID = modality, f"1.2.3.5.{number}"
        other.SOPClassUID = other.file_meta.MediaStorageSOPClassUID = f"1.2.840.10008.5.1.4.1.1.{number}"
        other.save_as(tmp_path / f"other{number}.dcm", enforce_file_format=True)
    (tmp_path / "LICENSE").write_text("words")
    image = read_dicom(tmp_path)
    assert worst(image) <= 0.51 and image.array.shape[2] == 5
    assert image.notes == (
        "series of s000.dcm is read; passed over: 1 (localizer, 1 image)",
        "5 files passed over: PR 1, RTSTRUCT 1, SEG 1, SR 1, Secondary Capture Image 1",
        "1 file passed over, not DICOM: LICENSE",
    )


def test_a_localizer_in_the_series_is_passed_over_with_a_line(tmp_path: Path) -> None:
    def scout(k: int, one: Any) -> None:
        one.SeriesNumber = 2
        if k == 0:
            one.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    write_series(tmp_path, edit=scout)
    image = read_dicom(tmp_path)
    assert image.array.shape[2] == 4 and image.notes == ("series 2:2 is read; passed over: 2:1 (localizer, 1 image)",)


def test_a_folder_without_slices_says_what_it_has(tmp_path: Path) -> None:
    def pet(k: int, one: Any) -> None:
        one.Modality = "PT"
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.128"

    write_series(tmp_path, edit=pet)
    with pytest.raises(InputError, match=r"no slices of CT or MR but PT 5"):
        read_dicom(tmp_path)


def test_a_single_file_of_a_series_asks_for_the_folder(tmp_path: Path) -> None:
    file = write_series(tmp_path)[0]
    with pytest.raises(InputError, match="a single slice of a series; give the folder"):
        read_volume(file, "ct")
    shutil.copy(file, tmp_path.parent / "alone.dcm")
    (tmp_path / "alone").mkdir()
    shutil.copy(file, tmp_path / "alone")
    with pytest.raises(InputError, match="a single slice"):
        read_dicom(tmp_path / "alone")


@pytest.mark.parametrize("name", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows"])
def test_what_has_no_geometry_is_refused_by_name(tmp_path: Path, name: str) -> None:
    write_series(tmp_path, edit=drop(name))
    with pytest.raises(InputError, match=rf"s000.dcm: lacks {name}"):
        read_dicom(tmp_path)


def test_one_slice_without_a_place_is_not_left_out(tmp_path: Path) -> None:
    write_series(tmp_path, edit=lambda k, one: k == 4 and setattr(one, "ImagePositionPatient", None))
    with pytest.raises(InputError, match=r"s004.dcm: lacks ImagePositionPatient"):
        read_dicom(tmp_path)


def test_pixel_spacing_at_the_detector_is_none(tmp_path: Path) -> None:
    def at_the_detector(_: int, one: Any) -> None:
        one.ImagerPixelSpacing = one.PixelSpacing
        del one.PixelSpacing

    write_series(tmp_path, edit=at_the_detector)
    with pytest.raises(InputError, match="lacks PixelSpacing, which ImagerPixelSpacing"):
        read_dicom(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("ImagePositionPatient", "a\\b\\c", "s000.dcm"),
        ("ImagePositionPatient", "1\\2", "not 3 numbers"),
        ("PixelSpacing", "0\\1", "PixelSpacing is 0 x 1 mm"),
        ("ImageOrientationPatient", "1\\0\\0\\0\\0.9\\0", "perpendicular directions of unit length"),
        ("ImageOrientationPatient", "1\\0\\0\\0.1\\0.995\\0", "perpendicular directions of unit length"),
        ("RescaleSlope", "0", "RescaleSlope is 0"),
        ("RescaleIntercept", "nan", "RescaleIntercept is nan"),
    ],
)
def test_numbers_that_cannot_be_are_refused(tmp_path: Path, name: str, text: str, told: str) -> None:
    write_raw(tmp_path, name, text)
    with pytest.raises(InputError, match=told):
        read_dicom(tmp_path)


def write_raw(folder: Path, name: str, text: str) -> list[Path]:
    """A series with a text that pydicom would not make a number of."""
    from pydicom import config
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    def raw(_: int, one: Any) -> None:
        value = (text + " " * (len(text) % 2)).encode()
        one._dict[Tag(name)] = RawDataElement(Tag(name), "DS", len(value), value, 0, False, True)

    with config.disable_value_validation():
        return write_series(folder, edit=raw)


def test_numbers_of_more_than_16_characters_are_numbers(tmp_path: Path) -> None:
    files = write_raw(
        tmp_path,
        "ImageOrientationPatient",
        "1.00000000000000000\\0\\0\\0\\0.99999999500000000417\\-0.00009999999983333",
    )
    assert len(files) == 5
    image = read_dicom(tmp_path)
    assert worst(image) <= 1 and image.notes == () and image.written is None


def test_positions_count_more_than_the_spacing_that_is_told(tmp_path: Path) -> None:
    write_series(tmp_path, edit=put("SpacingBetweenSlices", 4.0))
    image = read_dicom(tmp_path)
    assert worst(image) <= 0.51
    assert image.notes == ("SpacingBetweenSlices is 4 mm, but slices are 3 mm apart, which is what counts",)


@pytest.mark.parametrize(("modality", "task"), [("MR", "ct"), ("CT", "mri"), ("XA", "ct")])
def test_another_modality_is_refused(tmp_path: Path, modality: str, task: Any) -> None:
    write_series(tmp_path, modality="MR" if modality == "MR" else "CT", edit=put("Modality", modality))
    with pytest.raises(InputError, match=f"its Modality is {modality}, which is not that of {task}"):
        read_volume(tmp_path, task)


def test_other_files_hidden_files_and_brackets(tmp_path: Path) -> None:
    folder = tmp_path / "patient [1]" / "scan"
    files = write_series(folder)
    for file in files:
        (folder / f"._{file.name}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(200))
    for name in ("00 LICENSE", "01 notes.txt"):
        (folder / name).write_text("words")
    slice_of(0).save_as(folder / "DICOMDIR", enforce_file_format=True)
    (folder / "__MACOSX").mkdir()
    shutil.copy(files[0], folder / "__MACOSX")
    image = read_dicom(folder)
    assert worst(image) <= 0.51
    assert image.notes == ("2 files passed over, not DICOM: 00 LICENSE, 01 notes.txt",)
    assert read_volume(folder, "ct").notes[:1] == image.notes


def test_files_in_folders_below_are_one_series_or_refused(tmp_path: Path) -> None:
    uid = "1.2.3.4.5"
    for k, name in enumerate(("a/deep", "b/deep")):
        write_series(tmp_path / name, drop=[j for j in range(5) if j % 2 != k], edit=put("SeriesInstanceUID", uid))
    assert worst(read_dicom(tmp_path)) <= 0.51
    write_series(tmp_path / "c", prefix="other")
    with pytest.raises(InputError, match="2 series"):
        read_dicom(tmp_path)


def test_what_is_named_dicom_and_is_none_is_not_left_out(tmp_path: Path) -> None:
    files = write_series(tmp_path)
    files[4].write_bytes(b"")
    with pytest.raises(InputError, match=r"s004.dcm: empty, though it is named as DICOM"):
        read_dicom(tmp_path)
    files[4].write_text("no header here")
    with pytest.raises(InputError, match=r"s004.dcm: no DICOM file, though"):
        read_dicom(tmp_path)


def test_links_are_followed_and_those_to_nothing_named(tmp_path: Path) -> None:
    write_series(tmp_path / "store")
    (tmp_path / "scan").symlink_to(tmp_path / "store")
    assert worst(read_dicom(tmp_path / "scan")) <= 0.51
    (tmp_path / "store" / "loop").symlink_to(tmp_path)
    assert worst(read_dicom(tmp_path / "store")) <= 0.51
    (tmp_path / "store" / "s005.dcm").symlink_to(tmp_path / "gone.dcm")
    with pytest.raises(InputError, match=r"s005.dcm: a link to what is not there"):
        read_dicom(tmp_path / "store")


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, opened = write_series(tmp_path)[2], Path.open

    def closed(path: Path, *args: Any, **options: Any) -> Any:
        if path == file:
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", closed)
    with pytest.raises(InputError, match=r"s002.dcm: cannot be read \(Permission denied\)"):
        read_dicom(tmp_path)


def test_is_dicom(tmp_path: Path) -> None:
    file = write_series(tmp_path)[0]
    assert is_dicom(file) and not is_dicom(tmp_path)
    bare = tmp_path / "IM1"
    one = slice_of(0)
    del one.file_meta
    one.SeriesInstanceUID = "1.2.3"
    one.save_as(bare, implicit_vr=True, little_endian=True)
    assert is_dicom(bare)
    (tmp_path / "like").write_bytes(b"\x08\0" + bytes(400))
    assert not is_dicom(tmp_path / "like")
    found = dicom_files(tmp_path)
    assert [path.name for path in found.dicom] == ["IM1", *(f"s{k:03d}.dcm" for k in range(5))]
    assert [path.name for path in found.others] == ["like"]
