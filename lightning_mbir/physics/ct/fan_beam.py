"""CT with a fan beam."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.kinds import check_kinds
from lightning_mbir.physics.ct.geometry import FanGeometry, check_positive, check_source, degrees, whole_sizes
from lightning_mbir.physics.ct.plane_beam import PlaneBeam
from lightning_mbir.physics.ct.projectors.astra import AstraProjector
from lightning_mbir.physics.ct.projectors.matrix_free import JosephRays
from lightning_mbir.physics.ct.projectors.sparse import sparse_joseph
from lightning_mbir.physics.ct.projectors.torch_radon import TorchRadonProjector


class FanBeam(PlaneBeam):
    """Line integrals of attenuation along the rays of a fan, for a full or a short scan.

    Pixels lie as in ``ParallelBeam``. In the view at angle ``theta`` the source is at
    ``source_distance (sin(theta), -cos(theta))``, the middle of the detector opposite of it. Bin ``i`` is at
    ``u = (i - (D - 1) / 2) detector_spacing - center_offset`` along ``(cos(theta), sin(theta))``, in mm on the detector
    itself: along a straight line (``flat``), or along an arc around the source (``curved``). So a far source gives
    the views of ``ParallelBeam`` (Kak and Slaney 1988, section 3.4). Rays are whole lines: a virtual detector through
    the axis has ``detector_distance=0``.

    Args:
        image_size: pixels along each side of a slice.
        angles: projection angles in degrees.
        source_distance: from the source to the rotation axis in mm.
        detector_distance: from the axis to the detector in mm.
        n_detectors: bins a view; by default as many as the image's diagonal needs.
        pixel_size: side of a pixel in mm.
        detector_spacing: distance of bins on the detector in mm; by default that of the magnified pixel.
        center_offset: detector coordinate, from its middle, that the axis projects to, in mm.
        detector: ``flat`` or ``curved``.
        backend: ``sparse`` (matrix of Joseph's interpolation), ``matrix_free`` (the same weights without the matrix,
            slower), ``auto`` (the first while it fits, else the second), ``astra`` (CPU, flat detectors; the
            optional package astra-toolbox, GPL), or ``torch_radon`` (CUDA only, flat detectors, adjoint not exact;
            the conda-forge package carterbox-torch-radon, GPL; see docs/gpu_projectors.md).
        max_memory_gb: limit for the sparse matrix and its transpose.

    Raises:
        InputError: no angle, angles that are not finite, sizes that are not positive, a source inside of the image,
            a matrix over the limit, or a backend that is not there.
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
        *,
        source_distance: float,
        detector_distance: float,
        n_detectors: int | None = None,
        pixel_size: float = 1.0,
        detector_spacing: float | None = None,
        center_offset: float = 0.0,
        detector: Literal["flat", "curved"] = "flat",
        backend: Literal["auto", "sparse", "matrix_free", "astra", "torch_radon"] = "auto",
        max_memory_gb: float = 4.0,
    ) -> None:
        check_kinds(FanBeam.__init__, locals())
        if detector not in ("flat", "curved"):
            raise InputError(f"FanBeam: detector is {detector!r}; give flat or curved")
        (image_size,) = whole_sizes("FanBeam", image_size=image_size)
        check_positive("FanBeam", image_size=image_size, pixel_size=pixel_size)
        radius = image_size * pixel_size / math.sqrt(2)
        check_source("FanBeam", source_distance, detector_distance, radius)
        total = source_distance + detector_distance
        spacing = pixel_size * total / source_distance if detector_spacing is None else detector_spacing
        check_positive("FanBeam", detector_spacing=spacing)
        if n_detectors is None:
            fan = math.asin(radius / source_distance)
            half = total * (math.tan(fan) if detector == "flat" else fan)
            n_detectors = math.ceil(2 * half / spacing - 1e-9)
        (n_detectors,) = whole_sizes("FanBeam", n_detectors=n_detectors)
        geometry = FanGeometry(
            image_size=image_size,
            angles=degrees("FanBeam", angles, level=3),
            n_detectors=n_detectors,
            pixel_size=float(pixel_size),
            detector_spacing=float(spacing),
            center_offset=float(center_offset),
            source_distance=float(source_distance),
            detector_distance=float(detector_distance),
            detector=detector,
        )
        super().__init__(geometry, backend, max_memory_gb)
