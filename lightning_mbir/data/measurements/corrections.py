"""Faults of a detector and a source that projections show: rings, zingers and drift, found and taken away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from lightning_mbir.data.measurements.detector import LONGEST_RUN, MOST_SHARE, filled
from lightning_mbir.errors import InputError

WIDTH = 9
"""Bins of the median filter: stripes of up to four bins are told from what is in the beam."""
LEAST_VIEWS = 16
"""Views from which an offset that they have in common is worked out."""
LOOKED_AT = 32
"""Views that tell how many bins stand out."""
OUTLYING = 8.0
"""Robust standard deviations from which a bin, or a reading, stands out."""
LEAST_ZINGER = 0.05
"""Line integral that a reading lies below those around it, to be a zinger: 5 % more light."""
AIR, DRIFT = 0.02, 0.1
"""Shares of the largest line integral: bins of air differ by less in a view, and have less than the second in most."""
CHANGES = 1e-4
"""Share of the largest line integral below which changes from view to view tell nothing of a bin."""
SIDES = 32
"""Share of the detector at either side that is looked at for rays that pass nothing."""
BRIGHTEST, FLAT = 0.9, 0.1
"""Share of the largest value that the sides of intensities have, and that values differ by at least."""
BELOW, ABOVE = 0.1, 0.5
"""Line integrals of air that are this far below 0 are brighter than the open beam. Where no ray has less than the
second share of the largest one, and more than the first, the open beam was weaker than was taken."""
DENSEST = 30.0
"""Line integral of which a detector with 20 bits counts no ray."""
STANDS_OUT = 0.02
"""Share of the largest line integral by which a bin that stands out is off at least."""


def corrected(path: Path, y: np.ndarray, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Take the faults that are ``wanted`` away from ``y``, in place.

    Args:
        path: the file, for messages.
        y: ``(rows, views, bins)`` line integrals.
        wanted: of ``zingers``, ``drift`` and ``rings``, which is the order that they are done in.

    Returns:
        what was done, a line each; without ``rings`` also how many bins stand out, where some do.

    Raises:
        InputError: too few views or bins; drift without air at the sides; too many bins that do not respond.
    """
    notes: list[str] = []
    if "zingers" in wanted:
        notes.append(remove_zingers(path, y))
    if "drift" in wanted:
        notes.append(remove_drift(path, y))
    if "rings" in wanted:
        notes.append(remove_rings(path, y))
    else:
        notes += _standing_out(y)
    return tuple(notes)


def doubted(y: np.ndarray) -> tuple[str, ...]:
    """What is said of values that hardly are line integrals, none of which is changed.

    Rays beside the object have the least of these, and of intensities the most, whatever is counted in.

    Args:
        y: ``(rows, views, bins)``.
    """
    some = y[:, :: max(1, y.shape[1] // LOOKED_AT)]
    low, high = float(some.min()), float(some.max())
    sides = (some[..., : (width := max(1, y.shape[-1] // SIDES))], some[..., -width:])
    air = min(float(np.median(side)) for side in sides)
    if low == high:
        return () if high else ("all line integrals are 0: nothing was in the beam",)
    if air > BRIGHTEST * high and high - low > FLAT * high > 0:
        return (
            f"rays at both sides have the most ({air:.4g} of {high:.4g}), as intensities have and not line integrals: "
            "give -log(I / I0)",
        )
    if high > DENSEST:
        return (
            f"line integrals up to {high:.4g}, which no detector counts: are they -log(I / I0), and in which unit?",
        )
    if air < -max(BELOW, BELOW * high):
        return (
            f"rays at the sides have line integrals of {air:.3g}, which is brighter than the open beam: is its "
            "intensity right (flat field, WhiteLevel)?",
        )
    if low > max(BELOW, ABOVE * high):
        return (
            f"no ray has a line integral below {low:.3g}, of up to {high:.3g}: is the intensity of the open beam right "
            "(flat field, WhiteLevel), or is the object beyond the detector everywhere?",
        )
    return ()


def remove_rings(path: Path, y: np.ndarray) -> str:
    """One offset a bin, the same in all views, which is what an error of its gain is after the logarithm.

    The readings of each bin are sorted, so that neighbouring bins are alike whatever moves across the views, and a
    median filter along the bins takes stripes out of them (Vo et al., "Superior techniques for eliminating ring
    artifacts in X-ray micro-tomography", Optics Express 26, 2018, algorithm 3). Of what it takes away, the mean over
    the middle half of the ranks is subtracted, instead of all of it, which would blur what is no stripe. Bins that do
    not respond, or flicker, are filled from their neighbours before. Stripes that are wider than four bins, or change
    from view to view, stay.

    Args:
        path: the file, for messages.
        y: ``(rows, views, bins)``, changed in place.

    Returns:
        what was done.

    Raises:
        InputError: fewer than ``LEAST_VIEWS`` views or two ``WIDTH`` of bins, more than a tenth of a row's bins, or
            ``LONGEST_RUN`` side by side, that do not respond.
    """
    _, views, bins = y.shape
    if views < LEAST_VIEWS or bins < 2 * WIDTH:
        raise InputError(
            f"--data.correct rings: {path} has {views} views of {bins} bins; that takes {LEAST_VIEWS} views and "
            f"{2 * WIDTH} bins or more: leave it out"
        )
    silent, largest, change, size = 0, 0.0, 0.0, 0.0
    for row in y:
        bad = unresponsive(row)
        if bad.any():
            _check_fillable(path, bad)
            row[:] = filled(row, np.broadcast_to(bad, row.shape))
            silent += int(bad.sum())
        offset = bin_offsets(row)
        size += float(np.square(row, dtype=np.float64).sum())
        row -= offset
        largest = max(largest, float(np.abs(offset).max()))
        change += views * float(np.square(offset, dtype=np.float64).sum())
    share = 100 * np.sqrt(change / max(size, 1e-300))
    filled_in = f", {silent} bins that do not respond filled from their neighbours" if silent else ""
    return (
        f"rings: an offset of up to {largest:.3g} taken from each bin, {share:.2g} % of the line integrals{filled_in}"
    )


def remove_zingers(path: Path, y: np.ndarray) -> str:
    """Readings that are far brighter than those around them, set to the median of 3 x 3 views and bins.

    Scattered rays that hit the detector itself do so in one reading or two side by side, whereas a gap in the object
    goes on in the views before and after. So all but two of the eight readings around have to be darker, by
    ``OUTLYING`` standard deviations of the noise, as it is in 15 x 15 readings, and by ``LEAST_ZINGER``.

    Args:
        path: the file, for messages.
        y: ``(rows, views, bins)``, changed in place.

    Returns:
        what was done.

    Raises:
        InputError: fewer than three views or bins.
    """
    if min(y.shape[1:]) < 3:
        raise InputError(f"--data.correct zingers: {path} has {y.shape[1]} views of {y.shape[2]} bins; 3 are needed")
    count = 0
    for row in y:
        median = ndimage.median_filter(row, 3, mode="nearest")
        below = median - row
        noise = 1.4826 * np.median(np.abs(below))
        around = 1.2533 * ndimage.uniform_filter(np.minimum(np.abs(below), OUTLYING * noise), 15, mode="nearest")
        third = ndimage.rank_filter(row, 2, 3, mode="nearest")  # the reading itself and one beside it are below
        found = third - row > np.maximum(OUTLYING * np.maximum(around, noise), LEAST_ZINGER)
        row[found] = median[found]
        count += int(found.sum())
    return f"zingers: {count} of {y.size} readings set to the median around them"


def remove_drift(path: Path, y: np.ndarray) -> str:
    """The beam's intensity as it was in each view, by what bins that see nothing but air measure.

    The median of all rows is taken at each side, and the straight line between them from the view; from a side
    alone, its median.

    Args:
        path: the file, for messages.
        y: ``(rows, views, bins)``, changed in place.

    Returns:
        what was done.

    Raises:
        InputError: no bin at either side that sees air in all views.
    """
    bins = y.shape[2]
    left, right = _air(y), _air(y[..., ::-1])
    sides = [slice(0, left)] * (left >= 3) + [slice(bins - right, bins)] * (right >= 3)
    if not sides:
        raise InputError(
            f"--data.correct drift: {path} has no bins at the sides that see air in all views; leave it out"
        )
    places = [(part.start + part.stop - 1) / 2 for part in sides]
    levels = np.stack([np.median(y[:, :, part], axis=(0, 2)) for part in sides])  # (sides, views)
    if len(sides) == 2:
        share = (np.arange(bins) - places[0]) / (places[1] - places[0])
        drift = levels[0, :, None] * (1 - share) + levels[1, :, None] * share
    else:
        drift = np.repeat(levels[0, :, None], bins, 1)
    y -= drift.astype(y.dtype)
    count = sum(part.stop - part.start for part in sides)
    return f"drift: up to {np.abs(levels).max():.3g} taken from a view, by {count} bins of air"


def _air(y: np.ndarray) -> int:
    """How many bins from the first on see nothing but air in all views, of ``(rows, views, bins)``."""
    most = float(y.max())
    level = np.median(y[..., :3], axis=(0, 2))
    if float(np.median(np.abs(level))) > DRIFT * most:
        return 0
    # Of neighbouring views and bins: single readings are noise.
    off = [np.abs(ndimage.median_filter(row - level[:, None], 3, mode="nearest")).max(0) for row in y]
    beyond = np.max(off, axis=0) > AIR * most
    return int(np.argmax(beyond)) if beyond.any() else len(beyond)


def bin_offsets(row: np.ndarray) -> np.ndarray:
    """``(bins,)`` that all views ``(views, bins)`` have in common, beyond a median filter along the bins."""
    ordered = np.sort(row, axis=0)
    cut = len(ordered) // 4
    middle = ordered[cut : len(ordered) - cut]
    offset: np.ndarray = (middle - ndimage.median_filter(middle, (1, WIDTH), mode="nearest")).mean(0)
    return offset


def unresponsive(row: np.ndarray) -> np.ndarray:
    """Bins ``(bins,)`` that change from view to view by less than an eighth of those at both sides, or over eight
    times as much; of ``(views, bins)``."""
    change = np.abs(np.diff(row, axis=0)).mean(0)
    beside = np.stack([np.pad(change, 5, mode="edge")[k : k + len(change)] for k in range(11)])
    left, right = np.median(beside[:5], axis=0), np.median(beside[6:], axis=0)
    least = CHANGES * float(np.abs(row).max())
    still = (change < np.minimum(left, right) / 8) & (np.minimum(left, right) > least)
    flickers = change > 8 * np.maximum(np.maximum(left, right), max(float(np.median(change)), least / 8))
    return np.asarray(still | flickers)


def _check_fillable(path: Path, bad: np.ndarray) -> None:
    _, count = ndimage.label(bad)
    longest = 0 if not count else int(np.bincount(ndimage.label(bad)[0].ravel())[1:].max())
    if bad.mean() > MOST_SHARE or longest > LONGEST_RUN:
        raise InputError(
            f"--data.correct rings: {path} has {int(bad.sum())} of {len(bad)} bins in a row that do not respond, "
            f"{longest} of them side by side; up to a tenth and {LONGEST_RUN} can be filled: leave those rows out"
        )


def _standing_out(y: np.ndarray) -> list[str]:
    """How many bins are dead, hot or off, by a look at some of the views; nothing where there are none.

    Nor on a detector of a few bins, on which what is in the beam looks like stripes.
    """
    _, views, bins = y.shape
    if views < LEAST_VIEWS or bins < 8 * WIDTH:
        return []
    count = rows = 0
    for row in y:
        some = row[:: -(-views // LOOKED_AT)]
        offset = bin_offsets(some)
        usual = OUTLYING * 1.4826 * float(np.median(np.abs(offset)))
        found = (np.abs(offset) > max(usual, STANDS_OUT * float(np.abs(some).max()))) | unresponsive(row)
        count += int(found.sum())
        rows += bool(found.any())
    if not count:
        return []
    bins_there = "1 detector bin stands" if count == 1 else f"{count} detector bins stand"
    return [f"{bins_there} out in all views, in {rows} of {len(y)} rows; --data.correct rings takes such"]
