"""Slices made square and written back where they came from."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.volumes.grid import Grid
from lightning_mbir.data.volumes.resample import (
    cut_slices,
    has_square_pixels,
    on_own_grid,
    resize_in_plane,
    square_in_plane,
)
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.data.volumes.writing import write_volume

ORDERS = ["".join(axes) for pick in itertools.product("RL", "AP", "SI") for axes in itertools.permutations(pick)]


def place(affine: np.ndarray, index: np.ndarray) -> np.ndarray:
    """World coordinates of ``(..., 3)`` indices."""
    return index @ affine[:3, :3].T + affine[:3, 3]


def linear(shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    """A function of the place, so that every voxel can be checked: ``(i, j, k)``."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1)
    world = place(affine, index)
    return (2 * world[..., 0] - 3 * world[..., 1] + 4 * world[..., 2] + 500).astype(np.float32)


def of_grid(grid: Grid) -> Volume:
    """What lies on a grid whose axes are x, y and z."""
    data = torch.from_numpy(linear(grid.shape, grid.affine).transpose(2, 1, 0).copy())
    return Volume(data, grid.affine, "v", "mri", grid=grid)


@pytest.mark.parametrize("order", ORDERS)
def test_a_file_comes_back_as_it_was_in_any_order_of_its_axes(order: str, tmp_path: Path) -> None:
    turn = np.deg2rad(12)
    oblique = np.array([[np.cos(turn), -np.sin(turn), 0, 5], [np.sin(turn), np.cos(turn), 0, -7], [0, 0, 1, 3]])
    affine = np.vstack([oblique, [0, 0, 0, 1.0]]) @ np.diag([1.5, 1.5, 2.5, 1.0])
    array = np.random.default_rng(0).random((10, 13, 6), dtype=np.float32)
    wanted = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(order))
    turned = nib.orientations.apply_orientation(array, wanted)
    own = affine @ inv_ornt_aff(wanted, array.shape)
    nib.save(nib.Nifti1Image(turned, own), tmp_path / "v.nii.gz")

    volume = VolumeDataModule(tmp_path / "v.nii.gz", modality="mri", slices="1:5").scan(0)
    assert isinstance(volume, Volume) and tuple(volume.data.shape) == (4, 16, 16)
    write_volume(tmp_path / "out.nii.gz", volume)

    out = nib.load(tmp_path / "out.nii.gz")
    axis = next(i for i, letter in enumerate(order) if letter in "SI")
    start = 1  # 6 slices, of which 1:5 lie in the middle, counted from either end
    cut = [slice(None)] * 3
    cut[axis] = slice(start, start + 4)
    assert np.array_equal(np.asanyarray(out.dataobj), turned[tuple(cut)])
    corner = np.zeros(3)
    corner[axis] = start
    np.testing.assert_allclose(out.affine[:3, :3], own[:3, :3], atol=1e-6)
    np.testing.assert_allclose(out.affine[:3, 3], place(own, corner), atol=1e-4)
    np.testing.assert_allclose(out.get_qform(), out.get_sform(), atol=1e-4)


@pytest.mark.parametrize(("size", "pixel"), [(12, 4.0), (24, 2.0), (96, 0.5)])
def test_a_linear_function_keeps_its_values_at_every_place(size: int, pixel: float) -> None:
    grid = Grid((24, 24, 5), np.diag([2.0, 2.0, 3.0, 1.0]))
    volume = resize_in_plane(of_grid(grid), size)
    assert tuple(volume.data.shape) == (5, size, size)
    np.testing.assert_allclose(volume.spacing, (3.0, pixel, pixel))
    right = linear((size, size, 5), volume.affine).transpose(2, 1, 0)
    inner = (slice(None), slice(size // 12 + 1, -size // 12 - 1), slice(size // 12 + 1, -size // 12 - 1))
    np.testing.assert_allclose(volume.data.numpy()[inner], right[inner], atol=2e-3)

    back, affine = on_own_grid(volume)
    assert back.shape == (24, 24, 5) and np.array_equal(affine, grid.affine)
    np.testing.assert_allclose(back[4:-4, 4:-4], linear(grid.shape, grid.affine)[4:-4, 4:-4], atol=2e-3)


def test_averages_over_areas_keep_the_sum() -> None:
    data = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0))
    for size in (10, 7, 16):
        small = resize_in_plane(Volume(data, np.eye(4), "v", "mri"), size)
        area = small.spacing[1] * small.spacing[2]
        torch.testing.assert_close(small.data.sum() * area, data.sum(), rtol=1e-5, atol=0)
    pairs = data.reshape(3, 10, 2, 10, 2).mean((2, 4))
    torch.testing.assert_close(resize_in_plane(Volume(data, np.eye(4), "v", "mri"), 10).data, pairs)


@pytest.mark.parametrize("spacing", [(4.0, 1.0), (1.0, 4.0), (0.9, 0.86), (1.0, 1.0)])
def test_pixels_become_square_and_come_back(spacing: tuple[float, float]) -> None:
    x, y = spacing
    grid = Grid((round(64 / x), round(48 / y), 4), np.diag([x, y, 3.0, 1.0]))
    volume = square_in_plane(of_grid(grid))
    _, rows, columns = volume.data.shape
    assert rows == columns and rows % 16 == 0 and has_square_pixels(volume)
    np.testing.assert_allclose(volume.spacing[1:], (min(x, y), min(x, y)))
    right = linear((columns, rows, 4), volume.affine).transpose(2, 1, 0)
    index = np.stack(np.meshgrid(np.arange(columns), np.arange(rows), np.arange(4), indexing="ij"), -1)
    own = place(np.linalg.inv(grid.affine) @ volume.affine, index)
    between = (own > -1e-6).all(-1) & (own < np.array(grid.shape) - 1 + 1e-6).all(-1)
    inside = between.transpose(2, 1, 0)
    assert inside.mean() > 0.3
    np.testing.assert_allclose(volume.data.numpy()[inside], right[inside], atol=5e-3)
    back, _ = on_own_grid(volume)
    whole = linear(grid.shape, grid.affine)
    # Pixels that are no multiple of one another: the mean of what one covers lies up to an eighth of it off its middle.
    slack = 5e-3 if (max(x, y) / min(x, y)).is_integer() else 3 * max(x, y) / 8
    np.testing.assert_allclose(back.numpy()[2:-2, 2:-2], whole[2:-2, 2:-2], atol=slack)


def test_a_sheared_stack_is_interpolated_onto_a_straight_grid() -> None:
    sheared = np.diag([1.5, 1.5, 4.0, 1.0])
    sheared[1, 2] = 1.0  # each slice lies 1 mm further back
    straight = Grid((20, 24, 6), np.diag([1.5, 1.5, 4.0, 1.0]))
    data = torch.from_numpy(linear((20, 20, 6), sheared).transpose(2, 1, 0).copy())
    found, affine = on_own_grid(Volume(data, sheared, "v", "mri", grid=straight))
    assert found.shape == (20, 24, 6) and np.array_equal(affine, straight.affine)
    right = linear(straight.shape, straight.affine)
    for k in range(6):
        first, last = int(np.ceil(k / 1.5)), 19 + int(np.floor(k / 1.5))
        np.testing.assert_allclose(found[:, first : last + 1, k], right[:, first : last + 1, k], atol=5e-3)
        assert not found[:, last + 2 :, k].any()  # what was not measured


def test_slices_that_are_cut_keep_their_place_in_a_file_that_counts_from_the_head() -> None:
    flipped = np.diag([1.0, 1.0, -3.0, 1.0])
    grid = Grid((16, 16, 8), flipped)
    ras = np.diag([1.0, 1.0, 3.0, 1.0])
    ras[2, 3] = -21.0
    volume = Volume(torch.from_numpy(linear((16, 16, 8), ras).transpose(2, 1, 0).copy()), ras, "v", "mri", grid=grid)
    part = cut_slices(volume, 5, 7)
    array, affine = on_own_grid(part)
    assert array.shape == (16, 16, 2)
    np.testing.assert_allclose(array.numpy(), linear((16, 16, 2), affine), atol=1e-3)
