"""Raw k-space, of fastMRI's layout and of arrays whose dimensions the user names."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_mbir.data.measurements.content import Content
from lightning_mbir.data.measurements.ismrmrd import HEADER, Encoding, read_encoding
from lightning_mbir.data.measurements.item import PART, Item
from lightning_mbir.data.measurements.sampling import masked, measured_points, read_mask
from lightning_mbir.data.measurements.selection import chosen_slices
from lightning_mbir.errors import InputError
from lightning_mbir.free_memory import check_fits

AXES = ("slice", "coil", "y", "x")
PARTS_OF_COMPLEX = (("real", "imag"), ("r", "i"), ("re", "im"))
"""Names of the members of compounds that stand for complex numbers."""


class KSpace(NamedTuple):
    """Raw k-space as it was read.

    Attributes:
        y: ``(Z, Y, X)`` or ``(Z, coils, Y, X)``, complex64, zero where nothing was measured.
        mask: ``(Y, X)``, or ``(Z, Y, X)`` where slices differ, of zeros and ones.
        spacing: voxel size ``(z, y, x)`` in mm, 1 where the file does not tell.
        first: number of the first slice in the file.
        notes: what was done to it.
        question: what the file leaves open.
        sized: whether the file tells the spacing.
    """

    y: Tensor
    mask: Tensor
    spacing: tuple[float, float, float]
    first: int
    notes: tuple[str, ...]
    question: str = ""
    sized: bool = False


def read_kspace(content: Content, axes: str | None = None, slices: tuple[int, int] | None = None) -> KSpace:
    """The dataset ``kspace``, zero frequency in the middle.

    In fastMRI's files (Zbontar et al. 2018, recognised by ``ismrmrd_header``) it is ``(slice, coil, y, x)``, or
    ``(slice, y, x)`` of one coil, with the readout along y and the phase encoding along x. The readout is measured at
    twice the field of view, which is cut to that of the header. Elsewhere three dimensions have to be named, and four
    before anything is reconstructed.

    Args:
        content: of the file.
        axes: names of the dimensions, such as ``coil y x``.
        slices: which ones, from the first to before the last; all by default, and no others are read.

    Raises:
        InputError: dimensions that are not clear, values that are no complex numbers, k-space or slices of it that are
            zero, a mask that does not fit, a header that cannot be read or is of another array.
    """
    path, item = content.path, content["kspace"]
    fastmri, question = HEADER in content, ""
    if axes is None:
        if item.ndim not in (2, 3, 4):
            raise InputError(f"{path}: kspace is {item.shape}; give two to four dimensions, of slice, coil, y and x")
        axes = ("y x", "slice y x", "slice coil y x")[item.ndim - 2]
        if item.ndim == 3 and not fastmri:
            raise InputError(
                f"{path}: kspace is {item.shape}; say what that is with --data.axes 'coil y x' or 'slice y x'"
            )
        if item.ndim == 4 and not fastmri:
            question = (
                f"{path}: kspace is {item.shape}; say what that is with --data.axes 'slice coil y x' or another order"
            )
    y, chosen, notes = read_complex(item, axes, slices)
    if "mask" in content:
        mask = read_mask(content["mask"], count_slices(item, axes), chosen, y.shape[-2:])
        mask, more = masked(path, y, mask)
        notes = (*notes, *more)
    else:
        mask = measured_points(path, y, chosen.start)
    notes = (*notes, told_sampling(mask))
    spacing = (1.0, 1.0, 1.0)
    if fastmri:
        encoding = read_encoding(content[HEADER])
        y, mask, more = _cut(path, y, mask, encoding)
        spacing = (
            encoding.thickness,
            encoding.field_of_view[0] / encoding.rows,
            encoding.field_of_view[1] / mask.shape[-1],
        )
        notes = (*notes, *more)
        if count_slices(item, axes) > 1:
            notes = (*notes, f"slices taken to be {spacing[0]:.4g} mm apart, their thickness: no gap is told")
    return KSpace(y, mask.float(), spacing, chosen.start, notes, question, fastmri)


def read_array(item: Item, axes: str, slices: tuple[int, int] | None = None) -> KSpace:
    """K-space of an array whose dimensions are known, and what was measured of it: what is not zero.

    Args:
        item: the array, zero frequency in the middle.
        axes: names of its dimensions.
        slices: which ones, from the first to before the last; all by default, and no others are read.

    Raises:
        InputError: see ``read_complex``; k-space or slices of it that are zero.
    """
    y, chosen, notes = read_complex(item, axes, slices)
    mask = measured_points(item.path, y, chosen.start)
    return KSpace(y, mask.float(), (1.0, 1.0, 1.0), chosen.start, (*notes, told_sampling(mask)))


def told_sampling(mask: Tensor) -> str:
    """How much of k-space was measured, for the log."""
    points, sampled = mask.numel(), int(mask.sum())
    by_slice = ", each slice in its own way" if mask.ndim == 3 else ""
    return "fully sampled" if points == sampled else f"{points / sampled:.3g}-fold undersampled{by_slice}"


def read_complex(item: Item, axes: str, slices: tuple[int, int] | None) -> tuple[Tensor, slice, tuple[str, ...]]:
    """An array with named dimensions as ``(Z, Y, X)`` or, where there is one of coils, ``(Z, coils, Y, X)``.

    Returns:
        complex64 values, the slices that they are, and notes.

    Raises:
        InputError: names that do not fit, values that are not complex, not finite or none at all, too little memory.
    """
    names = _names(item, axes)
    members = _members(item)
    chosen, notes = chosen_slices(item.path, slices, count_slices(item, axes))
    sizes = dict(zip(names, item.shape, strict=True)) | {"slice": chosen.stop - chosen.start}
    shape = [sizes[name] for name in AXES if name in sizes]
    if 0 in shape:
        raise InputError(f"{item.path}: {item.name} is {item.shape}; there are no values in it")
    size = 8 * math.prod(shape) + 4 * PART * item.dtype.itemsize
    check_fits(f"{item.path}: {item.name}", size, "take fewer slices (--data.slices)")
    out = np.empty(shape, dtype=np.complex64)
    there = [name for name in AXES if name in sizes]
    stored = out.transpose([there.index(name) for name in names] + ([0] if "slice" not in names else []))
    if "slice" not in names:
        stored = stored[..., 0]
    with np.errstate(over="ignore"):  # becomes infinite, and is found as such
        for place, values in item.parts(*(chosen if name == "slice" else slice(None) for name in names)):
            if members:
                stored[place].real, stored[place].imag = values[members[0]], values[members[1]]
            else:
                stored[place] = values
            if not np.isfinite(stored[place]).all():
                raise InputError(
                    f"{item.path}: {item.name} has NaN or infinite values (or beyond 3e38); correct them first"
                )
    return torch.from_numpy(out), chosen, notes


def count_slices(item: Item, axes: str) -> int:
    """How many slices an array with named dimensions has, 1 without a dimension of them."""
    names = _names(item, axes)
    return item.shape[names.index("slice")] if "slice" in names else 1


def _names(item: Item, axes: str) -> list[str]:
    names = axes.split()
    if len(set(names)) != len(names) or not {"y", "x"} <= set(names) or not set(names) <= set(AXES):
        raise InputError(f"--data.axes '{axes}': give y and x, with slice and coil where there are any, each once")
    if len(names) != item.ndim:
        raise InputError(f"--data.axes '{axes}': {item.path} has k-space of {item.ndim} dimensions, {item.shape}")
    return names


def _members(item: Item) -> tuple[str, ...]:
    """Members of a compound for the real and imaginary part; none where numbers are complex."""
    if item.dtype.names is not None:
        for pair in PARTS_OF_COMPLEX:
            if tuple(name.lower() for name in item.dtype.names) == pair and all(
                item.dtype[name].kind in "fiu" and not item.dtype[name].shape for name in item.dtype.names
            ):
                return item.dtype.names
        raise InputError(
            f"{item.path}: {item.name} is a compound of {', '.join(item.dtype.names)}; give real and imag, or complex "
            "values"
        )
    if item.dtype.kind == "c":
        return ()
    pairs = ""
    if item.ndim and item.shape[-1] == 2:
        pairs = "; where the last axis is real and imaginary part, store its [..., 0] + 1j * [..., 1]"
    raise InputError(
        f"{item.path}: {item.name} is {item.shape} of {item.dtype}, without an imaginary part; k-space is complex: "
        f"give complex64, or a compound of real and imag{pairs}"
    )


def _cut(path: Path, y: Tensor, mask: Tensor, encoding: Encoding) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """K-space of the rows that the header reconstructs, whatever it interpolates them to."""
    rows, columns = mask.shape[-2:]
    if rows != encoding.rows:
        raise InputError(
            f"{path}: {HEADER} says {encoding.rows} points along the readout, kspace has {rows} rows, so its "
            "field of view is not known: correct the header, or delete it and give --data.axes"
        )
    notes: tuple[str, ...] = ()
    if columns != encoding.columns:
        notes = (f"header of {encoding.columns} columns, kspace of {columns} over the same field of view",)
    wanted = round(rows * encoding.kept_rows / encoding.field_of_view[0])
    if not 0 < wanted < rows:
        return y, mask, notes
    if not bool((mask == mask[..., :1, :]).all()):
        return y, mask, (*notes, "readout not cut to the field of view, since parts of readouts were not measured")
    y = torch.stack([crop_readout(one, wanted) for one in y])  # a copy of one slice at a time
    return y, mask[..., :wanted, :], (*notes, f"readout cut from {rows} to {wanted} pixels")


def crop_readout(kspace: Tensor, rows: int) -> Tensor:
    """K-space of the middle ``rows`` of the image; exact, since every row of k-space was measured."""
    shifted = torch.fft.ifftshift(kspace, -2)
    image = torch.fft.fftshift(torch.fft.ifft(shifted, dim=-2, norm="ortho"), -2)
    start = image.shape[-2] // 2 - rows // 2
    image = torch.fft.ifftshift(image[..., start : start + rows, :], -2)
    return torch.fft.fftshift(torch.fft.fft(image, dim=-2, norm="ortho"), -2)
