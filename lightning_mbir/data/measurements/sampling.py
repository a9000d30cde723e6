"""Which points of k-space were measured, in all slices or slice by slice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lightning_mbir.data.measurements.item import Item
from lightning_mbir.errors import InputError

BY_CHANCE = 0.01
"""Share of the points that may be zero in a slice although they were measured."""


def read_mask(item: Item, count: int, chosen: slice, shape: Sequence[int]) -> Tensor:
    """A mask of zeros and ones as it is in a file.

    Args:
        item: ``(Y, X)`` or ``(X,)`` for all slices, ``(Z, Y, X)`` or ``(Z, X)`` slice by slice.
        count: slices of the file, of which those ``chosen`` are wanted.
        shape: ``(Y, X)``.

    Returns:
        ``(Y, X)``, or ``(Z, Y, X)`` where slices differ; bool.

    Raises:
        InputError: another shape, one that may be ``(Y, X)`` or ``(Z, X)``, other values, a slice without any.
    """
    rows, columns = shape
    whole, lines = ((rows, columns), (columns,)), ((count, rows, columns), (count, columns))
    if item.shape not in (*whole, *lines):
        raise InputError(
            f"{item.path}: the mask is {item.shape}, k-space {(rows, columns)}; give (Y, X) or (X,), or (Z, Y, X) or "
            "(Z, X) for masks by slice"
        )
    if item.dtype.kind not in "biuf":
        raise InputError(f"{item.path}: the mask is of type {item.dtype}; give zeros and ones")
    values = torch.from_numpy(item.read().astype(float))
    if not bool(((values == 0) | (values == 1)).all()):
        raise InputError(f"{item.path}: the mask has values other than 0 and 1; give 1 where it was measured")
    mask = values == 1
    if item.shape in whole:
        if rows == count > 1 and mask.ndim == 2 and not bool((mask == mask[:1]).all()):
            raise InputError(f"{item.path}: the mask is {item.shape}, which is (Y, X) or (Z, X); give it as (Z, Y, X)")
        mask = mask.expand(rows, columns)
    else:
        mask = mask[chosen] if mask.ndim == 3 else mask[chosen, None].expand(-1, rows, columns)
        mask = mask[0] if bool((mask == mask[:1]).all()) else mask
    if not bool(mask.flatten(-2).any(-1).all()):
        raise InputError(f"{item.path}: the mask samples nothing{' of a slice' if mask.ndim == 3 else ''}")
    return mask.contiguous()


def masked(path: Path, y: Tensor, mask: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """What of a mask was really measured, and notes; what it leaves out of ``y`` is set to zero, in place.

    Rows and columns that are zero in all coils and slices were not measured, whatever the mask says: taken as data they
    would say that the image has nothing there. An empty slice is left out of this, as it may be air.

    Args:
        path: of the file, for messages.
        y: k-space ``(Z, Y, X)`` or ``(Z, coils, Y, X)``.
        mask: ``(Y, X)``, or ``(Z, Y, X)`` where slices differ; bool.

    Raises:
        InputError: k-space that is zero wherever the mask is not, or a mask that leaves lines out which are not zero
            and counts others in which are.
    """
    there = _there(y)
    there, mask = (there, mask) if mask.ndim == 3 else (there.any(0, keepdim=True), mask[None])
    y *= mask if y.ndim == 3 else mask[:, None]
    seen = there & mask
    if not bool(seen.any()):
        raise InputError(f"{path}: k-space is zero wherever its mask says that it was measured; is the mask inverted?")
    kept = mask & seen.any(-1, keepdim=True) & seen.any(-2, keepdim=True)
    kept = torch.where(seen.flatten(-2).any(-1)[:, None, None], kept, mask)
    if bool((kept == mask).all()):
        return _alike(mask), ()
    empty = max(int((mask.any(axis) & ~kept.any(axis)).sum(-1).max()) for axis in (-1, -2))
    inside = any(bool((_between(kept.any(axis)) & mask.any(axis) & ~kept.any(axis)).any()) for axis in (-1, -2))
    if inside and bool((there & ~mask).any()):
        raise InputError(
            f"{path}: the mask counts lines as measured that are zero (up to {empty} a slice), and leaves out others "
            "that are not; give the mask of this k-space, with zero frequency in the middle"
        )
    return _alike(kept), (f"up to {empty} lines are zero though its mask has them: taken as not measured",)


def _there(y: Tensor) -> Tensor:
    """Where k-space ``(Z, [coils,] Y, X)`` is not zero, ``(Z, Y, X)``; slice by slice, as it may be all that fits."""
    return torch.stack([(one != 0).any(0) for one in y]) if y.ndim == 4 else y != 0


def _alike(mask: Tensor) -> Tensor:
    """One mask where those of all slices are the same."""
    return mask[0] if bool((mask == mask[:1]).all()) else mask


def _between(lines: Tensor) -> Tensor:
    """What lies from the first to the last of lines ``(Z, N)`` that are there."""
    return (lines.cumsum(-1) > 0) & (lines.flip(-1).cumsum(-1).flip(-1) > 0)


def measured_points(path: Path, y: Tensor, first: int) -> Tensor:
    """Where k-space ``(Z, [coils,] Y, X)`` is not zero in any coil, bool.

    Returns:
        ``(Y, X)``, or ``(Z, Y, X)`` where slices lack whole lines of each other, or more than single points.

    Raises:
        InputError: k-space that is zero, or slices of it, counted from ``first``.
    """
    by_slice = _there(y)
    empty = (~by_slice.flatten(1).any(1)).nonzero().flatten().tolist()
    if len(empty) == len(y):
        raise InputError(f"{path}: kspace is zero everywhere; nothing was measured")
    if empty:
        raise InputError(
            f"{path}: kspace is zero in slice {', '.join(str(first + k) for k in empty[:5])}; leave those out "
            "(--data.slices), or give a mask of what was measured"
        )
    any_slice = by_slice.any(0)
    share = by_slice.flatten(1).sum(1) / any_slice.sum()
    same_lines = all(bool((by_slice.any(axis) == any_slice.any(axis - 1)).all()) for axis in (1, 2))
    return any_slice if same_lines and float(share.min()) > 1 - BY_CHANCE else by_slice
