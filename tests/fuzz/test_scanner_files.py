"""Files of scanners, damaged and changed at random: what is read is a measurement, the rest one line."""

from __future__ import annotations

import functools
import re
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import scipy.io
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mbir.data import read_measurement
from lightning_mbir.data.measurements.dicom_ct_pd import LOGARITHM, NAMES, SHAPE, SHIFT_ANGLE
from lightning_mbir.data.measurements.measurement import Measurement
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.data.units import Modality
from lightning_mbir.reconstruction.measured import measured_operator
from tests.data.measurements import test_dicom_ct_pd, test_nikon, test_projection_files, test_rtk, test_scanners
from tests.fuzz.running import folder, read

ODD = st.sampled_from(["", "0", "-1", "nan", "1e400", "1e-320", "x", "3 3 3", "9" * 25, "\u00e9", "<a>", "[b]", "true"])
TWIX = "data/raw/brain_gre_16ch_siemens_twix.dat"
Files = dict[str, bytes]


def kept(make: Callable[[Path], object]) -> Files:
    """What ``make`` writes into a folder."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        make(Path(name))
        return {path.name: path.read_bytes() for path in sorted(Path(name).iterdir())}


def _nikon(folder: Path) -> None:
    test_nikon.write(folder)


def _rtk(folder: Path) -> None:
    test_rtk.write(folder, [{"GantryAngle": i * 45.0} for i in range(8)], (6.0, 3.0, -4.0))


def _mrd(folder: Path) -> None:
    whole = test_scanners.fft(np.random.default_rng(0).standard_normal((1, 2, 3, 24, 10)))
    test_scanners.write_mrd(folder / "scan.h5", whole, np.random.default_rng(1).standard_normal((3, 50)))


def _tiff(folder: Path) -> None:
    test_projection_files.stack(folder)


def _matlab(folder: Path) -> None:
    given = test_projection_files.changed(numDetectorsPost=20)
    given["sinogram"] = np.random.default_rng(0).random((721, 20))
    scipy.io.savemat(folder / "scan.mat", {"CtDataFull": given})
    test_projection_files.matlab_73(folder / "scan73.mat", "CtDataFull", given)


def _bart(folder: Path) -> None:
    test_scanners.write_cfl(folder / "scan.cfl", np.ones((2, 3, 12, 10), np.complex64), "slice coil y x")


MADE = {
    "nikon": (_nikon, "scan.xtekct", "ct"),
    "rtk": (_rtk, "scan.xml", "ct"),
    "mrd": (_mrd, "scan.h5", "mri"),
    "tiff": (_tiff, "scan.tif", "ct"),
    "matlab": (_matlab, "scan.mat", "ct"),
    "matlab 7.3": (_matlab, "scan73.mat", "ct"),
    "bart": (_bart, "scan.cfl", "mri"),
    "dicom-ct-pd": (lambda folder: test_dicom_ct_pd.scan(folder, views=21), ".", "ct"),
}
"""What writes a scan, which of its files is given, and what it holds."""


@functools.cache
def files_of(reader: str) -> Files:
    return kept(MADE[reader][0])


def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Cut short, with some bytes changed (more often at the start, where headers are), or with another number or word
    in its text."""
    how = draw(st.sampled_from(["cut", "bytes", "bytes", "text", "text"]))
    if how == "cut":
        return content[: int(len(content) * draw(st.floats(0, 1, exclude_max=True)))]
    if how == "text" and (words := list(re.finditer(rb"(?<=[>=\s,:])-?\d+\.?\d*(?=[<\s,;])", content[:20000]))):
        word = draw(st.sampled_from(words))
        return content[: word.start()] + draw(ODD).encode() + content[word.end() :]
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        near = draw(st.sampled_from([200, 2000, len(content)]))
        changed[int(draw(st.floats(0, 1, exclude_max=True)) * min(near, len(changed)))] ^= draw(st.integers(1, 255))
    return bytes(changed)


def options_of(reader: str, here: Path) -> MeasurementOptions:
    if reader == "tiff":
        return MeasurementOptions(
            image_size=32,
            rotation_center=43.0,
            angles=here / "angles.txt",
            flat_field=str(here / "white.tif"),
            dark_field=here / "dark.tif",
        )
    return MeasurementOptions(image_size=16 if MADE[reader][2] == "ct" else 0)


def check(measurement: Any) -> None:
    """What was read can be worked with, or is refused in a line."""
    if measurement is None:
        return
    assert isinstance(measurement, Measurement)
    y = torch.view_as_real(measurement.y) if measurement.y.is_complex() else measurement.y
    assert y.numel() and bool(torch.isfinite(y).all()) and np.isfinite(measurement.affine).all()
    if measurement.modality == "ct":  # coil maps of noise take their time, and have tests of their own
        operator = read(measured_operator, measurement)
        assert operator is None or operator.domain_shape


@pytest.mark.filterwarnings("ignore")  # of libraries, of values that are odd
@pytest.mark.parametrize("reader", list(MADE))
@settings(max_examples=settings.default.max_examples // 2)  # many write dozens of files each
@given(data=st.data())
def test_damaged_files(reader: str, data: st.DataObject) -> None:
    files = dict(files_of(reader))
    if reader.startswith("matlab"):
        files = {MADE[reader][1]: files[MADE[reader][1]]}
    own = [name for name in files if not name.endswith((".tif", ".dcm"))]
    name = data.draw(st.sampled_from([*own, *own, *sorted(files)[:3]]))
    files[name] = damaged(data.draw, files[name])
    with folder() as here:
        for one, content in files.items():
            (here / one).write_bytes(content)
        modality: Modality = "ct" if MADE[reader][2] == "ct" else "mri"
        check(read(read_measurement, here / MADE[reader][1], modality, options_of(reader, here)))


TAGS = (
    *("InstanceNumber", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("RescaleSlope", "RescaleIntercept", "SamplesPerPixel", "PhotometricInterpretation", "PatientPosition"),
)
PRIVATE = (*NAMES, SHAPE, LOGARITHM, SHIFT_ANGLE)
VALUES = st.one_of(
    st.none(),
    st.sampled_from(
        [0, 1, -1, 65535, 1e30, -1e30, float("nan"), float("inf"), 0.001, "", "x", [1.0, 2.0, 3.0], b"abc"]
    ),
)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=settings.default.max_examples // 2)
@given(data=st.data())
def test_tags_of_projections_in_dicom(data: st.DataObject) -> None:
    with folder() as here:
        for name, content in files_of("dicom-ct-pd").items():
            (here / name).write_bytes(content)
        tag, value = data.draw(st.sampled_from([*TAGS, *PRIVATE])), data.draw(VALUES)
        every = data.draw(st.booleans())
        for path in sorted(here.iterdir())[: None if every else 1]:
            file = pydicom.dcmread(path)
            try:
                if value is None:
                    del file[tag]
                else:
                    file[tag].value = value
                file.save_as(path)
            except (TypeError, ValueError, AttributeError, OSError, OverflowError, struct.error):
                path.write_bytes(files_of("dicom-ct-pd")[path.name])  # pydicom writes no such thing
        check(read(read_measurement, here, "ct", MeasurementOptions(image_size=16)))


WRONG = (
    *(
        np.zeros(0),
        np.array(2.0),
        np.array(-1.0),
        np.array(np.nan),
        np.array(1e300),
        np.ones((3, 4)),
        np.ones((2, 3, 4)),
    ),
    *(np.arange(721.0) * 1j, np.arange(721.0), np.ones((721, 20)) * np.inf),
)
ARRAYS = st.one_of(st.sampled_from(WRONG), st.sampled_from(["mm", "3D", "\0"]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("version", ["5", "7.3"])
@given(data=st.data())
def test_structs_of_matlab(version: str, data: st.DataObject) -> None:
    outer: dict[str, Any] = dict(test_projection_files.HELSINKI)
    outer |= {"sinogram": np.ones((721, 20)), "parameters": dict(outer["parameters"])}
    inner = outer["parameters"]
    inner["numDetectorsPost"] = 20
    where = data.draw(st.sampled_from([outer, inner, inner]))
    key = data.draw(st.sampled_from(sorted(where)))
    changed = data.draw(st.one_of(st.none(), ARRAYS, st.just({"a": 1.0})))
    if changed is None:
        del where[key]
    else:
        where[key] = changed
    with folder() as here:
        if version == "5":
            scipy.io.savemat(here / "y.mat", {"CtDataFull": outer})
        else:
            test_projection_files.matlab_73(here / "y.mat", "CtDataFull", outer)
        check(read(read_measurement, here / "y.mat", "ct", MeasurementOptions(image_size=16)))


HEADS = (
    *("version", "flags", "scan_counter", "number_of_samples", "available_channels", "active_channels", "discard_pre"),
    *("discard_post", "center_sample", "encoding_space_ref", "trajectory_dimensions", "sample_time_us", "position"),
    *("read_dir", "slice_dir"),
)
NUMBERS = st.sampled_from([0, 1, 2, 3, 7, 24, 255, 65535, 0.5, -1.0, float("nan"), float("inf"), 1e30])


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=settings.default.max_examples // 2)
@given(data=st.data())
def test_headers_of_readouts_in_mrd(data: st.DataObject) -> None:
    import h5py

    with folder() as here:
        path = here / "scan.h5"
        path.write_bytes(files_of("mrd")["scan.h5"])
        with h5py.File(path, "r+") as file:
            readouts = file["dataset/data"][:]
            name, number = data.draw(st.sampled_from([*HEADS, "idx"])), data.draw(NUMBERS)
            chosen = data.draw(st.sampled_from([slice(None), slice(1, 2), slice(3, None), slice(0, 1)]))
            part: Any = readouts["head"][name]
            if name == "idx":
                part = part[data.draw(st.sampled_from(["kspace_encode_step_1", "slice", "contrast", "average"]))]
            with np.errstate(all="ignore"):
                part[chosen] = np.array(number).astype(part.dtype)
            file["dataset/data"][...] = readouts
        given = MeasurementOptions(whiten=data.draw(st.booleans()))
        check(read(read_measurement, path, "mri", given))


@functools.cache
def short_twix(path: Path) -> bytes:
    """The header of the brain's file, and the first 8 of its lines."""
    import ctypes

    from twixtools.mdh_def import Channel_header, Scan_header

    whole = path.read_bytes()
    entries = np.frombuffer(whole[:10240], "<u8")
    offset = int(entries[2])
    start = offset + int.from_bytes(whole[offset : offset + 4], "little")
    line = ctypes.sizeof(Scan_header) + 16 * (ctypes.sizeof(Channel_header) + 8 * 128)
    lines = (len(whole) - start) // line
    content = bytearray(whole[: start + 8 * line] + whole[start + lines * line :])
    content[24:32] = (len(content) - offset).to_bytes(8, "little")
    return bytes(content)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=settings.default.max_examples // 3)  # a second each, for the protocol in the header
@given(data=st.data())
def test_damaged_twix_files(shared: Path, data: st.DataObject) -> None:
    pytest.importorskip("twixtools")
    content = short_twix(shared / TWIX)
    with folder() as here:
        (here / "scan.dat").write_bytes(content)
        given = MeasurementOptions(oversampling=1.0)
        right = read_measurement(here / "scan.dat", "mri", given)
        assert right.y.shape[-2:] == (8, 128)
        blocks = len(content) - 8 * (192 + 16 * 1056)
        changed = bytearray(content)
        if data.draw(st.booleans()):
            changed = changed[: int(len(changed) * data.draw(st.floats(0, 1, exclude_max=True)))]
        for _ in range(data.draw(st.integers(1, 4))):
            first, last = data.draw(
                st.sampled_from([(0, 200), (10240, 12000), (10240, blocks), (blocks, blocks + 300)])
            )
            place = first + int(data.draw(st.floats(0, 1, exclude_max=True)) * (last - first))
            if place < len(changed):
                changed[place] ^= data.draw(st.integers(1, 255))
        (here / "scan.dat").write_bytes(changed)
        check(read(read_measurement, here / "scan.dat", "mri", given))
