"""The geometry of a scan whose source and detector stand anywhere in each view, and the checks of its table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics.ct.geometry import LONGEST, Array, VolumeGeometry

SQUARE = 1e-3
"""Cosine of the angle between rows and columns of a detector, below which they stand upright on each other."""


@dataclass(frozen=True)
class ModularGeometry(VolumeGeometry):
    """Rays from a source to a detector that stand anywhere in each view; arguments as those of ``ModularBeam``.

    ``radii`` has the radius of each view's detector in mm, and is empty where detectors are flat.
    """

    angles: tuple[float, ...] = field(init=False, repr=False)
    views: tuple[tuple[float, ...], ...]
    radii: tuple[float, ...]

    def __post_init__(self) -> None:
        source = self.table[0]
        # In a frozen dataclass the one way of setting what follows from the rest.
        object.__setattr__(self, "angles", tuple(np.rad2deg(np.arctan2(source[:, 0], -source[:, 1])).tolist()))

    @property
    def table(self) -> tuple[Array, Array, Array, Array]:
        """Source, middle of the detector, and the steps from a column and from a row to the next, each ``(views, 3)``
        mm."""
        source, middle, u, v = np.array(self.views).reshape(-1, 4, 3).transpose(1, 0, 2)
        return source, middle, u, v

    @property
    def columns(self) -> Array:
        passed = np.median([self.passed(view) for view in range(len(self.views))], axis=0)
        return np.linspace(passed[0], passed[1], self.detector_shape[1])

    @property
    def goes_around(self) -> bool:
        """Whether views are all around, those of several turns taken together."""
        ordered = np.sort(np.mod(self.angles, 360))
        gaps = np.diff(ordered, append=ordered[0] + 360)
        step = float(np.median(np.abs(np.diff(self.travelled)))) if len(gaps) > 1 else 360.0
        return len(gaps) > 2 and bool(gaps.max() <= 3 * max(min(step, 20.0), 360 / len(gaps)))

    @property
    def travelled(self) -> Array:
        """``(views,)`` degrees that the side which the detector faces has gone around since the first view, which may
        be many turns; a focal spot that flies turns the source back and forth."""
        source, middle, u, v = self.table
        facing = np.cross(u, v)
        facing *= np.sign(((source - middle) * facing).sum(1))[:, None]
        around = np.unwrap(np.degrees(np.arctan2(facing[:, 0], -facing[:, 1])), period=360)
        return np.asarray(around - around[0])

    def of_views(self, chosen: Sequence[int]) -> ModularGeometry:
        radii = tuple(self.radii[i] for i in chosen) if self.radii else ()
        return replace(self, views=tuple(self.views[i] for i in chosen), radii=radii)

    def rays(self, start: int, stop: int) -> tuple[Float[Tensor, "3 views"], Float[Tensor, "3 views rows columns"]]:
        rows, columns = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in self.detector_shape)
        return self._points(start, stop, rows, columns)

    def passed(self, view: int) -> tuple[float, float]:
        """How far from the axis, in mm and signed, the rays to both ends of a view's detector pass in the plane."""
        edges = torch.tensor([-0.5, 0.5], dtype=torch.float64) * self.detector_shape[1]
        points = self._points(view, view + 1, torch.zeros(1, dtype=torch.float64), edges)
        source, ends = points[0][:, 0].numpy(), points[1][:, 0, 0].numpy()
        direction = ends[:2] - source[:2, None]
        first, last = (direction[1] * source[0] - direction[0] * source[1]) / np.maximum(np.hypot(*direction), 1e-30)
        return (float(first), float(last)) if last >= first else (float(-first), float(-last))

    def _points(
        self, start: int, stop: int, rows: Float[Tensor, " rows"], columns: Float[Tensor, " columns"]
    ) -> tuple[Float[Tensor, "3 views"], Float[Tensor, "3 views rows columns"]]:
        """Source, and points of the detector so many rows and columns from its middle."""
        table = torch.tensor(self.views[start:stop], dtype=torch.float64).view(-1, 4, 3).permute(1, 2, 0)
        source, middle, u, v = table
        across = u[..., None] * columns
        if self.radii:
            # Columns go along an arc that touches the flat detector in its middle, on the side of the source.
            radius = torch.tensor(self.radii[start:stop], dtype=torch.float64)
            width = torch.linalg.vector_norm(u, dim=0)
            normal = torch.linalg.cross(u, v, dim=0)
            normal = normal * ((source - middle) * normal).sum(0).sign() / torch.linalg.vector_norm(normal, dim=0)
            arc = columns * (width / radius)[:, None]
            across = u[..., None] * (radius / width)[:, None] * arc.sin()
            across = across + normal[..., None] * radius[:, None] * (2 * (arc / 2).sin().square())
        return source, (middle[..., None] + across)[:, :, None] + v[..., None, None] * rows[:, None]

    def height(self) -> tuple[float, float]:
        """From where to where along z, in mm, rays of any view pass the axis: those of the middle column."""
        source, middle, _, v = self.table
        toward = middle - source
        t = -(source[:, :2] * toward[:, :2]).sum(1) / np.maximum((toward[:, :2] ** 2).sum(1), 1e-30)
        half = self.detector_shape[0] / 2 * np.abs(v[:, 2]) * t
        at = source[:, 2] + t * toward[:, 2]
        return float((at - half).min()), float((at + half).max())


def view_table(name: str, views: Sequence[Sequence[float]] | Tensor | Array) -> tuple[tuple[float, ...], ...]:
    """The table of a scan, checked: a row of 12 finite numbers a view, with detectors that are rectangular and do not
    lie in the plane of the source.

    Raises:
        InputError: what is wrong, in which view.
    """
    try:
        table = torch.as_tensor(views, dtype=torch.float64).cpu()
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: views are no table of numbers ({error}); give (views, 12) in mm") from error
    if table.ndim != 2 or table.shape[1] != 12 or len(table) == 0:
        raise InputError(
            f"{name}: views are {tuple(table.shape)}; give (views, 12): source, middle of the detector, step from a "
            "column and from a row to the next, x, y, z of each in mm"
        )

    def refuse(wrong: Tensor, what: str) -> None:
        if bool(wrong.any()):
            raise InputError(f"{name}: view {int(wrong.nonzero()[0, 0])} {what}")

    refuse(~torch.isfinite(table).all(1), "has NaN or infinite positions; give finite numbers in mm")
    refuse(table.abs().amax(1) > LONGEST, f"has positions beyond {LONGEST:g} mm")
    source, middle, u, v = table.view(-1, 4, 3).unbind(1)
    sizes = torch.linalg.vector_norm(u, dim=1), torch.linalg.vector_norm(v, dim=1)
    refuse((sizes[0] == 0) | (sizes[1] == 0), "has bins without a size; give the steps from one bin to the next, in mm")
    cosine = (u * v).sum(1).abs() / (sizes[0] * sizes[1])
    refuse(cosine > SQUARE, "has columns that are not at right angles to its rows; the bins must be rectangles")
    normal = torch.linalg.cross(u, v)
    away = ((source - middle) * normal).sum(1).abs() / torch.linalg.vector_norm(normal, dim=1)
    refuse(
        away <= 1e-6 * (source - middle).norm(dim=1), "has its source in the plane of the detector; move one of them"
    )
    return tuple(map(tuple, table.tolist()))


def check_sources(name: str, geometry: ModularGeometry) -> None:
    """Raise where a source is within the volume, or its detector on the other side of it than the volume."""
    source, middle, *_ = geometry.table
    z, y, x = geometry.volume_shape
    half = np.array([x * geometry.pixel_size, y * geometry.pixel_size, z * geometry.slice_thickness]) / 2
    inside = np.flatnonzero((np.abs(source) <= half).all(1))
    if len(inside):
        view, place = int(inside[0]), ", ".join(f"{value:g}" for value in source[inside[0]])
        raise InputError(
            f"{name}: in view {view} the source, at ({place}) mm, is inside of the volume; it must be outside of it "
            "(positions, pixel_size and slice_thickness are in mm, from the middle of the volume)"
        )
    nearest = np.clip(source, -half, half)
    behind = np.flatnonzero(((nearest - source) * (middle - source)).sum(1) <= 0)
    if len(behind):
        raise InputError(
            f"{name}: in view {int(behind[0])} the detector is on the other side of the source than the volume; give "
            "positions from the middle of the volume"
        )
