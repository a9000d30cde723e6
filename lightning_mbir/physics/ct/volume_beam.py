"""What beams have in common whose rays leave the plane of a slice: they act on whole volumes."""

from __future__ import annotations

import math

from jaxtyping import Num
from torch import Tensor

from lightning_mbir.physics.ct.beam import Beam


class VolumeBeam(Beam):
    """Line integrals of attenuation through a volume, whose slices the rays couple."""

    separable = False

    def forward(self, x: Num[Tensor, "*batch z y x"]) -> Num[Tensor, "*batch views rows columns"]:
        """Projections: ``(..., Z, Y, X)`` in 1/mm to ``(..., views, rows, columns)``."""
        self.check_domain(x)
        flat = x.reshape(-1, math.prod(self.domain_shape))
        return self._projector.apply(flat).reshape(*x.shape[:-3], *self.range_shape)

    def adjoint(self, y: Num[Tensor, "*batch views rows columns"]) -> Num[Tensor, "*batch z y x"]:
        """Unfiltered back-projection: ``(..., views, rows, columns)`` to ``(..., Z, Y, X)``.

        The exact transpose, but by ``torch_radon``.
        """
        self.check_range(y)
        flat = y.reshape(-1, math.prod(self.range_shape))
        return self._projector.apply(flat, transpose=True).reshape(*y.shape[:-3], *self.domain_shape)
