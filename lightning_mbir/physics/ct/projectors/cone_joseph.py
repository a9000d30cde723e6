"""Joseph's interpolation in 3D for a circular cone beam: samples are computed view by view, never stored."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lightning_mbir.physics.ct.geometry import ConeGeometry
from lightning_mbir.physics.ct.projectors.projector import Projector


class ConeJoseph(Projector):
    """Projection of a volume and its exact transpose: a gather and a scatter-add with the same weights.

    In a column of the detector all rays lie above one another: they pass the same pixels of the plane and differ in z
    alone. So a column first makes a plane of its samples (linear across the major axis, all slices at once), and
    then reads each ray from that (linear in z). This is bilinear interpolation, at a third of the reads.
    """

    SAMPLES = 2**23
    """Samples ``(columns, steps, rows)`` at once; they take some 40 bytes each."""

    def __init__(self, geometry: ConeGeometry) -> None:
        self.shape, self.angles = geometry.domain_shape, geometry.angles
        self.pixel_size, self.slice_thickness = geometry.pixel_size, geometry.slice_thickness
        self.source_distance = geometry.source_distance
        self.total = geometry.source_distance + geometry.detector_distance
        self.v, self.u = geometry.positions

    def product(self, x: Float[Tensor, "slices inputs"], transpose: bool) -> Float[Tensor, "slices outputs"]:
        z, y, width = self.shape
        rows, columns = len(self.v), len(self.u)
        views = len(self.angles)
        out = x.new_zeros(len(x), z * y * width if transpose else views * rows * columns)
        for given, result in zip(x, out, strict=True):
            # Pixels first, slices last: a pixel of the plane is one contiguous read. A slice of zeros before and two
            # after stand for what lies outside of the volume.
            volume = x.new_zeros(y * width, z + 3)
            if not transpose:
                volume[:, 1 : z + 1] = given.reshape(z, -1).t()
            sinogram = (given if transpose else result).view(views, rows, columns)
            for view, angle in zip(sinogram, self.angles, strict=True):
                for column, pixel, weight, t in self._columns(angle, x):
                    lower, fraction, length = self._heights(column, t, x)
                    if transpose:
                        value = (view[:, column].t() * length)[:, None]
                        plane = x.new_zeros(*t.shape, z + 3)
                        plane.scatter_add_(2, lower, (1 - fraction) * value)
                        plane.scatter_add_(2, lower + 1, fraction * value)
                        for tap, share in zip(pixel, weight, strict=True):
                            volume.index_add_(0, tap.flatten(), (share[..., None] * plane).flatten(0, 1))
                    else:
                        near, far = (volume.index_select(0, tap.flatten()).view(*tap.shape, -1) for tap in pixel)
                        plane = weight[0, ..., None] * near + weight[1, ..., None] * far
                        value = torch.lerp(plane.gather(2, lower), plane.gather(2, lower + 1), fraction)
                        view[:, column] = (value.sum(1) * length).t()
            if transpose:
                result.view(z, -1).copy_(volume[:, 1 : z + 1].t())
        return out

    def _columns(self, angle: float, like: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Columns of a view in parts: their numbers ``(c,)``, the two pixels at each step and their weights
        ``(2, c, steps)``, and how far along the ray ``(c, steps)``, from 0 at the source to 1 at the detector."""
        _, height, width = self.shape
        cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        start = self.source_distance * np.array([sin, -cos])
        direction = self.total * np.array([[-sin], [cos]]) + self.u * np.array([[cos], [sin]])
        along_y = np.abs(direction[1]) >= np.abs(direction[0])
        for major, steps, across in ((1, height, width), (0, width, height)):
            chosen = np.flatnonzero(along_y if major else ~along_y)
            at_once = max(1, self.SAMPLES // (steps * max(len(self.v), self.shape[0])))
            for first in range(0, len(chosen), at_once):
                column = chosen[first : first + at_once]
                slope = direction[:, column, None]
                grid = (np.arange(steps) - (steps - 1) / 2) * self.pixel_size
                t = (grid - start[major]) / slope[major]
                position = (start[1 - major] + t * slope[1 - major]) / self.pixel_size + (across - 1) / 2
                lower = np.floor(position)
                index = np.stack((lower, lower + 1))
                weight = np.stack((1 - position + lower, position - lower)) * (self.pixel_size / np.abs(slope[major]))
                inside = (index >= 0) & (index < across)
                index = np.where(inside, index, 0).astype(np.int64)
                pixel = np.arange(steps) * width + index if major else index * width + np.arange(steps)
                yield (
                    torch.from_numpy(column).to(like.device),
                    torch.from_numpy(pixel).to(like.device),
                    torch.from_numpy(np.where(inside, weight, 0)).to(like),
                    torch.from_numpy(t).to(like),
                )

    def _heights(self, column: Tensor, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Slice below each sample ``(c, steps, rows)`` in the padded volume, how far above it the sample is, and
        the lengths ``(c, rows)`` of the rays from source to detector in mm."""
        z = self.shape[0]
        v = torch.from_numpy(self.v).to(like)
        height = t[..., None] * (v / self.slice_thickness) + (z - 1) / 2
        height = height.clamp_(-1, z).add_(1)
        lower = height.floor()
        u = torch.from_numpy(self.u).to(like)[column]
        length = (self.total**2 + u[:, None] ** 2 + v**2).sqrt()
        return lower.long(), height.sub_(lower), length
