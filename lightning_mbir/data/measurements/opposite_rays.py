"""Where on the detector the rotation axis is projected, from lines that are measured from both sides."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from scipy import ndimage

from lightning_mbir.data.measurements.angles import full_turn, usual_gap
from lightning_mbir.errors import InputError

COARSE = 256
"""Bins at most of the first look, over all of the detector."""
VIEWS = 180
"""Views at most that are compared with those opposite of them."""
LEAST_SHARE = 0.05
"""Share of the bins at either side of the axis, and of the rays that have to be measured twice."""


class Fan(NamedTuple):
    """How far the source of a fan is from the detector, in bins, and the shape of that."""

    distance: float
    detector: Literal["flat", "curved"] = "flat"


def center_of_opposite_rays(sinograms: np.ndarray, angles: np.ndarray, fan: Fan | None = None) -> float:
    """The bin, as a fraction, that the rotation axis falls on: where rays agree with those that come the other way.

    The line at fan angle ``gamma`` in the view at ``theta`` is met again at ``-gamma`` in the view at
    ``theta + 180 - 2 gamma`` (Parker 1982); of parallel rays ``gamma`` is 0. What is least is the mean square of the
    differences of rays that are measured twice, over the variance of these rays, so that the overlap may be small: a
    detector that was moved aside sees some of the lines once only. The least of it is that of a parabola through steps
    of half a bin, between which nothing is interpolated along the bins, as that would prefer what smooths the noise.

    Args:
        sinograms: ``(Z, views, bins)`` line integrals; a few rows are enough.
        angles: ``(views,)`` in degrees: a full turn, or of a fan half of one and the angle of the fan, in any order.
        fan: its distance; none for parallel rays.

    Raises:
        InputError: too few rays that are measured from both sides.
    """
    order = np.argsort(angles % 360, kind="stable")
    around, bins = (angles % 360)[order], sinograms.shape[-1]
    y = sinograms[:, order].astype(np.float32)
    together = -(-bins // COARSE)
    kept = bins // together
    rough = y[..., : kept * together].reshape(*y.shape[:2], kept, together).mean(-1)
    smaller = None if fan is None else fan._replace(distance=fan.distance / together)
    places = np.arange(round(LEAST_SHARE * kept), kept - round(LEAST_SHARE * kept)).astype(float)
    misfits = [_misfit(rough, around, place, smaller) for place in places]
    best = int(np.argmin(misfits))
    if not np.isfinite(misfits[best]):
        raise InputError(
            "the rotation centre can be searched where lines are measured from both sides (360 degrees, or of a fan "
            "180 and its angle): give it with --data.rotation_center (in bins, counted from 0)"
        )
    start = round(2 * ((places[best] + 0.5) * together - 0.5)) / 2
    fine = start + 0.5 * np.arange(-2 * together - 4, 2 * together + 5)
    curve = np.array([_misfit(y, around, place, fan) for place in fine])
    least = int(np.clip(np.argmin(curve), 2, len(fine) - 3))
    square, slope, _ = np.polyfit(np.arange(-2, 3), curve[least - 2 : least + 3], 2)
    moved = np.clip(-slope / (2 * square), -1, 1) if square > 0 else 0.0
    return float(fine[least] + 0.5 * moved)


def _misfit(y: np.ndarray, angles: np.ndarray, center: float, fan: Fan | None) -> float:
    """How far rays are from those of the same lines; infinite where too few are measured twice.

    Args:
        y: ``(Z, views, bins)``, the views sorted by ``angles``, from 0 to 360 degrees.
        angles: likewise.
        center: the bin of the axis.
        fan: as above.
    """
    views, bins = y.shape[1:]
    position = np.arange(bins) - center
    gamma = np.zeros(bins)
    if fan is not None:
        gamma[:] = np.arctan(position / fan.distance) if fan.detector == "flat" else position / fan.distance
    some = np.arange(0, views, -(-views // VIEWS))
    opposite = (angles[some, None] + 180 - 2 * np.rad2deg(gamma)) % 360
    wrapped = np.concatenate((angles[-1:] - 360, angles, angles[:1] + 360))
    view = np.interp(opposite, wrapped, np.arange(-1, views + 1))
    mirrored = np.broadcast_to(2 * center - np.arange(bins), opposite.shape)
    seen = (mirrored >= 0) & (mirrored <= bins - 1)
    if not full_turn(angles):
        before = np.clip(np.searchsorted(wrapped, opposite, side="right") - 1, 0, views)
        gaps = np.diff(wrapped)
        seen &= gaps[before] <= 3 * usual_gap(gaps)
    if seen.mean() < LEAST_SHARE:
        return float("inf")
    total = spread = 0.0
    for row in y:
        padded = np.concatenate((row[-1:], row, row[:1]))
        other = ndimage.map_coordinates(padded, (view[seen] + 1, mirrored[seen]), order=1, mode="nearest")
        own = row[some][seen]
        total += float(np.square(own - other).mean())
        spread += float(own.var() + other.var())
    return total / spread if spread > 0 else float("inf")
