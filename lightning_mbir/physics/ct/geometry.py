"""Checks that all CT geometries share."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_mbir.errors import InputError


def degrees(name: str, angles: Sequence[float] | Tensor, level: int) -> tuple[float, ...]:
    """The angles, checked; a warning where they look like radians, ``level`` calls up."""
    values = torch.as_tensor(angles, dtype=torch.float64).flatten().cpu()
    if values.numel() == 0:
        raise InputError(f"{name} got no angles; give at least one view, in degrees")
    if not bool(torch.isfinite(values).all()):
        raise InputError(f"{name} got angles that are NaN or infinite; give degrees")
    if len(values) > 8 and float(values.abs().max()) < 7:
        warnings.warn(
            f"{name}: all {len(values)} angles are below 7, which looks like radians; give degrees "
            f"(numpy.rad2deg converts)",
            stacklevel=level,
        )
    return tuple(values.tolist())


def check_positive(name: str, **lengths: float) -> None:
    """Raise where one of the numbers is not above zero."""
    for key, value in lengths.items():
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{name}: {key} is {value}; give a positive number")


def check_finite(name: str, **lengths: float) -> None:
    """Raise where one of the numbers is NaN or infinite."""
    for key, value in lengths.items():
        if not math.isfinite(value):
            raise InputError(f"{name}: {key} is {value}; give a number in mm")


def check_source(name: str, source_distance: float, detector_distance: float, radius: float) -> None:
    """Raise where the source is not outside of the image, whose corners are at ``radius``."""
    check_positive(name, source_distance=source_distance)
    if not (math.isfinite(detector_distance) and detector_distance >= 0):
        raise InputError(f"{name}: detector_distance is {detector_distance}; give mm from the axis, 0 or more")
    if source_distance <= radius:
        raise InputError(
            f"{name}: source_distance is {source_distance:g} mm, but the corners of the image are {radius:g} mm from "
            "the axis; the source must be outside of it (distances and pixel_size are in mm)"
        )


def warn_truncated(name: str, seen: float, radius: float, level: int) -> None:
    """Warn where the circle of radius ``seen`` that all views see is smaller than the one inscribed in the image."""
    if seen < radius * (1 - 1e-6):
        cut = 1 - (max(seen, 0) / radius) ** 2
        warnings.warn(
            f"{name}: the detector cuts off {100 * cut:.0f} % of the field of view: every view sees a circle of "
            f"{max(seen, 0):.4g} mm around the axis, the one inscribed in the image has {radius:.4g} mm; give more "
            "detectors, unless nothing lies outside",
            stacklevel=level,
        )


def warn_cut_slices(name: str, seen: float, half_height: float) -> None:
    """Warn where the detector is shorter along z than the volume at the axis."""
    if seen < half_height * (1 - 1e-6):
        warnings.warn(
            f"{name}: the detector cuts off {100 * (1 - max(seen, 0) / half_height):.0f} % of the height: at the axis "
            f"it sees {2 * max(seen, 0):.4g} mm of {2 * half_height:.4g}; give more rows, or fewer slices",
            stacklevel=3,
        )


def warn_edge_bins(y: Tensor) -> None:
    """Warn where sinograms ``(..., views, bins)`` do not fall to zero at the ends of the detector."""
    size = float(y.abs().max())
    ends = y[..., [0, -1]].abs().amax(-1)
    cut = float((ends > 0.05 * size).float().mean())
    if size > 0 and cut > 0.01:
        warnings.warn(
            f"{100 * cut:.0f} % of the views have more than a twentieth of the largest value in the first or last bin "
            "of the detector: the object reaches beyond it, and the reconstruction is wrong towards the edge; take a "
            "larger detector, or a larger image on which the outside has room",
            stacklevel=3,
        )
