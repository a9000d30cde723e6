"""Lengths and times in the units that their datasets say they are in."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lightning_mbir.data.measurements.measurement import Measurement, read_measurement
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.errors import InputError

ANGLES = np.arange(0, 180, 20.0)
PARALLEL = {"measurement": np.ones((1, 9, 8)), "angles": ANGLES, "image_size": 8}
FAN = {**PARALLEL, "beam": "fan"}


def read(path: Path, kind: Any, units: dict[str, Any], **content: Any) -> Measurement:
    with h5py.File(path / "own.h5", "w") as file:
        for key, value in content.items():
            file[key] = value
        for key, unit in units.items():
            file[key].attrs["units"] = unit
    return read_measurement(path / "own.h5", kind, MeasurementOptions(rotation_center=4.0) if kind == "ct" else None)


@pytest.mark.parametrize(("unit", "scale"), [("cm", 10.0), ("um", 1e-3), ("metres", 1e3), (b"Microns", 1e-3)])
def test_lengths_are_scaled_to_mm(unit: Any, scale: float, tmp_path: Path) -> None:
    """A pixel of 0.27 cm that is taken for 0.27 mm makes water ten times as dense."""
    lengths = {"pixel_size": 0.27, "source_distance": 54.1, "detector_distance": 40.8}
    found = read(tmp_path, "ct", dict.fromkeys(lengths, unit), **FAN, **lengths)
    assert {key: found.geometry[key] for key in lengths} == pytest.approx(
        {key: scale * value for key, value in lengths.items()}
    )
    assert "source_distance in" in str(found.notes)
    assert found.affine[0, 0] == pytest.approx(0.27 * scale)


def test_of_a_fan_beside_its_sinogram_too(tmp_path: Path) -> None:
    lengths = {"source_origin_mm": 0.41, "source_detector_mm": 0.55, "detector_pitch_mm": 2e-4}
    sinogram = {"sinogram": np.ones((9, 8)), "angles": ANGLES}
    geometry = read(tmp_path, "ct", dict.fromkeys(lengths, "m"), **sinogram, **lengths).geometry
    found = [geometry[key] for key in ("source_distance", "detector_distance", "detector_spacing")]
    assert found == pytest.approx([410.0, 140.0, 0.2])


def test_each_dataset_has_a_unit_of_its_own(tmp_path: Path) -> None:
    views = np.zeros((9, 12))
    for row, angle in zip(views, np.deg2rad(ANGLES), strict=True):
        cos, sin = np.cos(angle), np.sin(angle)
        row[:] = 60 * sin, -60 * cos, 0, -40 * sin, 40 * cos, 0, cos, sin, 0, 0, 0, 1
    given = {"measurement": np.ones((9, 2, 8)), "beam": "modular", "volume_shape": (2, 8, 8), "pixel_size": 1000.0}
    with h5py.File(tmp_path / "own.h5", "w") as file:
        for key, value in {**given, "views": views / 10}.items():
            file[key] = value
        file["views"].attrs["units"], file["pixel_size"].attrs["units"] = "cm", "um"
    geometry = read_measurement(tmp_path / "own.h5", "ct").geometry
    np.testing.assert_allclose(geometry["views"], views)
    assert geometry["pixel_size"] == pytest.approx(1.0)


def test_a_unit_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the units of pixel_size are 'inch'; give mm, um, cm or m"):
        read(tmp_path, "ct", {"pixel_size": "inch"}, **PARALLEL, pixel_size=0.1)


def test_times_and_fields_have_units_too(tmp_path: Path) -> None:
    field = {"b0": np.full((16, 16), 30.0), "times": np.linspace(-1.0, 1.0, 16)}
    kspace = {"measurement": np.ones((16, 16), complex), "mask": np.ones(16), **field}
    times = read(tmp_path, "mri", {"times": "ms", "b0": "Hz"}, **kspace).geometry["times"]
    np.testing.assert_allclose(times, field["times"] * 1e-3, rtol=1e-6)
    with pytest.raises(InputError, match=r"the units of b0 are 'rad/s'; give Hz"):
        read(tmp_path, "mri", {"times": "ms", "b0": "rad/s"}, **kspace)
