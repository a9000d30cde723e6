"""Joseph's interpolation in 3D for any set of rays from a source: samples are computed as they are used, never kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lightning_mbir.physics.ct.geometry import VolumeGeometry
from lightning_mbir.physics.ct.projectors.projector import Projector

PLANES = {0: (1, 2), 1: (0, 2), 2: (0, 1)}
"""The two axes of the planes across each axis of a volume ``(Z, Y, X)``, slower one first."""


class Crossing(NamedTuple):
    """Rays that cross the planes of one axis.

    Attributes:
        number: which rays of the measurement, ``(rays,)``.
        axis: of the volume, that the rays follow most closely, counted in voxels.
        middle: where they cross the middle of the axis, ``(2, rays)`` voxels along the two others, and ``slope``, by
            how much that moves from one plane to the next.
        length: of the ray from one plane to the next, ``(rays,)`` mm.
    """

    number: Int[Tensor, " rays"]
    axis: int
    middle: Float[Tensor, "2 rays"]
    slope: Float[Tensor, "2 rays"]
    length: Float[Tensor, " rays"]


class Joseph3D(Projector):
    """Projection of a volume and its exact transpose: a gather and a scatter-add with the same weights.

    A ray takes one sample in each plane of the axis that it follows most closely, bilinear in that plane. That is what
    ``grid_sample`` does with planes as its batch, and its backward pass is the transpose with the same weights. Each
    plane belongs to one thread, so that threads neither wait for each other nor change a bit.
    """

    VIEW_RAYS = 2**17
    """Rays whose places are computed at once; they take some 200 bytes each."""
    RAYS = 2**13
    """Rays that are sampled at once on a CPU, in ``STEPS`` planes at least: what stays in the cache."""
    STEPS = 16
    CUDA_SAMPLES = 2**24
    """Samples at once on other devices; they take some 16 bytes each."""

    def __init__(self, geometry: VolumeGeometry) -> None:
        self.geometry = geometry
        self.shape = geometry.domain_shape
        self.voxel = (geometry.slice_thickness, geometry.pixel_size, geometry.pixel_size)

    def product(self, x: Float[Tensor, "slices inputs"], transpose: bool) -> Float[Tensor, "slices outputs"]:
        rays = self.geometry.range_shape[0] * self.geometry.range_shape[1] * self.geometry.range_shape[2]
        planes: dict[int, Tensor] = {}  # of each axis that rays follow: (planes, volumes, slower, faster)
        measured = x if transpose else x.new_zeros(len(x), rays)
        for crossing in self._crossings(x):
            axis = crossing.axis
            if axis not in planes:
                across = PLANES[axis]
                planes[axis] = (
                    x.new_zeros(self.shape[axis], len(x), *(self.shape[a] for a in across))
                    if transpose
                    else x.view(-1, *self.shape).permute(axis + 1, 0, *(a + 1 for a in across)).contiguous()
                )
            run = self._back if transpose else self._sample
            run(planes[axis], measured, crossing)
        if not transpose:
            return measured
        out = x.new_zeros(len(x), *self.shape)
        for axis, part in planes.items():
            order = (1, *(2 + PLANES[axis].index(a) if a != axis else 0 for a in range(3)))
            out += part.permute(order)
        return out.flatten(1)

    def _sample(self, planes: Tensor, measured: Tensor, crossing: Crossing) -> None:
        value = planes.new_zeros(planes.shape[1], len(crossing.number))
        for steps, rows, grid in self._grids(planes, crossing):
            part = planes[steps, :, rows]
            value += F.grid_sample(part, grid, align_corners=False)[:, :, 0].sum(0)
        measured[:, crossing.number] = value * crossing.length

    def _back(self, planes: Tensor, measured: Tensor, crossing: Crossing) -> None:
        value = (measured[:, crossing.number] * crossing.length)[None, :, None]
        for steps, rows, grid in self._grids(planes, crossing):
            part = planes[steps, :, rows]
            # Bilinear, zeros outside, no corners aligned; of the planes alone.
            given = value.expand(len(part), -1, -1, -1)
            back, _ = torch.ops.aten.grid_sampler_2d_backward(given, part, grid, 0, 0, False, [True, False])
            part += back

    def _grids(self, planes: Tensor, crossing: Crossing) -> Iterator[tuple[slice, slice, Tensor]]:
        """Some planes, the rows of them that the rays meet, and where, as ``grid_sample`` has it."""
        count, _, height, width = planes.shape
        middle, slope = crossing.middle, crossing.slope
        reach = slope[0].abs() * (count - 1) / 2
        first = min(max(int((middle[0] - reach).min().floor()), 0), height - 1)
        last = max(min(int((middle[0] + reach).max().floor()) + 2, height), first + 1)
        # grid_sample counts from -1 at the near side of the first voxel to 1 at the far side of the last one.
        fast, slow = (2 * middle[1] + 1) / width - 1, (2 * (middle[0] - first) + 1) / (last - first) - 1
        base = torch.stack((fast, slow), 1).to(planes.dtype)
        step = torch.stack((2 * slope[1] / width, 2 * slope[0] / (last - first)), 1).to(planes.dtype)
        place = torch.arange(count, dtype=planes.dtype, device=planes.device)[:, None, None] - (count - 1) / 2
        if planes.device.type == "cpu":
            at_once = max(self.STEPS, torch.get_num_threads())
        else:
            at_once = max(1, self.CUDA_SAMPLES // len(base))
        for start in range(0, count, at_once):
            steps = slice(start, min(start + at_once, count))
            yield steps, slice(first, last), torch.addcmul(base, place[steps], step)[:, None]

    def _crossings(self, like: Tensor) -> Iterator[Crossing]:
        """All rays that meet the volume, in parts."""
        views, rows, columns = self.geometry.range_shape
        at_once = max(1, self.VIEW_RAYS // (rows * columns))
        rays_at_once = self.RAYS if like.device.type == "cpu" else self.VIEW_RAYS
        size = torch.tensor(self.voxel, dtype=torch.float64)[:, None]
        half = (torch.tensor(self.shape, dtype=torch.float64)[:, None] - 1) / 2
        for first in range(0, views, at_once):
            source, bins = (part.flip(0) for part in self.geometry.rays(first, min(first + at_once, views)))  # z, y, x
            direction = (bins - source[..., None, None]).flatten(1)
            full = direction.square().sum(0).sqrt_()
            direction /= size
            start = source / size + half
            steep = direction.abs()
            along_y = steep[1] >= steep[2]  # of equal ones y, as in the plane
            along_z = steep[0] > torch.maximum(steep[1], steep[2])
            for axis, chosen in enumerate((along_z, along_y & ~along_z, ~along_y & ~along_z)):
                number = torch.nonzero(chosen).flatten()
                if not len(number):
                    continue
                view = number // (rows * columns)
                along = direction[axis][number]
                across = list(PLANES[axis])
                slope = torch.stack([direction[a][number] for a in across]).div_(along)
                middle = torch.stack([start[a][view] for a in across]).addcmul_(half[axis] - start[axis][view], slope)
                # Those that no plane meets within the volume are left out.
                reach = slope.abs() * half[axis]
                meets = ((middle + reach > -1) & (middle - reach < 2 * half[across] + 1)).all(0)
                number, middle, slope = number[meets], middle[:, meets], slope[:, meets]
                length = full[number] / along[meets].abs()
                for near in range(0, len(number), rays_at_once):
                    some = slice(near, near + rays_at_once)
                    yield Crossing(
                        (number[some] + first * rows * columns).to(like.device),
                        axis,
                        middle[:, some].to(like.device),
                        slope[:, some].to(like.device),
                        length[some].to(like),
                    )
