"""Rings, zingers and drift: what is wrong goes, what is right stays."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from lightning_mbir.data.measurements.corrections import bin_offsets, corrected, doubted, unresponsive
from lightning_mbir.data.measurements.measurement import read_measurement
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.data.phantoms import chest_phantom
from lightning_mbir.errors import InputError
from lightning_mbir.physics import ParallelBeam

FILE = Path("scan.h5")
PHOTONS = 1e5


@cache
def clean() -> np.ndarray:
    """A chest in 180 views of a parallel beam: ``(1, views, bins)``, without noise."""
    operator = ParallelBeam(256, [float(k) for k in range(180)], pixel_size=1.4)
    return np.asarray(operator(chest_phantom((1, 256, 256), seed=3)).numpy())


def noisy() -> np.ndarray:
    counts = np.random.default_rng(0).poisson(PHOTONS * np.exp(-clean().astype(np.float64)))
    return -np.log(np.maximum(counts, 1) / PHOTONS).astype(np.float32)


def stripes() -> np.ndarray:
    """An offset of up to 4 % of the largest line integral in 12 of the bins."""
    rng, bins = np.random.default_rng(1), clean().shape[-1]
    out = np.zeros(bins, np.float32)
    where = rng.choice(np.arange(5, bins - 5), 12, replace=False)
    out[where] = rng.choice([-1, 1], 12) * rng.uniform(0.01, 0.04, 12) * clean().max()
    return out


def relative(change: np.ndarray) -> float:
    return float(np.linalg.norm(change) / np.linalg.norm(clean()))


def test_rings_go_and_a_clean_sinogram_stays() -> None:
    spoilt, kept = noisy() + stripes(), noisy()
    (note,) = corrected(FILE, spoilt, ("rings",))
    assert note.startswith("rings: an offset of up to ")
    # What all views have in common beyond the truth, at the bins that were spoilt.
    bad = stripes() != 0
    left = np.abs((spoilt - noisy()).mean(1)[0][bad])
    assert np.sqrt((left**2).mean()) < 0.3 * np.sqrt((stripes()[bad] ** 2).mean())
    corrected(FILE, kept, ("rings",))
    assert 0 < relative(kept - noisy()) < 3e-3
    without_noise = clean().copy()
    corrected(FILE, without_noise, ("rings",))
    assert relative(without_noise - clean()) < 3e-3


def test_an_offset_of_all_views_is_found_and_one_of_some_is_none() -> None:
    row = np.tile(np.linspace(0, 1, 40, dtype=np.float32)[:, None], (1, 60))
    row[:, 30] += 0.5
    row[-8:, 45] += 0.5  # a fifth of the views: something in the beam
    offset = bin_offsets(row)
    assert offset[30] == pytest.approx(0.5, abs=1e-6) and float(np.abs(np.delete(offset, 30)).max()) < 1e-6


def test_bins_that_do_not_respond_are_told_and_filled() -> None:
    spoilt = noisy()
    spoilt[0, :, 60] = 0.7
    spoilt[0, :, 90] += np.random.default_rng(2).normal(0, 3, 180).astype(np.float32)
    np.testing.assert_array_equal(np.flatnonzero(unresponsive(spoilt[0])), [60, 90])
    (note,) = corrected(FILE, spoilt.copy(), ())
    assert note == "2 detector bins stand out in all views, in 1 of 1 rows; --data.correct rings takes such"
    (note,) = corrected(FILE, spoilt, ("rings",))
    assert note.endswith("2 bins that do not respond filled from their neighbours")
    assert np.abs(spoilt - noisy())[0][:, [60, 90]].mean() < 0.1 < 0.7


def test_nothing_stands_out_of_what_is_right() -> None:
    for fine in (clean(), noisy()):
        before = fine.copy()
        assert corrected(FILE, fine, ()) == ()
        np.testing.assert_array_equal(fine, before)


def test_zingers_go_and_nothing_else() -> None:
    spoilt, rng = noisy(), np.random.default_rng(3)
    views, bins = rng.integers(5, 175, 40), rng.integers(40, 140, 40)
    spoilt[0, views, bins] -= 1.0
    (note, *_) = corrected(FILE, spoilt, ("zingers",))
    count = len(set(zip(views.tolist(), bins.tolist(), strict=True)))
    found = int(note.split()[1])
    assert count <= found <= count + 0.0005 * spoilt.size
    assert np.abs((spoilt - noisy())[0, views, bins]).mean() < 0.15
    kept = noisy()
    corrected(FILE, kept, ("zingers",))
    assert (kept != noisy()).mean() < 5e-4


def test_drift_is_measured_by_the_air() -> None:
    views = np.linspace(0, 1, 180, dtype=np.float32)[None, :, None]
    bins = np.linspace(-1, 1, clean().shape[-1], dtype=np.float32)
    drift = 0.1 * views + 0.05 * np.sin(6 * views) * bins  # the beam weakens, and moves
    spoilt = noisy() + drift
    (note, *_) = corrected(FILE, spoilt, ("drift",))
    assert note.startswith("drift: up to 0.1")
    assert relative(spoilt - noisy()) < 0.05 * relative(drift)
    kept = noisy()
    corrected(FILE, kept, ("drift",))
    assert relative(kept - noisy()) < 1e-3


@pytest.mark.parametrize(
    ("y", "fault", "words"),
    [
        (np.ones((1, 8, 60), np.float32), "rings", "scan.h5 has 8 views of 60 bins; that takes 16 views"),
        (np.ones((1, 2, 60), np.float32), "zingers", "scan.h5 has 2 views"),
        (np.ones((1, 40, 60), np.float32), "drift", "no bins at the sides that see air in all views"),
    ],
)
def test_what_cannot_be_corrected_is_refused(y: np.ndarray, fault: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        corrected(FILE, y, (fault,))


def test_many_bins_that_do_not_respond_are_refused() -> None:
    spoilt = noisy()
    spoilt[0, :, 60:160:2] = 0.7
    with pytest.raises(InputError, match=r"62 of 363 bins in a row that do not respond"):
        corrected(FILE, spoilt, ("rings",))


def test_the_rings_of_the_dendrite_are_weaker(shared: Path) -> None:
    """Of a real detector: what is common to the views beside their median, before and after, and how little changes."""
    file = shared / "data/raw/dendrite_parallel_sinogram.npz"
    options = {"rotation_center": 640.0}
    raw = read_measurement(file, "ct", MeasurementOptions(**options))  # type: ignore[arg-type]
    found = read_measurement(file, "ct", MeasurementOptions(**options, correct=("rings",)))  # type: ignore[arg-type]
    before, after = (float(np.square(bin_offsets(y.y[0].numpy())).sum()) for y in (raw, found))
    assert after < 0.06 * before
    assert 1e-3 < float((found.y - raw.y).norm() / raw.y.norm()) < 5e-3
    assert any(note.startswith("rings: an offset of up to 0.018") for note in found.notes)
    with pytest.raises(InputError, match="no bins at the sides that see air"):
        read_measurement(file, "ct", MeasurementOptions(**options, correct=("drift",)))  # type: ignore[arg-type]


def test_corrections_of_a_cone_are_row_by_row(tmp_path: Path) -> None:
    rows = np.concatenate((noisy(), noisy() + stripes()))  # (rows, views, bins)
    cone = {
        "measurement": rows.transpose(1, 0, 2),
        "angles": 2.0 * np.arange(180),
        "volume_shape": [2, 32, 32],
        "pixel_size": 1.0,
        "source_distance": 500.0,
        "detector_distance": 300.0,
    }
    np.savez(tmp_path / "cone.npz", **cone, beam="cone")  # type: ignore[arg-type]
    found = read_measurement(tmp_path / "cone.npz", "ct", MeasurementOptions(correct=("rings",)))
    corrected(FILE, rows, ("rings",))
    np.testing.assert_array_equal(found.y, rows.transpose(1, 0, 2))


def test_projections_alone_are_corrected(tmp_path: Path) -> None:
    np.savez(tmp_path / "raw.npz", kspace=np.ones((6, 8), np.complex64))
    for options in (
        MeasurementOptions(correct=("rings",)),
        MeasurementOptions(scatter=(0.1, 0.0)),
        MeasurementOptions(beam_hardening="consistency"),
    ):
        with pytest.raises(InputError, match=r"is for projections, .*raw.npz holds k-space"):
            read_measurement(tmp_path / "raw.npz", "mri", options)


def test_bins_are_corrected_before_they_are_averaged(tmp_path: Path) -> None:
    np.savez(tmp_path / "y.npz", sinogram=noisy() + stripes(), angles=np.arange(180.0))
    options = {"rotation_center": 181.0, "correct": ("rings",)}
    whole = read_measurement(tmp_path / "y.npz", "ct", MeasurementOptions(**options))  # type: ignore[arg-type]
    found = read_measurement(tmp_path / "y.npz", "ct", MeasurementOptions(image_size=90, **options))  # type: ignore[arg-type]
    expected = whole.y[..., :360].unflatten(-1, (90, 4)).mean(-1)
    np.testing.assert_allclose(found.y, expected, rtol=1e-5, atol=1e-6)
    # Bin 181 of 363 in the middle; of the 360 that are left the middle is at 179.5.
    assert found.geometry["center_offset"] == 1.5 and found.geometry["detector_spacing"] == 4.0


@pytest.mark.parametrize("open_beam", [1.0, 100.0, 60000.0])
@pytest.mark.parametrize("beam", ["parallel", "cone"])
def test_intensities_are_told_from_line_integrals(open_beam: float, beam: str, tmp_path: Path) -> None:
    """Transmission, percent and counts; a cone beam has its rows behind its views."""
    lines = clean()[:, ::20, ::4]
    angles = {"angles": np.arange(0, 180, 20.0), "pixel_size": 5.6}
    given = {**angles, "image_size": 64}
    if beam == "cone":
        lines = np.repeat(lines.transpose(1, 0, 2), 2, 1)
        given = {**angles, "beam": beam, "volume_shape": (2, 64, 64), "source_distance": 600, "detector_distance": 400}
    for values, told in ((lines, False), (open_beam * np.exp(-lines), True)):
        np.savez(tmp_path / "own.npz", measurement=values, **given)
        notes = read_measurement(tmp_path / "own.npz", "ct").notes
        assert any("as intensities have and not line integrals" in note for note in notes) == told


def test_line_integrals_that_no_detector_counts_are_told() -> None:
    assert "is its intensity right" in doubted(clean() - 0.5 * clean().max())[0]
    assert "no ray has a line integral below" in doubted(clean() + 3 * clean().max())[0]
    assert "nothing was in the beam" in doubted(0 * clean())[0]
    assert doubted(20 * clean()) and not doubted(clean()) and not doubted(np.ones((1, 8, 40), np.float32))
