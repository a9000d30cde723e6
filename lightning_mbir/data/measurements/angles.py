"""The angles of a scan: their unit, how far each view is from the start, and views that are spread evenly over them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lightning_mbir.data.measurements.item import Item
from lightning_mbir.errors import InputError

UNITS = {
    **dict.fromkeys(("deg", "degree", "\N{DEGREE SIGN}"), 1.0),
    **dict.fromkeys(("rad", "radian"), 180 / math.pi),
}
"""Degrees of each unit that a dataset may say it is in."""

RATIO = (1 + math.sqrt(5)) / 2
GOLDEN = (math.pi / RATIO, 2 * math.pi / RATIO, 2 * math.pi / RATIO**2)
"""Steps of golden-angle scans, in radians."""
CLOSE = 2e-5
"""How near angles are to multiples of pi, in halves of a turn, or to golden angles to be taken for radians."""
MOST_RADIANS = 40.0
"""Beyond which a multiple of pi may be degrees by chance, as 113 pi is 355."""

SAME = 1e-3
"""Degrees below which two views look in the same direction."""


def read_angles(item: Item, views: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Angles ``(views,)`` in degrees, and notes.

    The ``units`` of the dataset are believed. Where it has none, angles that cover less than 7 with more than 8 views
    are taken for radians and refused.

    Raises:
        InputError: another number of angles than ``views``, no finite numbers, another unit, what looks like radians.
    """
    count = math.prod(item.shape)
    if count != views:
        raise InputError(
            f"{item.path}: {item.name} has {count} angles but {views} views; give one angle a view, in degrees"
        )
    angles = np.array(item.numbers())
    if views > 1 and not np.ptp(angles):
        raise InputError(f"{item.path}: all {views} angles of {item.name} are {angles[0]:g}; give that of each view")
    scale = item.unit(UNITS, "degrees or radians")
    if not item.attributes.get("units", "").strip() and looks_like_radians(angles):
        covered = float(np.ptp(angles))
        raise InputError(
            f"{item.path}: {item.name} covers {covered:.4g} with {views} views, which looks like radians; convert it "
            "to degrees (HDF5: or give the dataset an attribute units, 'radians' or 'degrees')"
        )
    return (angles, ()) if scale == 1.0 else (angles * scale, (f"{item.name} converted from radians",))


def looks_like_radians(angles: np.ndarray) -> bool:
    """Whether angles that are to be degrees cover half a turn, or several of them, in radians, or go by golden angles;
    or less than 7 with more than 8 views.

    Args:
        angles: ``(views,)``, in any order.
    """
    covered = float(np.ptp(angles)) if len(angles) else 0.0
    steps = np.abs(np.diff(angles))
    if len(angles) < 3 or covered == 0:
        return False
    if len(angles) > 8 and covered < 7:
        return True
    if any(np.abs(steps - golden).max() < CLOSE for golden in GOLDEN):
        return True
    step = float(np.median(np.diff(np.unique(angles))))
    turns = np.array([covered, covered + step]) / math.pi  # halves; with the last view at their end, or one step before
    return covered < MOST_RADIANS and bool((np.abs(turns - turns.round().clip(1)) < CLOSE).any())


def full_turn(angles: Sequence[float] | np.ndarray) -> bool:
    """Whether views in degrees are all around, no gap being wider than three of the median one."""
    ordered = np.sort(np.mod(np.asarray(angles, dtype=np.float64), 360))
    gaps = np.diff(ordered, append=ordered[0] + 360)
    return int((gaps > SAME).sum()) > 2 and bool(gaps.max() <= 3 * usual_gap(gaps))


def usual_gap(gaps: np.ndarray) -> float:
    """The median of the degrees between views, in order, that do not look in the same direction; 360 of none.

    Those of several turns that look alike differ by rounding, which is no gap.
    """
    apart = gaps[gaps > SAME]
    return float(np.median(apart)) if len(apart) else 360.0


def from_start(angles: np.ndarray) -> np.ndarray:
    """How far each view is from the start of the scan, in degrees, 0 or more.

    A scan that goes one way round, up or down and maybe past 360, starts at its first view. Views in another order
    start where the arc that they cover does, or at the first one where they are all around.

    Args:
        angles: ``(views,)`` degrees, in the order of the file.
    """
    turns = (np.diff(angles) + 180) % 360 - 180
    turned = np.concatenate(([0.0], np.cumsum(turns)))
    jitter = 0.1 * float(np.median(np.abs(turns))) if len(turns) else 0.0
    one_way = bool((turns >= -jitter).all() or (turns <= jitter).all())
    if one_way and abs(turned[-1]) <= 360 + SAME:
        return np.asarray(np.abs(turned))
    around = np.sort(angles % 360)
    gaps = np.diff(around, append=around[0] + 360)
    widest = int(gaps.argmax())
    start = around[(widest + 1) % len(around)] if gaps[widest] > 3 * usual_gap(gaps) else angles[0]
    return np.asarray((angles - start + SAME) % 360 - SAME)


def spread_evenly(places: np.ndarray, count: int, period: float) -> np.ndarray:
    """Which views are spread most evenly, sorted; by their angle, not by their order.

    Args:
        places: ``(views,)`` degrees from the start of the scan.
        count: how many, at most all.
        period: degrees after which the rays are the same: 180 for a parallel beam, else 360. Views of the same rays
            are taken more than once only where there are too few others.
    """
    directions = (places + SAME) % period - SAME
    order = np.argsort(directions, kind="stable")
    first = np.concatenate(([True], np.diff(directions[order]) > SAME))
    groups = np.split(order, np.flatnonzero(first)[1:])  # the same rays, each time that they were measured
    if count > len(groups):
        groups = [np.array([view]) for view in order]
    at = directions[[group[0] for group in groups]]
    steps = np.diff(at)
    steps = steps[steps > 0] if (steps > 0).any() else np.array([period])
    # A gap wider than three steps was not measured: the views then stand over an arc, and one step beyond its end.
    ends = (steps[0] + steps[-1]) / 2
    closed = period - (at[-1] - at[0]) <= 3 * max(ends, float(np.median(steps)))
    length = period if closed else at[-1] - at[0] + ends
    chosen: list[int] = []
    for k in range(count):
        least, most = (chosen[-1] + 1 if chosen else 0), len(groups) - count + k
        nearest = int(np.abs(at - at[0] - k * length / count).argmin())
        chosen.append(min(max(nearest, least), most))
    return np.sort([groups[i][k % len(groups[i])] for k, i in enumerate(chosen)])
