"""Parallel and fan beams by the weights of Joseph's interpolation, without keeping their matrix."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_mbir.physics.ct.geometry import PlaneGeometry
from lightning_mbir.physics.ct.joseph import view_matrix
from lightning_mbir.physics.ct.projectors.projector import Projector
from lightning_mbir.physics.ct.projectors.sparse import to_torch


class JosephRays(Projector):
    """The product with that matrix without keeping it: each view's part is made anew, used, and dropped.

    For geometries whose matrix is too large. Making the parts takes most of the time, so many slices at once pay.
    """

    def __init__(self, geometry: PlaneGeometry) -> None:
        self.image_size, self.pixel_size, self.views = geometry.image_size, geometry.pixel_size, geometry.views

    def product(self, x: Float[Tensor, "slices inputs"], transpose: bool) -> Float[Tensor, "slices outputs"]:
        bins = len(self.views[0][0])
        given = x.t().contiguous()
        result = x.new_zeros(self.image_size**2 if transpose else len(self.views) * bins, len(x))
        for view, rays in enumerate(self.views):
            matrix = view_matrix(self.image_size, self.pixel_size, rays)
            part = slice(view * bins, (view + 1) * bins)
            if transpose:
                torch.addmm(result, to_torch(matrix.T.tocsr()).to(x), given[part], out=result)
            else:
                result[part] = to_torch(matrix).to(x) @ given
        return result.t().contiguous()
