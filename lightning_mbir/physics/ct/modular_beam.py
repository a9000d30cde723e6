"""CT with any source and detector position in each view: helical scans, C-arms, gantries that wobble."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.free_memory import check_fits
from lightning_mbir.kinds import check_kinds
from lightning_mbir.physics.ct.geometry import Array, check_positive, warn_truncated, whole_sizes
from lightning_mbir.physics.ct.modular_geometry import ModularGeometry, check_sources, view_table
from lightning_mbir.physics.ct.projectors.joseph_3d import Joseph3D
from lightning_mbir.physics.ct.volume_beam import VolumeBeam
from lightning_mbir.physics.operator import Parts


class ModularBeam(VolumeBeam):
    """Line integrals of attenuation from a source to a detector that stand anywhere in each view.

    Each view is a row of 12 numbers, as ASTRA's ``cone_vec`` has them: source, middle of the detector, the step ``u``
    from a column to the next and the step ``v`` from a row to the next, each as ``(x, y, z)`` in mm from the middle of
    the volume. Column ``i`` of row ``j`` is at ``middle + (i - (columns - 1) / 2) u + (j - (rows - 1) / 2) v``.
    Voxels lie as in ``ConeBeam``: x along columns, y along rows downwards, z along slices. ``FanBeam`` and
    ``ConeBeam`` are special cases. Rays are whole lines, sampled by Joseph's interpolation (IEEE TMI 1(3), 1982) in the
    planes of the axis that they follow most closely, on any device.

    Args:
        volume_shape: ``(Z, Y, X)``.
        views: ``(views, 12)`` in mm.
        detector_shape: ``(rows, columns)``.
        pixel_size: side of a pixel of a slice in mm.
        slice_thickness: distance of slices in mm; by default the pixel size.
        detector: ``flat``, or ``curved``: columns along an arc that touches the flat detector in its middle, the steps
            of which have the length of ``u``; rows are straight.
        curvature_radius: of that arc in mm, one or one a view; by default it is about the source. One that is given
            stays where it is when the focal spot flies.
        backend: ``matrix_free`` (exact adjoint, any device), which ``auto`` takes.

    Raises:
        InputError: a table of another shape, positions that are not finite, bins that are no rectangles, a source
            inside of the volume or in the plane of its detector, sizes that are not positive.
    """

    BACKENDS: ClassVar = {"matrix_free": Joseph3D}
    _geometry: ModularGeometry

    def __init__(
        self,
        volume_shape: tuple[int, int, int],
        views: Sequence[Sequence[float]] | Tensor | Array,
        *,
        detector_shape: tuple[int, int],
        pixel_size: float = 1.0,
        slice_thickness: float | None = None,
        detector: Literal["flat", "curved"] = "flat",
        curvature_radius: float | Sequence[float] | None = None,
        backend: Literal["auto", "matrix_free"] = "auto",
    ) -> None:
        check_kinds(ModularBeam.__init__, locals())
        name = "ModularBeam"
        if len(volume_shape) != 3 or min(volume_shape) < 1:
            raise InputError(f"{name}: volume_shape is {tuple(volume_shape)}; give (Z, Y, X), each at least 1")
        if len(detector_shape) != 2 or min(detector_shape) < 1:
            raise InputError(f"{name}: detector_shape is {tuple(detector_shape)}; give (rows, columns), at least 1")
        thickness = pixel_size if slice_thickness is None else slice_thickness
        check_positive(name, pixel_size=pixel_size, slice_thickness=thickness)
        if detector not in ("flat", "curved"):
            raise InputError(f"{name}: detector is {detector!r}; give flat or curved")
        if detector == "flat" and curvature_radius is not None:
            raise InputError(
                f"{name}: curvature_radius is of a curved detector; give detector='curved', or leave it out"
            )
        z, y, x = whole_sizes(name, **dict(zip("ZYX", volume_shape, strict=True)))
        rows, columns = whole_sizes(name, rows=detector_shape[0], columns=detector_shape[1])
        check_fits(f"{name}: a volume of {z:,.0f} x {y:,.0f} x {x:,.0f}", 16 * z * y * x, "give fewer voxels")
        table = view_table(name, views)
        size = 12 * len(table) * rows * columns
        check_fits(
            f"{name}: {len(table)} views of {rows:,.0f} x {columns:,.0f} bins", size, "give fewer views or detectors"
        )
        geometry = ModularGeometry(
            volume_shape=(z, y, x),
            detector_shape=(rows, columns),
            pixel_size=float(pixel_size),
            slice_thickness=float(thickness),
            views=table,
            radii=() if detector == "flat" else _radii(name, table, curvature_radius, columns),
        )
        check_sources(name, geometry)
        _warn_cut(name, geometry)
        super().__init__(geometry, backend, default="matrix_free")

    @property
    def parts(self) -> Parts:
        """The views, by the angle of their source; of a scan of several turns by how far it has gone around."""
        travelled = self._geometry.travelled
        steps = np.diff(travelled)
        one_way = bool((steps >= 0).all() or (steps <= 0).all())
        if not one_way or abs(travelled[-1]) <= self._geometry.turn:
            return super().parts
        wedge = bool(np.abs(steps).max() > max(3 * np.median(np.abs(steps)), self._geometry.turn / 18))
        return replace(super().parts, place=torch.from_numpy(np.abs(travelled)), open=wedge)


def _radii(
    name: str, table: Sequence[Sequence[float]], given: float | Sequence[float] | None, columns: int
) -> tuple[float, ...]:
    source, middle, u, v = np.array(table).reshape(-1, 4, 3).transpose(1, 0, 2)
    if given is None:  # the distance in the plane of the columns
        normal = np.cross(u, v)
        radii = np.abs(((source - middle) * normal).sum(1)) / np.linalg.norm(normal, axis=1)
    else:
        try:
            values = np.atleast_1d(np.asarray(given, dtype=np.float64))
        except (TypeError, ValueError):
            values = np.empty(0)
        if values.shape not in ((1,), (len(table),)) or not (np.isfinite(values) & (values > 0)).all():
            raise InputError(f"{name}: curvature_radius needs one number of mm above 0, or one a view ({len(table)})")
        radii = np.broadcast_to(values, len(table))
    wide = np.flatnonzero(columns * np.linalg.norm(u, axis=1) / radii >= np.pi)
    if len(wide):
        raise InputError(
            f"{name}: in view {int(wide[0])} the detector goes half around an arc of {radii[wide[0]]:g} mm; give "
            "fewer columns or a larger curvature_radius"
        )
    return tuple(radii.tolist())


def _warn_cut(name: str, geometry: ModularGeometry) -> None:
    """Warn where the detectors do not show all of the slices, or none of them some slices.

    Not where the source looks along the axis rather than across it: nothing then tells how much is wanted.
    """
    source, middle, *_ = geometry.table
    toward = np.abs(middle - source)
    if (toward[:, 2] > np.hypot(toward[:, 0], toward[:, 1])).any():
        return
    ends = np.array([geometry.passed(view) for view in range(len(geometry.views))])
    sides = np.stack((-ends[:, 0], ends[:, 1]))
    seen = float((sides.max(0) if geometry.goes_around and sides.min() > 0 else sides.min(0)).min())
    warn_truncated(name, seen, min(geometry.volume_shape[1:]), geometry.pixel_size, level=4)
    low, high = geometry.height()
    half = geometry.volume_shape[0] * geometry.slice_thickness / 2
    cut = max(0.0, low + half) + max(0.0, half - high)
    if cut > 1e-6 * half:
        warnings.warn(
            f"{name}: no view shows {min(cut, 2 * half):.4g} mm of the {2 * half:.4g} mm of slices at the axis: rays "
            f"pass it from {low:.4g} to {high:.4g} mm; give fewer slices, or positions from the middle of the volume",
            stacklevel=3,
        )
