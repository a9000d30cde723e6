"""Bins that cannot be used: filled from their neighbours with the count, or too many."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lightning_mbir.data.measurements.detector import check_few, filled, stuck
from lightning_mbir.data.measurements.measurement import read_measurement
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.errors import InputError
from tests.data.measurements.test_measurement import ANGLES, data_exchange, discs

OPTIONS = MeasurementOptions(rotation_center=43.27)
TRUE = discs(ANGLES, 80, 43.27).numpy()


def spoil(path: Path, **changes: tuple[Any, Any]) -> Path:
    """Set ``(where, what)`` of the projections' datasets."""
    with h5py.File(path, "a") as file:
        for key, (where, value) in changes.items():
            values = np.array(file[f"exchange/{key}"], dtype=float)
            values[where] = value
            del file[f"exchange/{key}"]
            file[f"exchange/{key}"] = values
    return path


def between(bins: slice) -> np.ndarray:
    """The straight line over these bins."""
    out = TRUE.copy()
    left, right = bins.start - 1, bins.stop
    share = (np.arange(bins.start, bins.stop) - left) / (right - left)
    out[..., bins] = (1 - share) * TRUE[..., [left]] + share * TRUE[..., [right]]
    return out


@pytest.mark.parametrize(
    ("changes", "bins", "note"),
    [
        (
            {"data_white": (np.s_[..., 40], 0), "data_dark": (np.s_[..., 40], 0)},
            slice(40, 41),
            "1 bad detector bins in 1",
        ),
        ({"data_white": (np.s_[..., 30:33], 20)}, slice(30, 33), "3 bad detector bins in 1 rows filled"),
        ({"data_white": (np.s_[0, 0, 50], np.nan)}, slice(50, 51), "1 bad detector bins"),
        ({"data": (np.s_[..., 40:42], 500)}, slice(40, 42), "2 bad detector bins"),  # stuck
        ({"data": (np.s_[..., 40], 0)}, slice(40, 41), "1 bad detector bins"),  # dead, with fields of before
        ({"data": (np.s_[:, 0, 60], np.nan)}, slice(60, 61), "1 bad detector bins"),
    ],
)
def test_bad_bins_are_filled_and_counted(changes: dict[str, Any], bins: slice, note: str, tmp_path: Path) -> None:
    found = read_measurement(spoil(data_exchange(tmp_path), **changes), "ct", OPTIONS)
    np.testing.assert_allclose(found.y, between(bins), atol=3e-6, rtol=1e-5)
    assert any(line.startswith(note) for line in found.notes), found.notes


def test_bad_bins_at_an_end_are_as_the_nearest(tmp_path: Path) -> None:
    found = read_measurement(spoil(data_exchange(tmp_path), data_white=(np.s_[..., :2], 0)), "ct", OPTIONS)
    np.testing.assert_allclose(found.y[..., :2], TRUE[..., [2, 2]], atol=3e-6)


def test_counts_of_single_views_are_filled_and_counted(tmp_path: Path) -> None:
    path = spoil(data_exchange(tmp_path), data=(np.s_[7, 0, 40:43], [np.nan, np.inf, np.nan]))
    found = read_measurement(path, "ct", OPTIONS)
    expected = TRUE.copy()
    expected[0, 7] = between(slice(40, 43))[0, 7]
    np.testing.assert_allclose(found.y, expected, atol=3e-6, rtol=1e-5)
    assert "3 NaN or infinite counts filled from their neighbours" in found.notes


def test_rays_without_counts_beside_bad_bins_are_the_weakest(tmp_path: Path) -> None:
    path = spoil(data_exchange(tmp_path), data=(np.s_[7, 0, 20], 0), data_white=(np.s_[..., 40], 0))
    found = read_measurement(path, "ct", OPTIONS)
    assert float(found.y[0, 7, 20]) == pytest.approx(float(found.y.max())) == pytest.approx(TRUE.max(), rel=0.05)
    assert "0.0139 % of the rays had no counts and were set to the weakest measured one" in found.notes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data_white": (np.s_[..., 10:80:8], 0)}, "9 of 80 bins of a row are no brighter"),
        ({"data": (np.s_[3, 0, :9], np.nan)}, "9 of 80 bins of a row have NaN or infinite counts in a view"),
        ({"data": (np.s_[5], np.nan)}, "80 of 80 bins of a row have NaN"),  # a lost frame
        ({"data": (np.s_[..., 36:48], 700)}, "12 of 80 bins of a row .* show the same in every view"),
    ],
)
def test_too_many_bad_bins_are_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        read_measurement(spoil(data_exchange(tmp_path), **changes), "ct", OPTIONS)


def test_a_long_run_is_refused_on_a_wide_detector(tmp_path: Path) -> None:
    bad = np.zeros((2, 500), dtype=bool)
    bad[1, 100:110] = bad[0, ::50] = True
    check_few(tmp_path, bad, "are dim")
    bad[1, 110] = True
    with pytest.raises(InputError, match="11 bins side by side are dim; up to 10"):
        check_few(tmp_path, bad, "are dim")


def test_good_bins_are_left_alone() -> None:
    """Air, which may stay the same in noiseless data, and an object that looks the same from all sides."""
    transmission = np.exp(-discs(ANGLES, 80, 39.5).numpy())[0]
    low, high = transmission.min(0)[None], transmission.max(0)[None]
    assert not stuck(low, high, np.zeros((1, 80), dtype=bool)).any()
    assert not stuck(np.full((1, 80), 0.3), np.full((1, 80), 0.3), np.zeros((1, 80), dtype=bool)).any()


def test_filling_lines_leaves_the_others_as_they_are() -> None:
    values = np.random.default_rng(0).random((4, 3, 20)).astype(np.float32)
    bad = np.random.default_rng(1).random((4, 3, 20)) < 0.2
    bad[0, 0] = False
    out = filled(values, bad)
    for line, gaps, found in zip(values.reshape(-1, 20), bad.reshape(-1, 20), out.reshape(-1, 20), strict=True):
        expected = line.copy()
        expected[gaps] = np.interp(np.flatnonzero(gaps), np.flatnonzero(~gaps), line[~gaps])
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(out[0, 0], values[0, 0])
