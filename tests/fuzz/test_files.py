"""Headers and bytes of files, changed at random: what is read is a volume or a measurement, the rest one line."""

from __future__ import annotations

import gzip
import struct
import warnings
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mbir.data import read_measurement, read_volume
from lightning_mbir.data.measurements.measurement import Measurement
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.reconstruction.measured import measured_operator
from tests.data.volumes.dicom_made import write_series
from tests.fuzz.running import command, folder, read

NUMBERS = st.sampled_from([0, 1, -1, 2, 3, 7, 16, 255, 32767, -32768, 1e-30, 1e30, -0.5, np.nan, np.inf, 0.001, 1000])
FIELDS = {  # of a NIfTI-1 header: where they lie, and their type
    "sizeof_hdr": (0, "i"), "dim_info": (39, "b"), "dim0": (40, "h"), "dim1": (42, "h"), "dim2": (44, "h"),
    "dim3": (46, "h"), "dim4": (48, "h"), "intent_code": (68, "h"), "datatype": (70, "h"), "bitpix": (72, "h"),
    "pixdim0": (76, "f"), "pixdim1": (80, "f"), "pixdim2": (84, "f"), "pixdim3": (88, "f"), "vox_offset": (108, "f"),
    "scl_slope": (112, "f"), "scl_inter": (116, "f"), "xyzt_units": (123, "b"), "qform_code": (252, "h"),
    "sform_code": (254, "h"), "quatern_b": (256, "f"), "qoffset_x": (268, "f"), "srow_x0": (280, "f"),
    "srow_x3": (292, "f"), "srow_y1": (300, "f"), "srow_z2": (320, "f"), "magic": (344, "i"),
}  # fmt: skip
TAGS = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "BitsAllocated",
    "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel", "PhotometricInterpretation", "RescaleSlope",
    "RescaleIntercept", "InstanceNumber", "SeriesInstanceUID", "Modality", "SOPClassUID", "NumberOfFrames",
    "SliceThickness", "ImageType", "PixelPaddingValue",
)  # fmt: skip
TEXTS = st.sampled_from(
    ["", "0", "-1", "nan", "1e400", "1\\2", "1\\0\\0\\0\\1\\0", "0\\0\\0", "a" * 40, "\u00e9", "MR", "9" * 17]
)
HEADER_VALUES = st.sampled_from(
    ["", "0", "-3", "nan", "1e40", "3 3 3", "2 2", "ZLIB", "../x.raw", "/etc/passwd", "(1,0,0)", "\u00e9"]
)


def packed(kind: str, number: float) -> bytes:
    """A number as it fits a field, whatever that makes of it."""
    if kind == "f":
        return struct.pack("<f", float(np.float32(number)))
    bits = {"b": 8, "h": 16, "i": 32}[kind]
    whole = 0 if not np.isfinite(number) else int(number)
    return (whole % 2**bits).to_bytes(bits // 8, "little")


def check_volume(volume: Volume | None) -> None:
    """What was read can be worked with."""
    if volume is not None:
        assert volume.data.ndim == 3 and min(volume.data.shape) >= 2 and bool(torch.isfinite(volume.data).all())
        assert np.isfinite(volume.affine).all() and all(size > 0 for size in volume.spacing)


def nifti() -> bytes:
    array = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4)
    return bytes(nib.Nifti1Image(array, np.diag([2.0, 2.0, 3.0, 1.0])).to_bytes())


@given(
    changes=st.dictionaries(st.sampled_from(sorted(FIELDS)), NUMBERS, min_size=1, max_size=3),
    cut=st.one_of(st.none(), st.integers(0, 600)),
    zipped=st.booleans(),
    modality=st.sampled_from(["ct", "mri"]),
)
def test_nifti_headers(changes: dict[str, float], cut: int | None, zipped: bool, modality: str) -> None:
    content = bytearray(nifti())
    for field, number in changes.items():
        place, kind = FIELDS[field]
        part = packed(kind, number)
        content[place : place + len(part)] = part
    with folder() as here:
        path = here / ("v.nii.gz" if zipped else "v.nii")
        path.write_bytes(gzip.compress(bytes(content[:cut])) if zipped else content[:cut])
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # numbers that overflow on the way
            check_volume(read(read_volume, path, modality))


@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4))
def test_bytes_of_packed_niftis(flips: list[tuple[float, int]]) -> None:
    whole = gzip.compress(nifti(), mtime=0)
    content = bytearray(whole)
    for place, change in flips:
        content[int(place * len(content))] ^= change
    with folder() as here:
        (here / "v.nii.gz").write_bytes(whole)
        right = read_volume(here / "v.nii.gz", "mri").data
        (here / "v.nii.gz").write_bytes(content)
        volume = read(read_volume, here / "v.nii.gz", "mri")
        assert volume is None or torch.equal(volume.data, right)  # the checksum tells


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@given(data=st.data())
def test_text_headers(suffix: str, data: st.DataObject) -> None:
    image = sitk.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    image.SetSpacing((1.0, 1.5, 3.0))
    with folder() as here:
        path = here / f"v{suffix}"
        sitk.WriteImage(image, str(path))
        header, end, voxels = _split(path.read_bytes(), suffix)
        lines = header.decode().splitlines()
        number = data.draw(st.integers(0, len(lines) - 1))
        mark = ":" if suffix == ".nrrd" else "="
        key, found, _ = lines[number].partition(mark)
        action = data.draw(st.sampled_from(["value", "drop", "twice"]))
        if action == "drop":
            del lines[number]
        elif action == "twice":
            lines.insert(number, lines[number])
        elif found:
            lines[number] = f"{key}{mark} {data.draw(HEADER_VALUES)}"
        path.write_bytes("\n".join(lines).encode() + end + voxels[: data.draw(st.sampled_from([None, 10, 0]))])
        check_volume(read(read_volume, path, "mri"))


def _split(content: bytes, suffix: str) -> tuple[bytes, bytes, bytes]:
    """Header, what ends it, and voxels."""
    if suffix == ".nrrd":
        header, end, voxels = content.partition(b"\n\n")
        return header, end, voxels
    place = content.index(b"\n", content.index(b"ElementDataFile"))
    return content[:place], content[place : place + 1], content[place + 1 :]


@given(tag=st.sampled_from(TAGS), value=st.one_of(TEXTS, st.just(None)), which=st.sampled_from(["one", "all"]))
def test_dicom_attributes(tag: str, value: str | None, which: str) -> None:
    def edit(k: int, one: Any) -> None:
        if which == "one" and k != 2:
            return
        if value is None and tag in one:
            delattr(one, tag)
        elif value is not None:
            set_raw(one, tag, value)

    with folder() as here:
        try:
            write_series(here / "scan", edit=edit, save={})
        except (ValueError, TypeError, OverflowError, AttributeError, struct.error):
            return  # pydicom does not write it
        check_volume(read(read_volume, here / "scan", "ct"))


def set_raw(dataset: Any, tag: str, text: str) -> None:
    """Set an attribute to a text, past pydicom's checks, or to the number in it."""
    from pydicom import config

    kind = dataset[tag].VR if tag in dataset else "LO"
    if kind == "US":
        setattr(dataset, tag, int(text) if text.isdecimal() and int(text) < 65536 else 0)
        return
    before, config.settings.writing_validation_mode = config.settings.writing_validation_mode, config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset.add_new(dataset.data_element(tag).tag if tag in dataset else tag, kind, text)
    finally:
        config.settings.writing_validation_mode = before


ARRAYS = st.sampled_from(
    [
        np.zeros(0, np.float32), np.float32(1), np.zeros((4, 4), np.float32), np.ones((2, 3, 4, 5, 6), np.float32),
        np.full((2, 12, 16), np.nan, np.float32), np.ones((2, 12, 16), np.complex64), np.array("text"), np.array(b"x"),
        np.ones((2, 12, 16), bool), np.array([1, -5, 1e30]), np.array(-1), np.array(10**12), np.array(np.inf),
        np.arange(12.0), np.array([16, 16, 1.5]), np.array(["a", "b"]), np.ones((1, 1, 1)),
    ]
)  # fmt: skip
PARALLEL = {
    "measurement": np.ones((2, 12, 24), np.float32),
    "angles": np.arange(12.0) * 15,
    "image_size": 16,
    "pixel_size": 1.0,
}
DISTANCES = {"angles": np.arange(12.0) * 30, "source_distance": 100.0, "detector_distance": 80.0}
CONE = {"measurement": np.ones((12, 6, 24), np.float32), "pixel_size": 1.0, "volume_shape": np.array([4, 16, 16])}
COUNTS = {
    "exchange/data": np.full((12, 2, 24), 500, np.uint16),
    "exchange/data_white": np.full((2, 2, 24), 900, np.uint16),
    "exchange/data_dark": np.zeros((2, 2, 24), np.uint16),
    "exchange/theta": np.arange(12.0) * 15,
}
LAYOUTS: dict[str, tuple[str, dict[str, Any]]] = {
    "parallel": ("ct", {**PARALLEL, "detector_spacing": 1.0, "center_offset": 0.0, "spacing": np.array([2.0, 1, 1])}),
    "fan": ("ct", {**PARALLEL, **DISTANCES, "beam": "fan"}),
    "cone": ("ct", {**CONE, **DISTANCES, "beam": "cone"}),
    "exchange": ("ct", COUNTS),
    "kspace": ("mri", {"kspace": np.ones((2, 16, 16), np.complex64), "mask": np.ones(16), "noise_std": 0.1}),
    "own kspace": ("mri", {"measurement": np.ones((2, 16, 16), np.complex64), "mask": np.ones((16, 16))}),
}


@pytest.mark.filterwarnings("ignore:.*the detector cuts off")
@pytest.mark.parametrize("layout", list(LAYOUTS))
@given(data=st.data())
def test_measurements(layout: str, data: st.DataObject) -> None:
    modality, content = LAYOUTS[layout]
    content = dict(content)
    for key in data.draw(st.lists(st.sampled_from(sorted(content)), min_size=1, max_size=2, unique=True)):
        changed = data.draw(st.one_of(ARRAYS, st.none()))
        if changed is None:
            del content[key]
        else:
            content[key] = changed
    suffix = data.draw(st.sampled_from([".npz", ".h5"]))
    with folder() as here:
        path = here / f"m{suffix}"
        if suffix == ".npz":
            np.savez(path, **content)
        else:
            with h5py.File(path, "w") as file:
                for key, value in content.items():
                    file[key] = np.char.encode(value) if getattr(value, "dtype", None) == "<U1" else _plain(value)
        measurement = read(read_measurement, path, modality)
        if isinstance(measurement, Measurement):
            assert bool(
                torch.isfinite(torch.view_as_real(measurement.y) if measurement.y.is_complex() else measurement.y).all()
            )
            operator = read(measured_operator, measurement)  # what the numbers are worth is for the operator to say
            assert operator is None or operator.domain_shape


def _plain(value: Any) -> Any:
    """What h5py takes: no arrays of Unicode."""
    array = np.asarray(value)
    return str(array) if array.dtype.kind == "U" else value


@settings(max_examples=settings.default.max_examples // 6)  # a second each
@given(
    field=st.sampled_from(sorted(FIELDS)),
    number=NUMBERS,
    flags=st.sampled_from([[], ["--data.image_size", "16"], ["--data.slices", "0:2"], ["--data.slices", "1:9"]]),
)
def test_volumes_on_the_command_line(field: str, number: float, flags: list[str]) -> None:
    content = bytearray(nifti())
    place, kind = FIELDS[field]
    part = packed(kind, number)
    content[place : place + len(part)] = part
    with folder() as here:
        path = Path(here / "v.nii")
        path.write_bytes(content)
        arguments = ["predict", "--task", "sv_ct", "--method", "fbp", "--trainer.accelerator", "cpu"]
        command([*arguments, "--data.path", str(path), *flags], here / "out")
