"""CT with a parallel beam."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor

from lightning_mbir.kinds import check_kinds
from lightning_mbir.physics.ct.geometry import ParallelGeometry, check_positive, degrees, whole_sizes
from lightning_mbir.physics.ct.plane_beam import PlaneBeam
from lightning_mbir.physics.ct.projectors.astra import AstraProjector
from lightning_mbir.physics.ct.projectors.matrix_free import JosephRays
from lightning_mbir.physics.ct.projectors.sparse import sparse_joseph
from lightning_mbir.physics.ct.projectors.torch_radon import TorchRadonProjector


class ParallelBeam(PlaneBeam):
    """Line integrals of attenuation along parallel rays.

    Pixel ``(row, column)`` has its centre at ``y = (row - (Y - 1) / 2) pixel_size`` and ``x`` likewise from the
    column. The view at angle ``theta`` integrates along ``x cos(theta) + y sin(theta) = s``; bin ``i`` of the detector
    is at ``s = (i - (D - 1) / 2) detector_spacing - center_offset``. With attenuation in 1/mm a sinogram has no unit.

    Args:
        image_size: pixels along each side of a slice.
        angles: projection angles in degrees.
        n_detectors: bins a view; by default the image's diagonal over the spacing, rounded up (363 for 256 pixels).
        pixel_size: side of a pixel in mm.
        detector_spacing: distance of bins in mm; by default the pixel size.
        center_offset: how far the rotation centre lies from the middle of the detector, in mm.
        backend: ``sparse`` (matrix of Joseph's interpolation), ``matrix_free`` (the same weights without the matrix,
            slower), ``auto`` (the first while it fits, else the second), ``astra`` (CPU; the optional package
            astra-toolbox, GPL), or ``torch_radon`` (CUDA only, adjoint not exact; the conda-forge package
            carterbox-torch-radon, GPL; see docs/gpu_projectors.md).
        max_memory_gb: limit for the sparse matrix and its transpose.

    Raises:
        InputError: no angle, angles that are not finite, sizes that are not positive, a matrix over the limit, or a
            backend that is not there.
    """

    BACKENDS: ClassVar = {
        "sparse": sparse_joseph,
        "matrix_free": JosephRays,
        "astra": AstraProjector,
        "torch_radon": TorchRadonProjector,
    }

    def __init__(
        self,
        image_size: int,
        angles: Sequence[float] | Tensor,
        n_detectors: int | None = None,
        pixel_size: float = 1.0,
        detector_spacing: float | None = None,
        center_offset: float = 0.0,
        backend: Literal["auto", "sparse", "matrix_free", "astra", "torch_radon"] = "auto",
        max_memory_gb: float = 4.0,
    ) -> None:
        check_kinds(ParallelBeam.__init__, locals())
        (image_size,) = whole_sizes("ParallelBeam", image_size=image_size)
        spacing = pixel_size if detector_spacing is None else detector_spacing
        check_positive("ParallelBeam", image_size=image_size, pixel_size=pixel_size, detector_spacing=spacing)
        if n_detectors is None:
            n_detectors = math.ceil(image_size * math.sqrt(2) * pixel_size / spacing - 1e-9)
        (n_detectors,) = whole_sizes("ParallelBeam", n_detectors=n_detectors)
        geometry = ParallelGeometry(
            image_size=image_size,
            angles=degrees("ParallelBeam", angles, level=3),
            n_detectors=n_detectors,
            pixel_size=float(pixel_size),
            detector_spacing=float(spacing),
            center_offset=float(center_offset),
        )
        super().__init__(geometry, backend, max_memory_gb)
