"""NumPy arrays, which do not tell their voxel size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lightning_mbir.data.measurements.content import Content, open_content
from lightning_mbir.data.measurements.item import DAMAGED
from lightning_mbir.data.units import Modality
from lightning_mbir.data.volumes.image import Image
from lightning_mbir.data.volumes.stream import trailing
from lightning_mbir.data.volumes.values import as_float32, check_room, check_type, flat_parts, three_axes
from lightning_mbir.errors import InputError

EXAMPLE = "--data.spacing 3,0.8,0.8 (z, y, x)"
KEYS = ("volume", "data")
"""What a volume is called in an archive."""
ORDER = "axes are taken as slices from foot to head, rows from front to back, columns from right to left"


def read_array(path: Path, modality: Modality, spacing: tuple[float, float, float] | None) -> Image:
    """Read an array ``(Z, Y, X)``, or that of an archive.

    It lies as DICOM does: slices from foot to head, rows from anterior to posterior, columns from right to left. An
    archive may have its ``spacing`` ``(z, y, x)`` in mm, or an ``affine`` ``(4, 4)`` from indices ``(x, y, z)`` to RAS
    millimetres.

    Args:
        path: ``.npy``, or ``.npz`` with the array ``volume`` or ``data``.
        modality: of the volume.
        spacing: ``(z, y, x)`` in mm, of an array that does not have it beside it.

    Raises:
        InputError: another file, no voxel size or two of them, no three axes, or no numbers.
    """
    if path.name.lower().endswith(".npz"):
        with open_content(path) as content:
            name = next((key for key in KEYS if key in content), None)
            if name is None:
                measured = any(key in content for key in ("measurement", "kspace"))
                instead = "give it as --data.measurement" if measured else "save the volume as 'volume'"
                raise InputError(f"{path}: holds no array 'volume' or 'data'; {instead}")
            item = content[name]
            notes, shape = check_type(path, item.dtype, modality), _shape(path, item.shape)
            affine, placed = _affine(path, content, spacing)
            array = item.read()
    else:
        array, extra = _mapped(path)
        notes, shape = check_type(path, array.dtype, modality), _shape(path, array.shape)
        if spacing is None:
            raise InputError(f"{path}: an array does not tell its voxel size; give it in mm, such as {EXAMPLE}")
        affine, placed = _scaled(spacing)
        notes += trailing(path, extra)
    flat, rounded = as_float32(path, flat_parts(array), array.size)
    return Image(flat.reshape(shape).transpose(2, 1, 0), affine, (*placed, *notes, *rounded))


def _mapped(path: Path) -> tuple[np.ndarray, int]:
    """The array of a file, of which nothing is read yet, and the bytes that follow it."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except DAMAGED as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a whole .npy file with numbers ({reason}); save it by numpy.save") from error
    return array, path.stat().st_size - array.offset - array.nbytes


def _shape(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """``(Z, Y, X)``; axes of length 1 before and behind them are left out."""
    while len(shape) > 3 and shape[0] == 1:
        shape = shape[1:]
    three = three_axes(path, shape)
    check_room(path, three)
    return three


def _scaled(spacing: Sequence[float]) -> tuple[np.ndarray, tuple[str, ...]]:
    z, y, x = spacing
    return np.diag([-x, -y, z, 1.0]), (ORDER,)


def _affine(
    path: Path, content: Content, spacing: tuple[float, float, float] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Where the volume of an archive lies: by its ``affine``, else by its spacing, else by the one that is given."""
    sizes = _numbers(path, content, "spacing", (3,))
    affine = _numbers(path, content, "affine", (4, 4))
    if sizes is not None and not (sizes > 0).all():
        raise InputError(f"{path}: its spacing {sizes.tolist()} is not positive; give mm, (z, y, x)")
    if spacing is not None and (sizes is not None or affine is not None):
        raise InputError(f"--data.spacing: {path} has its own voxel size; leave it out")
    if affine is not None:
        own = np.linalg.norm(affine[:3, :3], axis=0)[::-1]
        if (affine[3] != [0, 0, 0, 1]).any() or (sizes is not None and not np.allclose(own, sizes, rtol=0.01, atol=0)):
            raise InputError(
                f"{path}: its affine contradicts its spacing, or does not end with 0 0 0 1; give one of them"
            )
        return affine, ()
    own_or_given = spacing if sizes is None else [float(size) for size in sizes]
    if own_or_given is None:
        raise InputError(f"{path}: has no array 'spacing'; add it, or give it in mm, such as {EXAMPLE}")
    return _scaled(own_or_given)


def _numbers(path: Path, content: Content, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    if name not in content:
        return None
    item = content[name]
    if item.shape != shape or item.dtype.kind not in "iuf":
        raise InputError(f"{path}: its {name} is of shape {item.shape} and type {item.dtype}; give numbers of {shape}")
    values = np.asarray(item.read(), np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"{path}: its {name} has NaN or infinite values; give finite ones")
    return values
