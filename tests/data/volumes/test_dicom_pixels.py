"""Pixels of DICOM slices: every way to store and compress them, rescaled slice by slice."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom.data
import pytest
import SimpleITK as sitk
from pydicom.pixels import compress, get_decoder
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from lightning_mbir.data import read_volume
from lightning_mbir.data.volumes.dicom.files import dicom_files, is_dicom
from lightning_mbir.data.volumes.dicom_reading import read_dicom
from lightning_mbir.errors import InputError
from tests.data.volumes.dicom_made import SIZE, item, slice_of, worst, write_series


def stored(one: Any) -> np.ndarray:
    return np.frombuffer(one.PixelData, "<i2")


def test_each_slice_has_its_own_slope(tmp_path: Path) -> None:
    def own(k: int, one: Any) -> None:
        one.RescaleSlope, one.RescaleIntercept = 0.5 + k, -1024.0 + 10 * k
        values = stored(one).astype(float) - 1024
        one.PixelData = np.round((values + 1024 - 10 * k) / (0.5 + k)).astype("<i2").tobytes()

    write_series(tmp_path, edit=own, modality="MR")
    assert worst(read_dicom(tmp_path)) <= 2.8  # half of the largest slope, and the rounding of the values
    assert read_dicom(tmp_path, modality="mri").notes == (
        "RescaleSlope differs from slice to slice: each slice has its own",
    )


def test_mri_without_a_rescale_has_the_stored_values(tmp_path: Path) -> None:
    def none(_: int, one: Any) -> None:
        one.PixelData = (stored(one) - 1024).astype("<i2").tobytes()
        del one.RescaleSlope, one.RescaleIntercept

    write_series(tmp_path, edit=none, modality="MR")
    assert worst(read_dicom(tmp_path)) <= 0.51


@pytest.mark.parametrize("name", ["RescaleSlope", "RescaleIntercept"])
def test_ct_without_a_rescale_has_no_hounsfield_units(tmp_path: Path, name: str) -> None:
    write_series(tmp_path, edit=lambda _, one: delattr(one, name))
    with pytest.raises(InputError, match=f"s000.dcm: lacks {name}, so its HU are not known"):
        read_dicom(tmp_path)


@pytest.mark.parametrize(
    ("image_type", "told"),
    [
        (["ORIGINAL", "PRIMARY", "P", "DIS2D"], "phase"),
        (["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"], "phase"),
        (["DERIVED", "SECONDARY", "REAL"], "real part"),
        (["ORIGINAL", "PRIMARY", "M", "NORM"], ""),
        (["ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"], ""),
        (["ORIGINAL", "PRIMARY"], ""),
    ],
)
def test_parts_of_complex_images_are_told_from_magnitudes(image_type: list[str], told: str, tmp_path: Path) -> None:
    """A phase lies between -4096 and 4095, and looks like an image of the same head to everything but the eye."""
    write_series(tmp_path, edit=lambda _, one: setattr(one, "ImageType", image_type), modality="MR")
    notes = read_dicom(tmp_path, modality="mri").notes
    assert notes == ((f"ImageType says {told}: values are read as they are, and are no magnitudes",) if told else ())


def test_a_rescale_to_something_else_is_told(tmp_path: Path) -> None:
    write_series(tmp_path, edit=lambda _, one: setattr(one, "RescaleType", "US"))
    assert read_dicom(tmp_path).notes == ("RescaleType is US: values are taken for HU all the same",)


def test_a_table_instead_of_a_slope(tmp_path: Path) -> None:
    def table(_: int, one: Any) -> None:
        values = np.arange(256, dtype="<u2") * 3
        one.PixelData, one.PixelRepresentation = (np.arange(120) % 256).astype("<u2").tobytes(), 0
        one.ModalityLUTSequence = Items(
            [item(LUTDescriptor=[256, 0, 16], ModalityLUTType="HU", LUTData=values.tobytes())]
        )
        del one.RescaleSlope, one.RescaleIntercept

    write_series(tmp_path, edit=table)
    np.testing.assert_array_equal(read_dicom(tmp_path).array[:, :, 2].T.ravel(), 3 * np.arange(120))


def test_monochrome1_says_how_to_display_alone(tmp_path: Path) -> None:
    write_series(tmp_path, edit=lambda _, one: setattr(one, "PhotometricInterpretation", "MONOCHROME1"))
    image = read_dicom(tmp_path)
    assert worst(image) <= 0.51
    assert image.notes == ("MONOCHROME1: shown with bright and dark exchanged; values are read as they are stored",)


def test_unsigned_and_signed_and_12_bits_in_16_with_an_overlay_in_the_rest(tmp_path: Path) -> None:
    def twelve(k: int, one: Any) -> None:
        signed = k % 2
        values = stored(one).astype(np.int64) - 1024 * signed
        overlay = 0xF000 if k == 2 else 0x8000
        one.PixelData = ((values & 0x0FFF) | overlay).astype("<u2").tobytes()
        one.PixelRepresentation, one.BitsStored, one.HighBit = signed, 12, 11
        one.RescaleIntercept = 0.0 if signed else -1024.0

    write_series(tmp_path, edit=twelve)
    assert worst(read_dicom(tmp_path)) <= 0.51


def test_bits_that_end_elsewhere_are_refused(tmp_path: Path) -> None:
    def high(_: int, one: Any) -> None:
        one.BitsStored = 12

    write_series(tmp_path, edit=high)
    with pytest.raises(InputError, match="HighBit is 15 of 12 BitsStored, not 11"):
        read_dicom(tmp_path)


def test_float_pixels(tmp_path: Path) -> None:
    def floats(_: int, one: Any) -> None:
        one.FloatPixelData = (stored(one) + 0.25).astype("<f4").tobytes()
        one.BitsAllocated = 32
        del one.PixelData, one.BitsStored, one.HighBit, one.PixelRepresentation

    write_series(tmp_path, edit=floats)
    assert 0.25 <= worst(read_dicom(tmp_path)) <= 0.76


@pytest.mark.parametrize(("kind", "samples"), [("RGB", 3), ("PALETTE COLOR", 1)])
def test_colour_is_refused(tmp_path: Path, kind: str, samples: int) -> None:
    def colour(_: int, one: Any) -> None:
        one.SamplesPerPixel, one.PhotometricInterpretation, one.PlanarConfiguration = samples, kind, 0

    write_series(tmp_path, edit=colour)
    with pytest.raises(InputError, match=r"s000.dcm: an image in colour"):
        read_dicom(tmp_path)


@pytest.mark.parametrize("codec", ["RLE", "JPEG", "JPEG2000"])
@pytest.mark.parametrize("signed", [True, False])
def test_compressed_pixels(tmp_path: Path, codec: str, signed: bool) -> None:
    def compressed(_: int, one: Any) -> None:
        if codec == "RLE":
            compress(one, RLELossless)
            return
        kind = np.int16 if signed else np.uint16
        image = sitk.GetImageFromArray(stored(one).reshape(1, *SIZE).astype(kind))
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.UseCompressionOn()
        writer.SetCompressor(codec)
        writer.SetFileName(str(tmp_path / "by_itk"))
        writer.Execute(image)
        written = pydicom.dcmread(tmp_path / "by_itk")
        (tmp_path / "by_itk").unlink()
        one.PixelData, one.PixelRepresentation = written.PixelData, int(signed)
        one["PixelData"].VR, one["PixelData"].is_undefined_length = "OB", True
        one.file_meta.TransferSyntaxUID = written.file_meta.TransferSyntaxUID

    write_series(tmp_path, edit=compressed)
    assert worst(read_dicom(tmp_path)) <= 0.51


@pytest.mark.parametrize("name", ["MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless"])
def test_pydicoms_own_files(tmp_path: Path, name: str) -> None:
    plain = pydicom.dcmread(pydicom.data.get_testdata_file("MR_small.dcm", download=False))
    for k in range(2):
        one = pydicom.dcmread(pydicom.data.get_testdata_file(f"{name}.dcm", download=False))
        one.ImagePositionPatient[2] += k * 3
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{k}"
        one.save_as(tmp_path / f"{k}.dcm")
    image = read_dicom(tmp_path, modality="mri")
    for k in range(2):
        np.testing.assert_array_equal(image.array[:, :, k].T, plain.pixel_array)


@pytest.mark.parametrize("name", ["JPEGLossless", "JPEGLosslessSV1", "JPEGLSLossless", "JPEG2000Lossless"])
def test_decoders_that_the_extra_brings(name: str) -> None:
    pytest.importorskip("libjpeg", reason="the extra dicom")
    assert get_decoder(getattr(pydicom.uid, name)).is_available


def test_a_missing_decoder_is_told_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path, edit=lambda _, one: compress(one, RLELossless))
    monkeypatch.setattr(get_decoder(RLELossless), "_available", {})
    with pytest.raises(InputError, match=r"RLE Lossless, for which no decoder .*'lightning-mbir\[dicom\]'"):
        read_dicom(tmp_path)


def test_a_syntax_that_is_no_image_is_refused(tmp_path: Path) -> None:
    def video(_: int, one: Any) -> None:
        one.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\x04\0\0\0abcd"
        one["PixelData"].VR, one["PixelData"].is_undefined_length = "OB", True
        one.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"

    write_series(tmp_path, edit=video)
    with pytest.raises(InputError, match=r"stored as MPEG-4 .* which is not read"):
        read_dicom(tmp_path)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_other_ways_to_write_a_file(tmp_path: Path, syntax: str) -> None:
    def swapped(_: int, one: Any) -> None:
        one.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            one.PixelData = stored(one).astype(">i2").tobytes()
            one["PixelData"].VR = "OW"

    write_series(tmp_path, edit=swapped)
    assert worst(read_dicom(tmp_path)) <= 0.51


@pytest.mark.parametrize("implicit", [True, False])
def test_files_without_a_preamble(tmp_path: Path, implicit: bool) -> None:
    def bare(_: int, one: Any) -> None:
        del one.file_meta
        one["PixelData"].VR = "OW"

    files = write_series(tmp_path, edit=bare, save={"implicit_vr": implicit, "little_endian": True})
    assert files[0].read_bytes()[128:132] != b"DICM"
    assert len(dicom_files(tmp_path).dicom) == 5 and worst(read_dicom(tmp_path)) <= 0.51


def test_a_deflated_file_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deflated(_: int, one: Any) -> None:
        one.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        one.add_new(0x00091010, "OB", bytes(40 << 20))

    files = write_series(tmp_path, n=2, edit=deflated)
    assert files[0].stat().st_size < 1 << 20
    monkeypatch.setattr("lightning_mbir.free_memory.free_memory", lambda device: 30 << 20)
    with pytest.raises(InputError, match=r"s000.dcm: takes 0.0 GiB .* it is deflated"):
        read_dicom(tmp_path)


@pytest.mark.parametrize("kept", [-40, -250, 700])
def test_a_slice_cut_short_is_refused_by_name(tmp_path: Path, kept: int) -> None:
    file = write_series(tmp_path)[2]
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"s002.dcm: .*(cut short|lacks|class)"):
        read_dicom(tmp_path)


def test_a_file_of_a_slice_cut_anywhere_is_never_left_out(tmp_path: Path) -> None:
    file = write_series(tmp_path)[4]
    whole = file.read_bytes()
    for kept in (*range(0, 400, 9), *range(400, len(whole), 57), len(whole) - 1):
        file.write_bytes(whole[:kept])
        with pytest.raises(InputError):
            read_dicom(tmp_path)


def test_padding_below_air_is_kept_and_padding_above_becomes_air(tmp_path: Path) -> None:
    def padded(value: int) -> Any:
        def edit(_: int, one: Any) -> None:
            values = stored(one).copy()
            values[:12] = value
            one.PixelData, one.PixelPaddingValue = values.tobytes(), value

        return edit

    write_series(tmp_path / "low", edit=padded(-2000))
    low = read_dicom(tmp_path / "low", modality="ct")
    assert (low.array[:, 0] == -3024).all() and low.notes == ()
    assert float(read_volume(tmp_path / "low", "ct").data.min()) == 0
    write_series(tmp_path / "high", edit=padded(32767))
    high = read_dicom(tmp_path / "high", modality="ct")
    assert (high.array[:, 0] == -1000).all() and high.array.max() < 1000
    assert high.notes == ("60 voxels of padding (PixelPaddingValue), up to 31743 HU, are taken for air",)


def test_a_volume_larger_than_the_memory_is_refused_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def large(_: int, one: Any) -> None:
        one.Rows = one.Columns = 60000

    write_series(tmp_path, edit=large)
    monkeypatch.setattr("lightning_mbir.free_memory.free_memory", lambda device: 1 << 30)
    with pytest.raises(InputError, match=r"takes 67.1 GiB of memory"):
        read_dicom(tmp_path)


def test_excess_bytes_are_told(tmp_path: Path) -> None:
    write_series(tmp_path, edit=lambda _, one: setattr(one, "PixelData", one.PixelData + bytes(10)))
    (note,) = read_dicom(tmp_path).notes
    assert note.startswith("pydicom: The pixel data is 250 bytes long") or "excess padding" in note


def test_is_dicom_needs_no_suffix(tmp_path: Path) -> None:
    slice_of(0).save_as(tmp_path / "IM0001", enforce_file_format=True)
    assert is_dicom(tmp_path / "IM0001") and not is_dicom(tmp_path / "nothing")
