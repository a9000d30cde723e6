"""From the grid of a file to square slices of square pixels, which operators and priors work at, and back again."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.kinds import check_kinds

MULTIPLE = 16
"""What the sides of slices are padded to a multiple of, for the networks of the priors."""

SQUARE = 1e-3
"""Relative difference of the two sides of a pixel below which it is taken for square."""


def resize_in_plane(volume: Volume, image_size: int) -> Volume:
    """Slices with zeros around them to a square, of ``image_size`` pixels that are square in mm.

    Pixels are averages over the area that they cover, or interpolated between where they are smaller than those of the
    volume. The affine follows, so every voxel keeps its place in the world. A ``volume`` of the right size comes back
    as it is.
    """
    check_kinds(resize_in_plane, locals())
    _, rows, columns = volume.data.shape
    _, height, width = volume.spacing
    if rows == columns == image_size and has_square_pixels(volume):
        return volume
    pixel = max(rows * height, columns * width) / image_size
    return _in_plane(volume, (image_size, image_size), (pixel / height, pixel / width))


def square_in_plane(volume: Volume) -> Volume:
    """Slices at their own resolution, of square pixels, with zeros around them to a square whose sides are a multiple
    of 16. Nothing is interpolated where pixels are square already."""
    volume = square_pixels(volume)
    _, rows, columns = volume.data.shape
    side = math.ceil(max(rows, columns) / MULTIPLE) * MULTIPLE
    top, left = (side - rows) // 2, (side - columns) // 2
    if rows == columns == side:
        return volume
    data = F.pad(volume.data, (left, side - columns - left, top, side - rows - top))
    affine = volume.affine.copy()
    affine[:3, 3] -= left * affine[:3, 0] + top * affine[:3, 1]
    return replace(volume, data=data, affine=affine)


def square_pixels(volume: Volume) -> Volume:
    """Pixels made square in mm by interpolation along their longer side."""
    if has_square_pixels(volume):
        return volume
    _, rows, columns = volume.data.shape
    _, height, width = volume.spacing
    pixel = min(height, width)
    rows, columns = math.ceil(rows * height / pixel - SQUARE), math.ceil(columns * width / pixel - SQUARE)
    return _in_plane(volume, (rows, columns), (pixel / height, pixel / width))


def has_square_pixels(volume: Volume) -> bool:
    """Whether the two sides of a pixel are equally long."""
    _, height, width = volume.spacing
    return abs(height - width) <= SQUARE * max(height, width)


def on_own_grid(volume: Volume) -> tuple[Tensor, np.ndarray]:
    """The volume on its ``grid``: an array ``(i, j, k)`` in the order of its file, and its affine.

    What was only padded, turned or cut comes back bit by bit. Coarser voxels are averages over what they cover, finer
    ones are interpolated between; what the volume does not cover is 0. Axes that are not those of the volume (a sheared
    stack written on a straight grid) are interpolated between in three dimensions.
    """
    data = volume.data.permute(2, 1, 0)
    grid = volume.grid
    if grid is None:
        return data, volume.affine
    to_volume = np.linalg.inv(volume.affine) @ grid.affine
    order = _order(to_volume)
    if order is None:
        return _interpolated(data, grid.shape, to_volume), grid.affine
    data = data.permute(*order)
    for axis, (source, count) in enumerate(zip(order, grid.shape, strict=True)):
        step, first = float(to_volume[source, axis]), float(to_volume[source, 3])
        if step < 0:
            data, step, first = data.flip(axis), -step, data.shape[axis] - 1 - first
        data = _along(data, axis, count, round(step, 7), round(first + 0.5 - 0.5 * step, 5))
    return data, grid.affine


def cut_slices(volume: Volume, start: int, stop: int) -> Volume:
    """The slices from ``start`` to before ``stop``, and the part of the file's grid that they are."""
    affine = volume.affine.copy()
    affine[:3, 3] += start * affine[:3, 2]
    grid = volume.grid
    if grid is not None:
        to_volume = np.linalg.inv(volume.affine) @ grid.affine
        axis = int(np.abs(to_volume[2, :3]).argmax())  # of the file, along which slices follow each other
        shape, corner = list(grid.shape), np.zeros(4)
        corner[3], corner[axis] = 1.0, start if to_volume[2, axis] > 0 else shape[axis] - stop
        shape[axis] = stop - start
        own = grid.affine.copy()
        own[:, 3] = grid.affine @ corner
        grid = replace(grid, shape=(shape[0], shape[1], shape[2]), affine=own)
    return replace(volume, data=volume.data[start:stop], affine=affine, grid=grid)


def _in_plane(volume: Volume, shape: tuple[int, int], steps: tuple[float, float]) -> Volume:
    """Slices of ``shape`` about the same centre, whose pixels are ``steps`` of the present ones long."""
    data, affine = volume.data, volume.affine.copy()
    for axis, count, step, column in ((1, shape[0], steps[0], 1), (2, shape[1], steps[1], 0)):
        start = (data.shape[axis] - count * step) / 2
        data = _along(data, axis, count, step, start)
        affine[:3, 3] += (start + 0.5 * step - 0.5) * volume.affine[:3, column]
        affine[:3, column] *= step
    return replace(volume, data=data, affine=affine)


def _along(data: Tensor, axis: int, count: int, step: float, start: float) -> Tensor:
    """``count`` pixels along an axis, each ``step`` present ones long; the first begins at the edge ``start``."""
    size = data.shape[axis]
    if step == 1 and start == round(start):  # padded or cut
        first, last = max(0, int(start)), min(size, int(start) + count)
        kept = data.narrow(axis, first, max(0, last - first))
        before = first - int(start)
        pads = [0] * (2 * (data.ndim - 1 - axis)) + [before, count - before - kept.shape[axis]]
        return F.pad(kept, pads)
    weights = _weights(size, count, step, start).to(data)
    return torch.movedim(torch.movedim(data, axis, -1) @ weights.T, -1, axis)


def _weights(size: int, count: int, step: float, start: float) -> Tensor:
    """The matrix ``(count, size)`` of ``_along``: mean over the length of a longer pixel, linear between the centres of
    shorter ones."""
    edges = start + step * torch.arange(count + 1, dtype=torch.float64)
    pixels = torch.arange(size, dtype=torch.float64)
    if step > 1:
        left = torch.maximum(edges[:-1, None], pixels)
        right = torch.minimum(edges[1:, None], pixels + 1)
        return (right - left).clamp_min(0) / step
    centres = (edges[:-1] + edges[1:]) / 2 - 0.5
    inside = (centres >= -0.5) & (centres <= size - 0.5)
    distance = (centres.clamp(0, size - 1)[:, None] - pixels).abs()
    return (1 - distance).clamp_min(0) * inside[:, None]


def _order(to_volume: np.ndarray) -> tuple[int, int, int] | None:
    """Which axis of the volume each axis of a grid runs along; None if they are not parallel."""
    directions = to_volume[:3, :3]
    order = np.abs(directions).argmax(0)
    rest = directions.copy()
    rest[order, [0, 1, 2]] = 0
    if len(set(order.tolist())) < 3 or np.abs(rest).max() > 1e-3 * np.abs(directions).max():
        return None
    return int(order[0]), int(order[1]), int(order[2])


def _interpolated(data: Tensor, shape: tuple[int, int, int], to_volume: np.ndarray) -> Tensor:
    """Trilinear values of ``data`` ``(x, y, z)`` at the indices of a grid, 0 outside; a slice of the grid at a time."""
    data = data.to("cpu", torch.float32).contiguous()
    last = torch.tensor(data.shape, dtype=torch.float64) - 1
    matrix = torch.from_numpy(to_volume[:3])
    i, j = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape[:2]), indexing="ij")
    slices = []
    for k in range(shape[2]):
        index = torch.stack((i, j, torch.full_like(i, k), torch.ones_like(i)), -1) @ matrix.T
        place = (2 * index / last.clamp_min(1) - 1).flip(-1).float()  # grid_sample counts the last axis first
        sampled = F.grid_sample(data[None, None], place[None, :, :, None], mode="bilinear", align_corners=True)
        slices.append(sampled[0, 0, :, :, 0])
    return torch.stack(slices, -1)
