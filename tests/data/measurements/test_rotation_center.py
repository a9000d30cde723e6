"""Where the rotation axis falls on the detector, by lines that are measured from both sides."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from lightning_mbir.data.measurements.measurement import read_measurement
from lightning_mbir.data.measurements.opposite_rays import Fan
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.data.measurements.rotation_center import find_rotation_center, seen_bins
from lightning_mbir.data.phantoms import chest_phantom
from lightning_mbir.errors import InputError
from lightning_mbir.physics import FanBeam
from lightning_mbir.reconstruction.measured import measured_operator
from lightning_mbir.solvers import fbp
from tests.data.measurements.test_measurement import data_exchange, discs

TURN = np.arange(0, 360, 4.0)


@pytest.mark.parametrize("center", [39.5, 36.0, 43.27, 60.13, 12.4])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_in_a_full_turn_of_parallel_rays(center: float, noise: float) -> None:
    """Of a detector that was moved aside too, which sees some of the lines once."""
    y = discs(TURN, 80, center)
    y += noise * torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(0))
    assert find_rotation_center(y, TURN) == pytest.approx(center, abs=0.05)


@pytest.mark.parametrize("detector", ["flat", "curved"])
@pytest.mark.parametrize(
    ("bins", "offset", "covered"), [(200, 0.0, 360), (200, 7.3, 360), (130, 61.7, 360), (200, -9.1, 230)]
)
def test_of_a_fan(detector: Any, bins: int, offset: float, covered: int) -> None:
    """In a full turn, moved aside, and in a short scan."""
    angles, spacing = np.arange(0, covered, 2.0), 3.1
    operator = FanBeam(
        96,
        angles.tolist(),
        source_distance=500.0,
        detector_distance=300.0,
        n_detectors=bins,
        pixel_size=3.7 if offset < 50 else 3.0,
        detector_spacing=spacing,
        center_offset=offset,
        detector=detector,
    )
    y = operator(chest_phantom((1, 96, 96), seed=3))
    y += 0.03 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    found = find_rotation_center(y, angles, Fan(800 / spacing, detector))
    assert found == pytest.approx((bins - 1) / 2 + offset / spacing, abs=0.05)


def test_lines_that_are_measured_once_tell_nothing() -> None:
    with pytest.raises(InputError, match="where lines are measured from both sides"):
        find_rotation_center(discs(TURN[:20], 80, 40.0), TURN[:20], Fan(300.0))


def test_the_real_ones(shared: Path) -> None:
    """The tooth over half a turn, told as a full one by its mirror image; the dendrite is near the middle."""
    tooth = read_measurement(
        shared / "data/raw/tooth_parallel_projections.h5", "ct", MeasurementOptions(image_size=640)
    )
    half = find_rotation_center(tooth.y[:1], np.arange(181.0))
    y = tooth.y[:1, :180]
    mirrored = torch.zeros_like(y)  # about bin 296: view theta + 180 at bin s is view theta at 592 - s
    mirrored[..., : 2 * 296 + 1 - 0] = y[..., : 2 * 296 + 1].flip(-1)
    full = find_rotation_center(torch.cat((y, mirrored), 1), np.arange(360.0))
    assert 295 < half < 297 and full == pytest.approx(296, abs=0.05)
    dendrite = read_measurement(shared / "data/raw/dendrite_parallel_sinogram.npz", "ct")
    note = next(note for note in dendrite.notes if note.startswith("rotation centre"))
    assert 600 < float(note.split()[4].rstrip(",")) < 660 and note.endswith("found")


def test_what_a_detector_sees() -> None:
    assert seen_bins(100, 49.5, True) == (100.0, ())
    assert seen_bins(100, 79.5, False) == (100.0, ())
    seen, notes = seen_bins(100, 79.5, True)
    assert seen == 160.0 and "over 160 bins" in notes[0]


def test_slices_reach_as_far_as_the_longer_side(tmp_path: Path) -> None:
    """A detector of 80 bins with its axis on bin 62: 125 pixels, and two discs in their place with their values."""
    angles = np.arange(0, 360, 2.0)
    path = data_exchange(tmp_path, data=None, theta=angles)
    with h5py.File(path, "a") as file:
        white, dark = file["exchange/data_white"][:].mean(0), file["exchange/data_dark"][:].mean(0)
        transmission = np.exp(-discs(angles, 80, 62.0).numpy()).transpose(1, 0, 2)
        file["exchange/data"] = dark + (white - dark) * transmission
    found = read_measurement(path, "ct", MeasurementOptions(detector_spacing=0.5))
    assert found.geometry["image_size"] == 125 and found.geometry["pixel_size"] == pytest.approx(0.5, rel=0.01)
    assert any(note.startswith("the detector is off the axis") for note in found.notes)
    image = fbp(found.y, measured_operator(found))[0]  # type: ignore[arg-type]
    axis = (torch.arange(125) - 62) * found.geometry["pixel_size"]
    for x, y, radius, value in ((9.0, 4.0, 10.0, 0.02), (-14.0, -6.0, 4.0, 0.05)):
        inside = (axis[None] - x / 2) ** 2 + (axis[:, None] - y / 2) ** 2 < (radius / 2) ** 2
        assert float(image[inside].mean()) == pytest.approx(2 * value, rel=0.03)
    half = read_measurement(path, "ct", MeasurementOptions(image_size=50, detector_spacing=0.5))
    assert half.geometry["pixel_size"] == pytest.approx(62.5 / 50, rel=0.01)


def test_our_own_layout_has_its_axis_searched_for(tmp_path: Path) -> None:
    fan = {"source_distance": 300.0, "detector_distance": 200.0, "beam": "fan"}
    operator = FanBeam(
        64, TURN.tolist(), source_distance=300.0, detector_distance=200.0, n_detectors=120, center_offset=5.0
    )
    y = operator(chest_phantom((1, 64, 64), seed=3)).numpy()
    own = {"measurement": y, "angles": TURN, "image_size": 64, "pixel_size": 1.0}
    np.savez(tmp_path / "fan.npz", **own, **fan)  # type: ignore[arg-type]
    read = lambda **options: read_measurement(tmp_path / "fan.npz", "ct", MeasurementOptions(**options))  # noqa: E731
    assert "center_offset" not in read().geometry
    assert read(rotation_center="search").geometry["center_offset"] == pytest.approx(5.0, abs=0.1)
    assert read(rotation_center=62.5).geometry["center_offset"] == pytest.approx(3 * 500 / 300)
    with pytest.raises(InputError, match=r"--data.rotation_center 120: give a bin from 0 to 119"):
        read(rotation_center=120)
    np.savez(tmp_path / "fan.npz", **own, **fan, center_offset=5.0)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="tells its geometry by itself"):
        read(rotation_center="search")
