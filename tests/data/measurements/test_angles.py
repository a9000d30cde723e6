"""Units of angles, and which views a range or a number of them are."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lightning_mbir.data.measurements.angles import from_start, full_turn, looks_like_radians, spread_evenly
from lightning_mbir.data.measurements.measurement import read_measurement
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.data.measurements.rotation_center import find_rotation_center
from lightning_mbir.errors import InputError
from tests.data.measurements.test_measurement import ANGLES, data_exchange, discs

GOLDEN = 111.24611797


def with_units(path: Path, name: str, unit: Any) -> Path:
    with h5py.File(path, "a") as file:
        file[name].attrs["units"] = unit
    return path


def test_radians_are_told_before_anything_else_fails_on_them(tmp_path: Path) -> None:
    """With nothing else given, so that the rotation centre would be searched."""
    path = data_exchange(tmp_path, theta=np.deg2rad(ANGLES))
    with pytest.raises(InputError, match=r"exchange/theta covers 3\.107 with 90 views, which looks like radians"):
        read_measurement(path, "ct")
    np.savez(
        tmp_path / "own.npz", measurement=np.ones((1, 90, 8)), angles=np.deg2rad(ANGLES), image_size=8, pixel_size=1
    )
    with pytest.raises(InputError, match=r"angles covers .* radians"):
        read_measurement(tmp_path / "own.npz", "ct")


@pytest.mark.parametrize(
    "radians",
    [
        np.arange(8) * np.pi / 8,  # few views
        np.linspace(0, np.pi, 5),
        np.linspace(0, 2 * np.pi, 6, endpoint=False)[[3, 0, 5, 1, 4, 2]],
        np.arange(720) * np.pi / 180,  # two turns
        -np.linspace(0, 6 * np.pi, 400, dtype=np.float32),
        np.arange(100) * np.pi * (np.sqrt(5) - 1) / 2,  # golden angles
        np.arange(40) * np.pi * (3 - np.sqrt(5)),
    ],
)
def test_radians_of_few_views_and_of_several_turns_are_told(radians: np.ndarray, tmp_path: Path) -> None:
    ones = np.ones((1, len(radians), 8))
    np.savez(tmp_path / "own.npz", measurement=ones, angles=radians, image_size=8, pixel_size=1)
    with pytest.raises(InputError, match=rf"angles covers .* with {len(radians)} views, which looks like radians"):
        read_measurement(tmp_path / "own.npz", "ct")


@pytest.mark.parametrize(
    "degrees",
    [
        np.arange(8) * 0.5,  # a narrow scan of few views
        np.array([0.0, 6.0]),
        np.zeros(4),
        np.arange(0, 15.0),
        np.arange(356.0),  # 113 pi are 355.0000
        np.arange(0, 22, 0.5),
        np.arange(144) * GOLDEN,
        np.arange(5.0) * 90,
    ],
)
def test_degrees_are_not_taken_for_radians(degrees: np.ndarray) -> None:
    assert not looks_like_radians(degrees)


@pytest.mark.parametrize("unit", ["radians", "rad", b"Radian", np.array(["rad"], dtype=object)])
def test_units_of_the_dataset_are_believed(unit: Any, tmp_path: Path) -> None:
    degrees = read_measurement(data_exchange(tmp_path), "ct")
    path = with_units(data_exchange(tmp_path, theta=np.deg2rad(ANGLES)), "exchange/theta", unit)
    found = read_measurement(path, "ct")
    np.testing.assert_allclose(found.geometry["angles"], ANGLES, atol=1e-9)
    assert found.geometry["center_offset"] == pytest.approx(degrees.geometry["center_offset"])
    assert found.notes == ("exchange/theta converted from radians", *degrees.notes)


def test_a_narrow_scan_says_that_it_is_in_degrees(tmp_path: Path) -> None:
    path = data_exchange(tmp_path, theta=np.deg2rad(ANGLES))
    found = read_measurement(with_units(path, "exchange/theta", "deg"), "ct", MeasurementOptions(rotation_center=40.0))
    np.testing.assert_allclose(found.geometry["angles"], np.deg2rad(ANGLES))
    with pytest.raises(InputError, match="units of exchange/theta are 'turns'; give degrees or radians"):
        read_measurement(with_units(path, "exchange/theta", "turns"), "ct")


def test_the_dendrite_turns_by_radians(tmp_path: Path, shared: Path) -> None:
    """A measured synchrotron row, 360 views over 180 degrees, from 292 rad on."""
    raw = np.load(shared / "data/raw/dendrite_parallel_sinogram.npz")
    own = {"measurement": raw["sinogram"][None], "image_size": 1260, "pixel_size": 1.0}
    with h5py.File(tmp_path / "dendrite.h5", "w") as file:
        for key, value in {**own, "angles": raw["angles_rad"]}.items():
            file[key] = value
    with pytest.raises(InputError, match=r"covers 3\.133 with 360 views, which looks like radians"):
        read_measurement(tmp_path / "dendrite.h5", "ct")
    found = read_measurement(with_units(tmp_path / "dendrite.h5", "angles", "rad"), "ct")
    angles = np.array(found.geometry["angles"])
    np.testing.assert_allclose(np.diff(angles), 0.5, atol=2e-3)
    np.testing.assert_allclose(
        angles[spread_evenly(from_start(angles), 36, 180)] - angles[0], np.arange(36) * 5, atol=0.1
    )


@pytest.mark.parametrize(
    ("angles", "inside"),
    [
        (np.arange(180.0) + 300, np.arange(90)),
        ((np.arange(180.0) + 300) % 360, np.arange(90)),  # past 360
        ((119 - np.arange(180.0)) % 360, np.arange(90)),  # down, past 0
        ((np.arange(180.0) + 90) % 360 - 180, np.arange(90)),  # past 180
        (np.arange(361.0), np.arange(90)),  # the last view is the first again
        (np.arange(181.0) + np.random.default_rng(0).normal(0, 0.02, 181), np.arange(90)),
        (np.arange(180.0)[::-1], np.arange(90)),
    ],
)
def test_a_range_is_that_of_the_scan(angles: np.ndarray, inside: np.ndarray) -> None:
    np.testing.assert_array_equal(np.flatnonzero(from_start(angles) < 89.6), inside)


def test_views_in_any_order_cover_the_range_from_the_start_of_their_arc() -> None:
    order = np.random.default_rng(1).permutation(180)
    angles = (np.arange(180.0) + 300) % 360
    np.testing.assert_allclose(from_start(angles[order]), order, atol=1e-9)
    golden = (np.arange(144) * GOLDEN) % 180  # in storage order as bit-reversed and golden scans are
    places = from_start(golden)
    np.testing.assert_allclose(places, golden - golden.min(), atol=1e-6)
    assert (places < 90).sum() == pytest.approx(72, abs=1)


def test_views_are_spread_evenly_in_angle() -> None:
    order = np.random.default_rng(1).permutation(180)
    chosen = spread_evenly(from_start(order.astype(float)), 12, 180)
    np.testing.assert_array_equal(np.sort(order[chosen]), np.arange(0, 180, 15))
    assert (np.diff(chosen) > 0).all()  # in the order of the file
    golden = (np.arange(144) * GOLDEN) % 180
    steps = np.diff(np.sort(golden[spread_evenly(from_start(golden), 12, 180)]))
    np.testing.assert_allclose(steps, 15, atol=1.3)  # neighbours are up to 1.6 degrees apart
    dense = np.concatenate((np.arange(0, 60, 0.5), np.arange(60.0, 180, 3)))  # unevenly stored
    np.testing.assert_array_equal(dense[spread_evenly(from_start(dense), 12, 180)], np.arange(0, 180, 15))


def test_views_of_the_same_rays_are_taken_once() -> None:
    for last in (179, 180):  # with and without the mirror image of the first view
        chosen = spread_evenly(np.arange(last + 1.0), 36, 180)
        np.testing.assert_array_equal(chosen, np.arange(0, 180, 5))
    full = spread_evenly(np.arange(360.0), 12, 180)
    np.testing.assert_array_equal(np.sort(full % 180), np.arange(0, 180, 15))
    assert (full >= 180).sum() == 6  # from both sides, for detectors that are off the axis
    np.testing.assert_array_equal(spread_evenly(np.arange(360.0), 12, 360), np.arange(0, 360, 30))
    np.testing.assert_array_equal(spread_evenly(np.arange(181.0), 181, 180), np.arange(181))
    np.testing.assert_array_equal(spread_evenly(np.arange(90.0), 9, 180), np.arange(0, 90, 10))
    for count in (1, 7, 100, 200, 359, 360):
        assert len(set(spread_evenly(np.arange(360.0), count, 180))) == count


def test_the_rotation_center_is_found_in_any_order_and_in_a_full_turn() -> None:
    order = np.random.default_rng(2).permutation(len(ANGLES))
    for angles in (ANGLES[order], (ANGLES + 300) % 360, np.arange(0.0, 360, 2), np.arange(0.0, 181, 2)):
        assert find_rotation_center(discs(angles, 80, 43.27), angles) == pytest.approx(43.27, abs=0.1)


@pytest.mark.parametrize(
    ("angles", "around"),
    [
        (np.arange(0, 360, 2.0), True),
        (np.concatenate([np.arange(0, 360, 2.0) + 360 * k + 1e-5 * k for k in range(3)]), True),
        (np.concatenate([np.arange(0, 180, 2.0), np.arange(0, 180, 2.0) + 360.00001]), False),
        (np.full(5, 30.0) + 1e-5 * np.arange(5), False),
        (np.array([0.0, 120.0, 240.0]), True),
        (np.arange(0, 230, 2.0), False),
    ],
)
def test_a_full_turn_is_told_whatever_turns_differ_by_in_rounding(angles: np.ndarray, around: bool) -> None:
    assert full_turn(angles) is around
