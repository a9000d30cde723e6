"""Parallel beams on a GPU by torch-radon 3 (GPL, an optional package of conda-forge)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics.ct.geometry import ParallelGeometry
from lightning_mbir.physics.ct.projectors.projector import Projector


class TorchRadonProjector(Projector):
    """The CUDA projector of torch-radon for a parallel beam.

    Its back-projection is not the transpose of its projection, so that is taken as the gradient of the projection.
    """

    def __init__(self, geometry: ParallelGeometry) -> None:
        try:
            import torch_radon
        except ImportError as error:
            raise InputError(
                "backend torch_radon needs a CUDA device and the package torch-radon 3 (conda install -c conda-forge "
                "torch-radon); the default backend sparse needs neither"
            ) from error
        if geometry.image_size % 16 or geometry.center_offset:
            raise InputError("backend torch_radon needs image sizes divisible by 16, no center_offset; take sparse")
        # Its lengths are in pixels; it counts angles in radians and y against the rows, as it negates them itself.
        radians = torch.deg2rad(torch.tensor(geometry.angles, dtype=torch.float32))
        spacing = geometry.detector_spacing / geometry.pixel_size
        self.radon = torch_radon.Radon(geometry.image_size, radians, geometry.n_detectors, spacing)
        self.domain_shape, self.range_shape = geometry.domain_shape, geometry.range_shape
        self.pixel_size = geometry.pixel_size

    def product(self, x: Float[Tensor, "slices inputs"], transpose: bool) -> Float[Tensor, "slices outputs"]:
        if not transpose:
            out: Tensor = self.radon.forward(x.reshape(-1, *self.domain_shape)) * self.pixel_size
            return out.flatten(1)
        start = torch.zeros(len(x), *self.domain_shape, dtype=x.dtype, device=x.device, requires_grad=True)
        with torch.enable_grad():
            projected = self.radon.forward(start) * self.pixel_size
        (back,) = torch.autograd.grad(projected, start, x.reshape(-1, *self.range_shape))
        return back.flatten(1)
