"""Raw k-space, of fastMRI's layout and of arrays whose dimensions the user names."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_mbir.errors import InputError

AXES = ("slice", "coil", "y", "x")
HEADER = "ismrmrd_header"


def read_kspace(
    path: Path, content: Mapping[str, np.ndarray], axes: str | None = None
) -> tuple[Tensor, Tensor, tuple[float, float, float], tuple[str, ...]]:
    """The dataset ``kspace``, zero frequency in the middle.

    In fastMRI's files (Zbontar et al. 2018, recognised by ``ismrmrd_header``) it is ``(slice, coil, y, x)``, or
    ``(slice, y, x)`` of one coil, with the readout along y and the phase encoding along x. The readout is measured at
    twice the field of view, which is cut to that of the header. Elsewhere three dimensions have to be named.

    Args:
        path: the file, for messages.
        content: its datasets.
        axes: names of the dimensions, such as ``coil y x``.

    Returns:
        ``(Z, Y, X)`` or ``(Z, coils, Y, X)``, the mask ``(Y, X)`` of what was measured (that of the file, or where any
        value is not zero), the voxel size ``(z, y, x)`` in mm (1 where the file does not tell), and notes.

    Raises:
        InputError: dimensions that are not clear, values that are no numbers, k-space that is zero.
    """
    array = content["kspace"]
    fastmri = HEADER in content
    if axes is None:
        if array.ndim == 3 and not fastmri:
            raise InputError(
                f"{path}: kspace is {array.shape}; say what that is with --data.axes 'coil y x' or 'slice y x'"
            )
        axes = "slice coil y x" if array.ndim == 4 else "slice y x" if array.ndim == 3 else "y x"
    y = kspace_axes(path, array, axes)
    if not bool(torch.isfinite(torch.view_as_real(y)).all()):
        raise InputError(f"{path}: kspace has NaN or infinite values; correct them first")
    measured = (y != 0).flatten(0, -3).any(0)
    if not bool(measured.any()):
        raise InputError(f"{path}: kspace is zero everywhere; nothing was measured")
    rows, columns = measured.shape
    mask = measured
    if "mask" in content:
        given = np.asarray(content["mask"])
        if given.shape not in ((rows, columns), (columns,)):
            raise InputError(f"{path}: the mask is {given.shape}, k-space {(rows, columns)}; give (Y, X) or (X,)")
        mask = torch.from_numpy(np.array(np.broadcast_to(given, (rows, columns)))) != 0
        y = y * mask  # what the file does not call measured must not count as such
    sampled = "fully sampled" if bool(mask.all()) else f"{mask.numel() / int(mask.sum()):.3g}-fold undersampled"
    spacing, notes = (1.0, 1.0, 1.0), [sampled]
    if fastmri:
        wanted, spacing = _header(path, content[HEADER], columns)
        if wanted < rows and bool((mask == mask[:1]).all()):
            y, mask = crop_readout(y, wanted), mask[:wanted]
            notes.append(f"readout cut from {rows} to {wanted} pixels")
    return y, mask.float(), spacing, tuple(notes)


def kspace_axes(path: Path, array: np.ndarray, axes: str) -> Tensor:
    """An array with named dimensions as ``(Z, Y, X)`` or, where there is one of coils, ``(Z, coils, Y, X)``."""
    names = axes.split()
    if len(set(names)) != len(names) or not {"y", "x"} <= set(names) or not set(names) <= set(AXES):
        raise InputError(f"--data.axes '{axes}': give y and x, with slice and coil where there are any, each once")
    if len(names) != array.ndim:
        raise InputError(f"--data.axes '{axes}': {path} has k-space of {array.ndim} dimensions, {array.shape}")
    order = [names.index(name) for name in AXES if name in names]
    ordered = array.transpose(order)
    if "slice" not in names:
        ordered = ordered[None]
    return torch.from_numpy(np.ascontiguousarray(ordered, dtype=np.complex64))


def crop_readout(kspace: Tensor, rows: int) -> Tensor:
    """K-space of the middle ``rows`` of the image; exact, since every row of k-space was measured."""
    shifted = torch.fft.ifftshift(kspace, -2)
    image = torch.fft.fftshift(torch.fft.ifft(shifted, dim=-2, norm="ortho"), -2)
    start = image.shape[-2] // 2 - rows // 2
    image = torch.fft.ifftshift(image[..., start : start + rows, :], -2)
    return torch.fft.fftshift(torch.fft.fft(image, dim=-2, norm="ortho"), -2)


def _header(path: Path, header: np.ndarray, columns: int) -> tuple[int, tuple[float, float, float]]:
    """Rows of the reconstructed image, and the voxel size ``(z, y, x)`` in mm, of an ISMRMRD header."""
    text = header.item()
    try:
        root = ElementTree.fromstring(text.decode() if isinstance(text, bytes) else text)
        encoding = root.find("{*}encoding")
        assert encoding is not None
        values = {
            f"{space}/{quantity}/{axis}": float(encoding.findtext(f"{{*}}{space}/{{*}}{quantity}/{{*}}{axis}") or "")
            for space in ("encodedSpace", "reconSpace")
            for quantity in ("matrixSize", "fieldOfView_mm")
            for axis in ("x", "y", "z")
        }
    except (ElementTree.ParseError, ValueError, AssertionError) as error:
        raise InputError(f"{path}: {HEADER} cannot be read ({error or 'no encoding'})") from error
    # What ISMRMRD calls x, the readout, are the rows of fastMRI's image.
    rows = round(values["reconSpace/matrixSize/x"])
    y = values["reconSpace/fieldOfView_mm/x"] / values["reconSpace/matrixSize/x"]
    x = values["encodedSpace/fieldOfView_mm/y"] / columns
    return rows, (values["reconSpace/fieldOfView_mm/z"], y, x)
