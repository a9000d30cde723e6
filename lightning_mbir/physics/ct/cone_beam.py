"""CT with a cone beam on a circular orbit and a flat panel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.free_memory import check_fits
from lightning_mbir.kinds import check_kinds
from lightning_mbir.physics.ct.geometry import (
    ConeGeometry,
    check_finite,
    check_positive,
    check_source,
    degrees,
    seen_half,
    warn_cut_slices,
    warn_truncated,
    whole_sizes,
)
from lightning_mbir.physics.ct.projectors.diffct import DiffctProjector
from lightning_mbir.physics.ct.projectors.joseph_3d import Joseph3D
from lightning_mbir.physics.ct.projectors.torch_radon import TorchRadonProjector
from lightning_mbir.physics.ct.volume_beam import VolumeBeam


class ConeBeam(VolumeBeam):
    """Line integrals of attenuation along the rays of a cone: an operator on whole volumes.

    Slice ``k`` is at ``z = (k - (Z - 1) / 2) slice_thickness``, pixels lie as in ``ParallelBeam``. In the view at angle
    ``theta`` the source is at ``source_distance (sin(theta), -cos(theta), 0)``, the middle of the panel opposite of it.
    Column ``i`` is at ``u = (i - (columns - 1) / 2) spacing`` along ``(cos(theta), sin(theta), 0)``, row ``j`` at
    ``v = (j - (rows - 1) / 2) spacing`` along z, both less their offset: the row in the middle is ``FanBeam``
    (Feldkamp, Davis and Kress 1984).

    Args:
        volume_shape: ``(Z, Y, X)``.
        angles: projection angles in degrees.
        source_distance: from the source to the rotation axis in mm.
        detector_distance: from the axis to the detector in mm.
        detector_shape: ``(rows, columns)``; by default as many as the volume's corners need.
        pixel_size: side of a pixel of a slice in mm.
        slice_thickness: distance of slices in mm; by default the pixel size.
        detector_spacing: ``(rows, columns)``, distance of bins in mm; by default those of the magnified voxel.
        offsets: ``(rows, columns)``, detector coordinates, from its middle, that the point of the axis in the plane
            of the source projects to, in mm.
        backend: ``matrix_free`` (Joseph's interpolation in 3D, exact adjoint, any device), which ``auto`` takes,
            ``diffct`` (the optional package diffct, meant for CUDA; float32), or ``torch_radon`` (CUDA only, adjoint
            not exact; the conda-forge package carterbox-torch-radon, GPL; see docs/gpu_projectors.md).

    Raises:
        InputError: no angle, angles that are not finite, sizes that are not positive, a source inside of the volume,
            or a backend that is not there.
    """

    BACKENDS: ClassVar = {"matrix_free": Joseph3D, "diffct": DiffctProjector, "torch_radon": TorchRadonProjector}

    def __init__(
        self,
        volume_shape: tuple[int, int, int],
        angles: Sequence[float] | Tensor,
        *,
        source_distance: float,
        detector_distance: float,
        detector_shape: tuple[int, int] | None = None,
        pixel_size: float = 1.0,
        slice_thickness: float | None = None,
        detector_spacing: tuple[float, float] | None = None,
        offsets: tuple[float, float] = (0.0, 0.0),
        backend: Literal["auto", "matrix_free", "diffct", "torch_radon"] = "auto",
    ) -> None:
        check_kinds(ConeBeam.__init__, locals())
        name = "ConeBeam"
        if len(volume_shape) != 3 or min(volume_shape) < 1:
            raise InputError(f"{name}: volume_shape is {tuple(volume_shape)}; give (Z, Y, X), each at least 1")
        thickness = pixel_size if slice_thickness is None else slice_thickness
        check_positive(name, pixel_size=pixel_size, slice_thickness=thickness)
        z, y, x = whole_sizes(name, **dict(zip("ZYX", volume_shape, strict=True)))
        radius = math.hypot(y, x) * pixel_size / 2
        check_source(name, source_distance, detector_distance, radius)
        magnification = (source_distance + detector_distance) / source_distance
        spacing = detector_spacing or (thickness * magnification, pixel_size * magnification)
        check_positive(name, row_spacing=spacing[0], column_spacing=spacing[1])
        check_finite(name, row_offset=offsets[0], column_offset=offsets[1])
        total = source_distance + detector_distance
        if detector_shape is None:
            half_u = total * math.tan(math.asin(radius / source_distance))
            half_v = z * thickness / 2 * total / (source_distance - radius)
            detector_shape = (math.ceil(2 * half_v / spacing[0] - 1e-9), math.ceil(2 * half_u / spacing[1] - 1e-9))
        if len(detector_shape) != 2 or min(detector_shape) < 1:
            raise InputError(f"{name}: detector_shape is {tuple(detector_shape)}; give (rows, columns), at least 1")
        check_fits(f"{name}: a volume of {z:,.0f} x {y:,.0f} x {x:,.0f}", 12 * z * y * x, "give fewer voxels")
        rows, columns = whole_sizes(name, rows=detector_shape[0], columns=detector_shape[1])
        views = degrees(name, angles, level=3)
        size = 12 * len(views) * rows * columns
        check_fits(
            f"{name}: {len(views)} views of {rows:,.0f} x {columns:,.0f} bins", size, "give fewer views or detectors"
        )
        geometry = ConeGeometry(
            volume_shape=(z, y, x),
            angles=views,
            source_distance=float(source_distance),
            detector_distance=float(detector_distance),
            detector_shape=(rows, columns),
            pixel_size=float(pixel_size),
            slice_thickness=float(thickness),
            detector_spacing=(float(spacing[0]), float(spacing[1])),
            offsets=(float(offsets[0]), float(offsets[1])),
        )
        half_v = rows / 2 * geometry.detector_spacing[0] - abs(geometry.offsets[0])
        half_u = seen_half(views, columns * geometry.detector_spacing[1], geometry.offsets[1])
        warn_truncated(name, source_distance * math.sin(math.atan(half_u / total)), min(y, x), pixel_size, level=3)
        warn_cut_slices(name, half_v / magnification, z * thickness / 2)
        super().__init__(geometry, backend, default="matrix_free")
