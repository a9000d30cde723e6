"""What parallel and fan beams have in common: rays in the plane of a slice, whose matrix may fit in memory."""

from __future__ import annotations

import logging
import math

from jaxtyping import Num
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.free_memory import check_fits
from lightning_mbir.physics.ct.beam import Beam
from lightning_mbir.physics.ct.geometry import PlaneGeometry, check_finite, seen_half, warn_truncated

log = logging.getLogger(__name__)


class PlaneBeam(Beam):
    """Line integrals of attenuation through slices."""

    def __init__(self, geometry: PlaneGeometry, backend: str, max_memory_gb: float) -> None:
        name = type(self).__name__
        check_finite(name, center_offset=geometry.center_offset)
        if geometry.n_detectors < 1:
            raise InputError(f"{name}: n_detectors is {geometry.n_detectors}; give at least 1")
        views, bins, size = len(geometry.angles), geometry.n_detectors, geometry.image_size
        check_fits(f"{name}: a slice of {size:,.0f} x {size:,.0f} pixels", 16 * size**2, "give fewer pixels")
        check_fits(f"{name}: {views} views of {bins:,.0f} bins", 48 * views * bins, "give fewer views or detectors")
        half = seen_half(geometry.angles, bins * geometry.detector_spacing, geometry.center_offset)
        warn_truncated(name, geometry.distance(half), geometry.image_size, geometry.pixel_size, level=4)
        fits = False
        if backend in ("auto", "sparse"):
            gigabytes = geometry.matrix_gigabytes
            fits = gigabytes <= max_memory_gb
            if backend == "sparse" and not fits:
                raise InputError(
                    f"the matrix of {len(geometry.angles)} views of {geometry.image_size} x {geometry.image_size} "
                    f"pixels takes {gigabytes:.1f} GB, over max_memory_gb={max_memory_gb:g}; raise that, take fewer "
                    "views, or take backend matrix_free, which is slower"
                )
            if not fits:
                log.debug("the matrix would take %.1f GB, over max_memory_gb=%g", gigabytes, max_memory_gb)
        super().__init__(geometry, backend, default="sparse" if fits else "matrix_free")

    def forward(self, x: Num[Tensor, "*batch y x"]) -> Num[Tensor, "*batch views bins"]:
        """Sinograms: ``(..., Y, X)`` in 1/mm to ``(..., views, bins)``."""
        self.check_domain(x)
        flat = x.reshape(-1, math.prod(self.domain_shape))
        return self._projector.apply(flat).reshape(*x.shape[:-2], *self.range_shape)

    def adjoint(self, y: Num[Tensor, "*batch views bins"]) -> Num[Tensor, "*batch y x"]:
        """Unfiltered back-projection: ``(..., views, bins)`` to ``(..., Y, X)``; the exact transpose, but by
        ``torch_radon``.
        """
        self.check_range(y)
        flat = y.reshape(-1, math.prod(self.range_shape))
        return self._projector.apply(flat, transpose=True).reshape(*y.shape[:-2], *self.domain_shape)
