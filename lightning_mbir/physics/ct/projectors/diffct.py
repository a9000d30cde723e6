"""Cone beams by diffct (Apache-2.0, an optional package for CUDA devices)."""

from __future__ import annotations

import importlib.util

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics.ct.geometry import ConeGeometry
from lightning_mbir.physics.ct.projectors.projector import Projector


class DiffctProjector(Projector):
    """diffct's projector, lengths of rays in voxels (Siddon's), and its transpose; float32."""

    def __init__(self, geometry: ConeGeometry) -> None:
        if importlib.util.find_spec("diffct") is None or not torch.cuda.is_available():
            raise InputError(
                "backend diffct needs the package diffct (pip install diffct) and a CUDA device; "
                "backend matrix_free needs neither"
            )
        theta = torch.deg2rad(torch.tensor(geometry.angles, dtype=torch.float64))
        zero, one = torch.zeros_like(theta), torch.ones_like(theta)
        ray = torch.stack((-theta.sin(), theta.cos(), zero), 1)
        along = torch.stack((theta.cos(), theta.sin(), zero), 1)
        up = torch.stack((zero, zero, one), 1)
        # Its voxels are cubes: heights are stretched until ours are. That changes the length of a ray, not the share
        # of it in each voxel, so the rays are scaled back.
        stretch = geometry.pixel_size / geometry.slice_thickness
        row_offset, column_offset = geometry.offsets
        center = geometry.detector_distance * ray - column_offset * along - stretch * row_offset * up
        self.trajectory = [part.float() for part in (-geometry.source_distance * ray, center, along, up)]
        v, u = (torch.from_numpy(part) for part in geometry.positions)
        total = geometry.source_distance + geometry.detector_distance
        plane = total**2 + u[:, None] ** 2
        self.scale = ((plane + v**2) / (plane + (stretch * v) ** 2)).sqrt().float()
        rows, columns = geometry.detector_spacing
        self.spacing = (columns, rows * stretch, geometry.pixel_size)
        self.domain_shape, self.range_shape = geometry.domain_shape, geometry.range_shape

    def product(self, x: Float[Tensor, "slices inputs"], transpose: bool) -> Float[Tensor, "slices outputs"]:
        from diffct import ConeBackprojectorFunction, ConeProjectorFunction

        du, dv, voxel = self.spacing
        trajectory = [part.to(x.device) for part in self.trajectory]
        views, rows, columns = self.range_shape
        scale = self.scale.to(x.device)
        out = []
        for one in x.float():
            if transpose:
                sinogram = (one.view(views, rows, columns).mT * scale).contiguous()
                back = ConeBackprojectorFunction.apply(sinogram, *trajectory, *self.domain_shape, du, dv, voxel)
                out.append(back.flatten())
            else:
                volume = one.view(self.domain_shape)
                sinogram = ConeProjectorFunction.apply(volume, *trajectory, columns, rows, du, dv, voxel)
                out.append((sinogram * scale).mT.flatten())
        return torch.stack(out).to(x.dtype)
