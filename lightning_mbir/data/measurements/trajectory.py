"""Scans whose views stand anywhere: how far each is along the way of the source, and views that are missing there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_mbir.errors import InputError

TURN = 360.0
JUMP = 5.0
"""Times the usual step from a view to the next, beyond which views are missing between them."""


def travelled(views: NDArray[Any]) -> NDArray[Any] | None:
    """Degrees ``(views,)`` that the detector has gone around the z axis since the first view, 0 or more.

    The side that it faces is what counts: a focal spot that flies turns the source back and forth.

    Args:
        views: ``(views, 12)``, as ``ModularBeam`` takes them.

    Returns:
        none where it turns back, or goes around less than once: there the angle tells what a view sees.
    """
    source, middle, u, v = views.reshape(-1, 4, 3).transpose(1, 0, 2)
    facing = np.cross(u, v)
    facing *= np.sign(((source - middle) * facing).sum(1))[:, None]
    around = np.unwrap(np.degrees(np.arctan2(facing[:, 0], -facing[:, 1])), period=TURN)
    steps = np.diff(around)
    jitter = 0.1 * float(np.median(np.abs(steps))) if len(steps) else 0.0
    one_way = bool((steps >= -jitter).all() or (steps <= jitter).all())
    return np.asarray(np.abs(around - around[0])) if one_way and abs(around[-1] - around[0]) > TURN else None


def check_gaps(path: Path, views: NDArray[Any]) -> None:
    """Raise where views of a helix are missing: where a step in angle or along z is far beyond the usual one.

    Other scans may leave out what they like.

    Args:
        path: the file, for the message.
        views: ``(views, 12)``, as ``ModularBeam`` takes them.
    """
    around = travelled(views)
    if around is None or np.ptp(views[:, 5]) < 1e-6 * np.abs(views[:, :2]).max():
        return
    for what, steps, unit in (("turns by", np.diff(around), "degrees"), ("moves", np.diff(views[:, 5]), "mm along z")):
        usual = float(np.median(np.abs(steps)))
        jump = int(np.abs(steps).argmax())
        if abs(steps[jump]) > JUMP * usual + 1e-9:
            raise InputError(
                f"{path}: from view {jump} to {jump + 1} the detector {what} {abs(steps[jump]):.4g} {unit}, usually "
                f"{usual:.4g}: views of the helix are missing or not in order; give all, or the longer part alone"
            )
