"""What Cartesian k-space was measured by: lines, or points where a mask has no lines."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lightning_mbir.physics.operator import Parts

AXES = (-2, -1)
CALIBRATION = 24
"""Lines in the middle that are needed at most: what coil maps are estimated from."""


def mask_parts(mask: Float[Tensor, "*slices y x"]) -> tuple[Parts, Int[Tensor, "y x"]]:
    """The parts of a mask, by their distance from the centre of k-space, and the number of the part of each point.

    Columns, where all rows sample the same ones; rows likewise; else points. Of a mask that has both, such as a full
    one, it is the direction that is sampled less, or else the columns. The contiguous centre is needed.

    Args:
        mask: zeros and ones, ``(Y, X)``, or of slices that have their own: a part is left out of all of them.

    Returns:
        the parts, and numbers ``(Y, X)``, -1 where nothing is sampled.
    """
    union = mask.flatten(0, -3).any(0) if mask.ndim > 2 else mask > 0
    rows, columns = union.any(1), union.any(0)
    numbers = torch.full(union.shape, -1, dtype=torch.int64, device=mask.device)
    if bool((union == rows[:, None] & columns).all()):
        along = int(float(rows.float().mean()) >= float(columns.float().mean()))
        lines = columns if along else rows
        sampled = torch.nonzero(lines).flatten()
        number = torch.full(lines.shape, -1, dtype=torch.int64, device=mask.device)
        number[sampled] = torch.arange(len(sampled), device=mask.device)
        numbers = torch.where(union, number if along else number[:, None], -1)
        distance = (sampled - len(lines) // 2).cpu()
        needed = distance.abs() < _reach(lines.cpu())
        return Parts(distance.abs().double(), needed, "lines of k-space"), numbers
    numbers[union] = torch.arange(int(union.sum()), device=mask.device)
    y, x = torch.nonzero(union, as_tuple=True)
    offsets = torch.stack((y - union.shape[0] // 2, x - union.shape[1] // 2)).cpu()
    reach = _square(union.cpu())
    needed = (offsets.abs() < reach).all(0)
    return Parts(offsets.double().square().sum(0).sqrt(), needed, "points of k-space"), numbers


def only(mask: Float[Tensor, "*slices y x"], chosen: Int[Tensor, " n"]) -> Float[Tensor, "*slices y x"]:
    """A mask of nothing but the parts of these numbers."""
    _, numbers = mask_parts(mask)
    return mask * torch.isin(numbers, chosen.to(mask.device))


def transformed_axes(mask: Float[Tensor, "*slices y x"]) -> tuple[int, ...]:
    """The axes along which ``A^H A`` needs transforms: where whole columns are sampled, k-space is complete along y, so
    that the transform and its inverse cancel. Of whole rows it is both: transforms of columns alone are no faster."""
    return AXES[1:] if bool((mask == mask[..., :1, :]).all()) else AXES


def _reach(lines: Tensor) -> int:
    """How far from the middle all lines are sampled, the middle counted, at most half of ``CALIBRATION``."""
    middle, reach = len(lines) // 2, 0
    while reach < min(CALIBRATION // 2, middle) and bool(lines[middle - reach : middle + reach + 1].all()):
        reach += 1
    return reach


def _square(union: Tensor) -> int:
    """Likewise of the square about the middle."""
    (y, x), reach = (n // 2 for n in union.shape), 0
    most = min(CALIBRATION // 2, y, x)
    while reach < most and bool(union[y - reach : y + reach + 1, x - reach : x + reach + 1].all()):
        reach += 1
    return reach
