"""What parallel and fan beams have in common: rays in the plane of a slice, and the backends that follow them."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics.ct.geometry import check_finite, check_positive, degrees, warn_truncated
from lightning_mbir.physics.ct.joseph import Array, Rays, joseph_matrix
from lightning_mbir.physics.ct.projectors.matrix_free import JosephRays
from lightning_mbir.physics.ct.projectors.projector import Projector
from lightning_mbir.physics.ct.projectors.sparse import SparsePair, cached_matrix
from lightning_mbir.physics.operator import LinearOperator

log = logging.getLogger(__name__)

FORMAT = 1  # raise when joseph_matrix gives other values, so that cached matrices are built anew


class PlaneBeam(LinearOperator):
    """Line integrals of attenuation through slices. A subclass tells the rays of a view.

    Lengths are in mm, angles in degrees; see ``docs/geometry.md``.
    """

    BACKENDS: tuple[str, ...]

    def __init__(
        self,
        image_size: int,
        angles: Sequence[float] | Tensor,
        n_detectors: int,
        pixel_size: float,
        detector_spacing: float,
        center_offset: float,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        self.angles = degrees(name, angles, level=4)
        check_positive(name, image_size=image_size, pixel_size=pixel_size, detector_spacing=detector_spacing)
        check_finite(name, center_offset=center_offset)
        if n_detectors < 1:
            raise InputError(f"{name}: n_detectors is {n_detectors}; give at least 1")
        self.image_size, self.n_detectors = image_size, n_detectors
        self.pixel_size, self.detector_spacing, self.center_offset = pixel_size, detector_spacing, center_offset
        self.domain_shape = (image_size, image_size)
        self.range_shape = (len(self.angles), n_detectors)
        half = n_detectors / 2 * detector_spacing - abs(center_offset)
        warn_truncated(name, self.distance(half), image_size * pixel_size / 2, level=4)

    @property
    @abstractmethod
    def geometry(self) -> dict[str, Any]:
        """Everything that decides the matrix: the arguments of the class."""

    @abstractmethod
    def distance(self, position: float) -> float:
        """How far from the axis, in mm, the ray to this detector coordinate passes."""

    @abstractmethod
    def rays(self, angle: float) -> Rays:
        """The line of every bin in the view at ``angle`` degrees."""

    @property
    def positions(self) -> Array:
        """``(n_detectors,)`` coordinates of the bins on the detector in mm, 0 where the axis projects to."""
        return (np.arange(self.n_detectors) - (self.n_detectors - 1) / 2) * self.detector_spacing - self.center_offset

    def forward(self, x: Tensor) -> Tensor:
        """Sinograms: ``(..., Y, X)`` in 1/mm to ``(..., n_angles, n_detectors)``."""
        self.check_domain(x)
        flat = x.reshape(-1, self.image_size**2)
        return self._projector.apply(flat).reshape(*x.shape[:-2], *self.range_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        """Unfiltered back-projection, the exact transpose: ``(..., n_angles, n_detectors)`` to ``(..., Y, X)``."""
        self.check_range(y)
        flat = y.reshape(-1, math.prod(self.range_shape))
        return self._projector.apply(flat, transpose=True).reshape(*y.shape[:-2], *self.domain_shape)

    def get_extra_state(self) -> dict[str, Any]:
        """The geometry, so that a state is not loaded into another one."""
        return self.geometry

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        if {**state, "angles": tuple(state["angles"])} != self.geometry:
            name = type(self).__name__
            raise InputError(f"this state belongs to a {name} of another geometry; build the operator to match it")

    def _use(self, backend: str, max_memory_gb: float) -> None:
        """Choose the backend and make its projector; the last thing that a constructor does."""
        if backend != "auto" and backend not in self.BACKENDS:
            raise InputError(f"backend {backend!r} is unknown; there are auto, {', '.join(self.BACKENDS)}")
        views = [self.rays(angle) for angle in self.angles]
        if backend in ("auto", "sparse"):
            gigabytes = self._matrix_size(views)
            fits = gigabytes <= max_memory_gb
            if backend == "sparse" and not fits:
                raise InputError(
                    f"the matrix of {len(self.angles)} views of {self.image_size} x {self.image_size} pixels takes "
                    f"{gigabytes:.1f} GB, over max_memory_gb={max_memory_gb:g}; raise that, take fewer views, or take "
                    "backend matrix_free, which is slower"
                )
            if not fits:
                log.info("the matrix would take %.1f GB, over max_memory_gb=%g", gigabytes, max_memory_gb)
            backend = "sparse" if fits else "matrix_free"
        log.info("%s uses backend %s", type(self).__name__, backend)
        self.backend = backend
        self._projector = self._make(backend, views)

    def _make(self, backend: str, views: list[Rays]) -> Projector:
        if backend == "matrix_free":
            return JosephRays(self.image_size, self.pixel_size, views)
        if backend == "astra":
            from lightning_mbir.physics.ct.projectors.astra import AstraProjector

            return AstraProjector(self)
        build = lambda: joseph_matrix(self.image_size, self.pixel_size, views)  # noqa: E731
        return SparsePair(cached_matrix({**self.geometry, "format": FORMAT}, build))

    def _matrix_size(self, views: list[Rays]) -> float:
        """Gigabytes of the matrix and its transpose, to within a third."""
        reach = self.image_size * self.pixel_size / math.sqrt(2)
        hits = sum(int((np.abs(s) <= reach).sum()) for _, _, s in views)
        # A ray that hits the image meets 1.3 N pixels on average, 8 bytes each, in two directions.
        return 2 * 8 * 1.3 * self.image_size * hits / 1e9
