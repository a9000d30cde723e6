"""CT geometries, which tell where each ray runs, and the checks of their arguments.

Lengths are in mm, angles in degrees; see ``docs/geometry.md``.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from lightning_mbir.data.measurements.angles import full_turn, looks_like_radians
from lightning_mbir.errors import InputError, is_finite, whole_number
from lightning_mbir.free_memory import check_fits
from lightning_mbir.slabs import current, largest, total

Array = NDArray[Any]
Rays = tuple[Array, Array, Array]
"""``cos``, ``sin`` and ``s``, each ``(rays,)``: the lines ``x cos + y sin = s``, lengths in mm."""

LONGEST = 1e9
"""mm, and pixels along a side."""
LEAST_CUT = 0.005
"""Share of the field of view, or of the height, that is worth a warning where a detector cuts it off."""
ANGLE_BYTES = 256
"""That each view takes beside its rays, in tuples and lists."""


@dataclass(frozen=True)
class PlaneGeometry(ABC):
    """Rays in the plane of a slice. The arguments are those of the beams, checked, with no default left open.

    They are the key that cached matrices are found by: another name, type or number of them loses those.
    """

    turn: ClassVar[float] = 360.0
    """Degrees after which rays are the same again."""
    image_size: int
    angles: tuple[float, ...]
    n_detectors: int
    pixel_size: float
    detector_spacing: float
    center_offset: float

    @property
    def domain_shape(self) -> tuple[int, int]:
        """``(Y, X)``."""
        return self.image_size, self.image_size

    @property
    def range_shape(self) -> tuple[int, int]:
        """``(views, bins)``."""
        return len(self.angles), self.n_detectors

    @property
    def positions(self) -> Array:
        """``(n_detectors,)`` coordinates of the bins on the detector in mm, 0 where the axis projects to."""
        return (np.arange(self.n_detectors) - (self.n_detectors - 1) / 2) * self.detector_spacing - self.center_offset

    @abstractmethod
    def distance(self, position: float) -> float:
        """How far from the axis, in mm, the ray to this detector coordinate passes."""

    @abstractmethod
    def rays(self, angle: float) -> Rays:
        """The line of every bin in the view at ``angle`` degrees."""

    @property
    def views(self) -> list[Rays]:
        """The rays of each view."""
        return [self.rays(angle) for angle in self.angles]

    @property
    def columns(self) -> Array:
        """The same as ``positions``: a slice has no rows."""
        return self.positions

    @property
    def goes_around(self) -> bool:
        """Whether views are all around."""
        return full_turn(self.angles)

    def of_views(self, chosen: Sequence[int]) -> PlaneGeometry:
        """The geometry of the views of these numbers."""
        return replace(self, angles=tuple(self.angles[i] for i in chosen))

    @property
    def matrix_gigabytes(self) -> float:
        """Size of the matrix and its transpose, to within a third."""
        reach = self.image_size * self.pixel_size / math.sqrt(2)
        hits = sum(int((np.abs(s) <= reach).sum()) for _, _, s in self.views)
        # A ray that hits the image meets 1.3 N pixels on average, 8 bytes each, in two directions.
        return 2 * 8 * 1.3 * self.image_size * hits / 1e9


@dataclass(frozen=True)
class ParallelGeometry(PlaneGeometry):
    """Parallel rays; see ``ParallelBeam``."""

    turn: ClassVar[float] = 180.0

    def distance(self, position: float) -> float:
        return position

    def rays(self, angle: float) -> Rays:
        theta = np.deg2rad(angle)
        return np.full(self.n_detectors, np.cos(theta)), np.full(self.n_detectors, np.sin(theta)), self.positions


@dataclass(frozen=True)
class FanGeometry(PlaneGeometry):
    """The rays of a fan; see ``FanBeam``."""

    source_distance: float
    detector_distance: float
    detector: Literal["flat", "curved"]

    @property
    def fan_angles(self) -> Array:
        """``(n_detectors,)`` angles in radians between the rays and the one through the axis."""
        return self._fan_angle(self.positions)

    def distance(self, position: float) -> float:
        return float(self.source_distance * np.sin(self._fan_angle(np.asarray(position))))

    def rays(self, angle: float) -> Rays:
        fan = self.fan_angles
        # The ray at fan angle gamma is that of a parallel beam at theta - gamma.
        normal = np.deg2rad(angle) - fan
        return np.cos(normal), np.sin(normal), self.source_distance * np.sin(fan)

    def _fan_angle(self, position: Array) -> Array:
        ratio = position / (self.source_distance + self.detector_distance)
        return np.arctan(ratio) if self.detector == "flat" else ratio


@dataclass(frozen=True)
class VolumeGeometry(ABC):
    """Rays from a source through a volume to the bins of a detector, view by view.

    Points are ``(x, y, z)`` in mm from the middle of the volume: voxel ``(k, j, i)`` has its centre at
    ``((i - (X - 1) / 2) pixel_size, (j - (Y - 1) / 2) pixel_size, (k - (Z - 1) / 2) slice_thickness)``.
    """

    turn: ClassVar[float] = 360.0
    volume_shape: tuple[int, int, int]
    angles: tuple[float, ...]
    """Where the source is in each view, seen from the axis: at ``(sin, -cos)`` of so many degrees."""
    detector_shape: tuple[int, int]
    pixel_size: float
    slice_thickness: float

    @property
    def domain_shape(self) -> tuple[int, int, int]:
        """``(Z, Y, X)``."""
        return self.volume_shape

    @property
    def range_shape(self) -> tuple[int, int, int]:
        """``(views, rows, columns)``."""
        return len(self.angles), *self.detector_shape

    @property
    def goes_around(self) -> bool:
        """Whether views are all around."""
        return full_turn(self.angles)

    @property
    @abstractmethod
    def columns(self) -> Array:
        """``(columns,)`` coordinates along the detector in mm, 0 where the axis projects to."""

    @abstractmethod
    def of_views(self, chosen: Sequence[int]) -> VolumeGeometry:
        """The geometry of the views of these numbers."""

    @abstractmethod
    def rays(self, start: int, stop: int) -> tuple[Float[Tensor, "3 views"], Float[Tensor, "3 views rows columns"]]:
        """``x, y, z`` of the source and of the bins in some views, float64 on the host."""


@dataclass(frozen=True)
class ConeGeometry(VolumeGeometry):
    """The rays of a cone onto a flat panel; arguments as those of ``ConeBeam``, with no default left open."""

    source_distance: float
    detector_distance: float
    detector_spacing: tuple[float, float]
    offsets: tuple[float, float]

    @property
    def positions(self) -> tuple[Array, Array]:
        """Coordinates of rows and of columns on the detector in mm, 0 where the axis and the source's plane project
        to."""
        rows, columns = (
            (np.arange(size) - (size - 1) / 2) * spacing - offset
            for size, spacing, offset in zip(self.detector_shape, self.detector_spacing, self.offsets, strict=True)
        )
        return rows, columns

    @property
    def columns(self) -> Array:
        return self.positions[1]

    def of_views(self, chosen: Sequence[int]) -> ConeGeometry:
        return replace(self, angles=tuple(self.angles[i] for i in chosen))

    def rays(self, start: int, stop: int) -> tuple[Float[Tensor, "3 views"], Float[Tensor, "3 views rows columns"]]:
        theta = torch.deg2rad(torch.tensor(self.angles[start:stop], dtype=torch.float64))
        cos, sin, zero = theta.cos(), theta.sin(), torch.zeros_like(theta)
        v, u = (torch.from_numpy(part) for part in self.positions)
        x = (cos[:, None] * u - self.detector_distance * sin[:, None])[:, None]
        y = (sin[:, None] * u + self.detector_distance * cos[:, None])[:, None]
        shape = (len(theta), *self.detector_shape)
        bins = torch.stack((x.expand(shape), y.expand(shape), v[:, None].expand(shape)))
        return self.source_distance * torch.stack((sin, -cos, zero)), bins


def seen_half(angles: Sequence[float], width: float, offset: float) -> float:
    """How far from where the axis projects to, in mm on the detector, lines are measured in every direction: as far as
    the shorter side of a detector reaches or, all around, the longer one; 0 where the axis is not on it."""
    if abs(offset) >= width / 2:
        return 0.0
    return width / 2 + (abs(offset) if full_turn(angles) else -abs(offset))


def degrees(name: str, angles: Sequence[float] | Tensor, level: int) -> tuple[float, ...]:
    """The angles, checked; a warning where they look like radians, ``level`` calls up."""
    count = _count(name, angles)
    check_fits(f"{name}: {count:,.0f} angles", ANGLE_BYTES * count, "give fewer views")
    try:
        values = torch.as_tensor(angles, dtype=torch.float64).flatten().cpu()
    except (TypeError, ValueError):
        raise InputError(f"{name}: angles are {angles!r:.80}; give a list of degrees") from None
    if values.numel() == 0:
        raise InputError(f"{name} got no angles; give at least one view, in degrees")
    if not bool(torch.isfinite(values).all()):
        raise InputError(f"{name} got angles that are NaN or infinite; give degrees")
    if float(values.abs().max()) > 1e6:
        raise InputError(f"{name} got an angle of {float(values.abs().max()):.3g} degrees; give them within some turns")
    if looks_like_radians(values.numpy()):
        warnings.warn(
            f"{name}: {len(values)} angles cover {float(values.max() - values.min()):.4g}, which looks like radians; "
            "give degrees (numpy.rad2deg converts)",
            stacklevel=level,
        )
    return tuple(values.tolist())


def _count(name: str, angles: Sequence[float] | Tensor) -> float:
    try:
        return angles.numel() if isinstance(angles, Tensor) and angles.ndim else len(angles)
    except TypeError:  # one number, which may be meant for that of the views
        raise InputError(f"{name}: angles are {angles!r:.80}; give a list of degrees, one a view") from None
    except OverflowError:  # a range beyond what a list may have
        return math.inf


def check_positive(name: str, **lengths: float) -> None:
    """Raise where one of the numbers is not above zero, or beyond what can be computed with."""
    for key, value in lengths.items():
        if not is_finite(value) or not 0 < value <= LONGEST:
            raise InputError(f"{name}: {key} is {value}; give a positive number, up to {LONGEST:g}")


def whole_sizes(name: str, **sizes: int) -> tuple[int, ...]:
    """Sizes as whole numbers of Python, of whatever kind they were, so that equal geometries are equal."""
    return tuple(whole_number(f"{name}: {key}", size) for key, size in sizes.items())


def check_finite(name: str, **lengths: float) -> None:
    """Raise where one of the numbers is NaN, infinite, or beyond what can be computed with."""
    for key, value in lengths.items():
        if not abs(value) <= LONGEST:
            raise InputError(f"{name}: {key} is {value}; give a number in mm, up to {LONGEST:g}")


def check_source(name: str, source_distance: float, detector_distance: float, radius: float) -> None:
    """Raise where the source is not outside of the image, whose corners are at ``radius``."""
    check_positive(name, source_distance=source_distance)
    if not 0 <= detector_distance <= LONGEST:
        raise InputError(f"{name}: detector_distance is {detector_distance}; give mm from the axis, 0 or more")
    if source_distance <= radius:
        raise InputError(
            f"{name}: source_distance is {source_distance:g} mm, but the corners of the image are {radius:g} mm from "
            "the axis; the source must be outside of it (distances and pixel_size are in mm)"
        )


def warn_truncated(name: str, seen: float, size: int, pixel_size: float, level: int) -> None:
    """Warn where the circle of radius ``seen`` that all views see is smaller than the one inscribed in an image of
    ``size`` pixels, by half a percent of its area or more: an axis that is a fraction of a bin off the middle cuts
    nothing off. In pixels, since there are scans of which no length is known."""
    seen, radius = max(seen, 0) / pixel_size, size / 2
    cut = 1 - (seen / radius) ** 2
    if cut >= LEAST_CUT:
        warnings.warn(
            f"{name}: the detector cuts off {100 * cut:.0f} % of the field of view: every view sees as far as "
            f"{seen:.4g} pixels from the axis, the circle inscribed in the image goes to {radius:.4g}; nothing of the "
            "object may lie outside, or more detectors are needed",
            stacklevel=level,
        )


def warn_cut_slices(name: str, seen: float, half_height: float) -> None:
    """Warn where the detector is shorter along z than the volume at the axis."""
    if (cut := 1 - max(seen, 0) / half_height) >= LEAST_CUT:
        warnings.warn(
            f"{name}: the detector cuts off {100 * cut:.0f} % of the height: at the axis "
            f"it sees {2 * max(seen, 0):.4g} mm of {2 * half_height:.4g}; give more rows, or fewer slices",
            stacklevel=3,
        )


def outer_bins(around: bool, positions: Array) -> tuple[int, ...]:
    """The ends of a detector that no object may reach beyond: both or, where it was moved aside by more than a tenth
    and views are all around, that of its longer side. ``positions`` as the columns of a geometry."""
    below, above = -float(positions[0]), float(positions[-1])
    if min(below, above) >= 0.9 * max(below, above) or not around:
        return 0, -1
    return (0,) if below > above else (-1,)


def warn_edge_bins(y: Float[Tensor, "*batch views bins"], ends: tuple[int, ...] = (0, -1)) -> None:
    """Warn where sinograms ``(..., views, bins)`` do not fall to zero at these ends of the detector."""
    size = float(largest(y.abs().max()))
    beyond = y[..., list(ends)].abs().amax(-1) > 0.05 * size
    count, views = total(torch.tensor([float(beyond.sum()), beyond.numel()], device=y.device)).tolist()
    cut = count / views
    if size > 0 and cut > 0.01 and current().first:
        warnings.warn(
            f"{100 * cut:.0f} % of the views have more than a twentieth of the largest value in the first or last bin "
            "of the detector: the object reaches beyond it, and the reconstruction is wrong towards the edge; take a "
            "larger detector, or a larger image on which the outside has room",
            stacklevel=3,
        )
