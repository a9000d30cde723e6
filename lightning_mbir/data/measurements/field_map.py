"""How far the main field is off: beside k-space in its file, or a map of its own that is put to where slices lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_mbir.data.measurements.content import Content, open_content
from lightning_mbir.data.measurements.item import Item, told
from lightning_mbir.errors import InputError
from lightning_mbir.free_memory import check_fits

LONGEST_READOUT = 1.0
"""Seconds; a larger time is in ms."""
FAR = 0.01
"""mm that a voxel may be beyond the middles of a map's outer voxels and count as within."""

SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "ms": 1e-3, "millisecond": 1e-3, "us": 1e-6, "microsecond": 1e-6}
"""Units of time that a dataset may say it is in."""


def read_field(content: Content, count: int, chosen: slice, shape: tuple[int, int]) -> dict[str, Tensor]:
    """The datasets ``b0`` and ``times`` of a file, as ``OffResonance`` takes them.

    Args:
        content: of the file: ``b0`` ``(Y, X)`` or ``(Z, Y, X)`` in Hz, ``times`` ``(Y, X)``, or ``(X,)`` where a line
            is taken at once, in seconds from where the phase of the image counts.
        count: slices of the file, of which those ``chosen`` are wanted.
        shape: ``(Y, X)``.

    Returns:
        ``b0`` and ``times``.

    Raises:
        InputError: one without the other, other shapes or types, values that are not finite, times in ms.
    """
    missing = [name for name in ("b0", "times") if name not in content]
    if missing:
        raise InputError(f"{content.path}: lacks {missing[0]}; a field map b0 in Hz goes with times in seconds")
    return {"b0": _b0(content["b0"], count, chosen, shape), "times": checked_times(content["times"], shape)}


def _b0(item: Item, count: int, chosen: slice, shape: tuple[int, int]) -> Tensor:
    item.unit({"hz": 1.0}, "Hz")
    return _values(item, (shape, (count, *shape)), shape, "(Y, X), or (Z, Y, X) for one a slice", chosen)


def checked_times(item: Item, shape: tuple[int, int]) -> Tensor:
    """Times of samples from a file; see ``read_field``."""
    times = _values(item, (shape, shape[1:]), shape, "(Y, X), or (X,)") * item.unit(SECONDS, "seconds")
    check_seconds(item.path, times)
    return times


def check_seconds(path: Path, times: Tensor) -> None:
    """Raise an ``InputError`` where times are no seconds of a readout."""
    if not (longest := float(times.abs().max())) <= LONGEST_READOUT:
        raise InputError(f"{path}: times reach {longest:.4g}; give seconds")


def _values(
    item: Item, shapes: tuple[tuple[int, ...], ...], shape: tuple[int, int], right: str, chosen: slice | None = None
) -> Tensor:
    if item.shape not in shapes or item.dtype.kind not in "iuf":
        raise InputError(
            f"{item.path}: {item.name} is {item.shape} of {item.dtype}, k-space {shape}; give real {right}"
        )
    values = item.read(*((chosen,) if chosen is not None and item.ndim == 3 else ())).astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{item.path}: {item.name} has NaN or infinite values; give 0 where there is no signal")
    return torch.from_numpy(values)


def read_field_map(
    path: Path, shape: tuple[int, int, int], affine: NDArray[np.float64], sided: bool
) -> tuple[Tensor, Tensor | None, str]:
    """A map of its own file, for the slices of a volume.

    Args:
        path: NIfTI, in Hz, which is put to where the volume lies (linearly, and beyond its border as at the border)
            where both tell that, and taken voxel by voxel otherwise; or ``.npz`` or ``.h5`` with ``b0`` ``(Y, X)`` or
            ``(Z, Y, X)`` and maybe ``times``, see ``read_field``.
        shape: ``(Z, Y, X)`` of the volume.
        affine: of it, ``(x, y, z)`` to mm; ``sided`` whether it tells how slices lie in the patient.

    Returns:
        ``(Y, X)`` of one slice or of all, or ``(Z, Y, X)``; times where the file has them; and a note.

    Raises:
        InputError: no such file, damaged, of another kind or shape, complex or not finite, or of another place.
    """
    if not path.is_file():
        raise InputError(f"--data.field_map {path}: no such file; give NIfTI, or .npz or .h5 with b0 in Hz")
    times, how = None, "voxel by voxel"
    if path.name.lower().endswith((".nii", ".nii.gz")):
        values, found = _nifti(path)
        if found is not None and sided:
            b0, how = _placed(path, values, found, shape, affine)
        elif values.shape != (wanted := shape[::-1]):
            raise InputError(
                f"--data.field_map {path}: is of {values.shape} voxels, the volume of {wanted}, and one of them does "
                "not tell where it lies; give a map of the same voxels"
            )
        else:
            b0 = values.transpose()
        field = torch.from_numpy(np.ascontiguousarray(b0))
    else:
        with open_content(path) as content:
            field = _b0(content["b0"], shape[0], slice(0, shape[0]), shape[1:])
            times = checked_times(content["times"], shape[1:]) if "times" in content else None
    field = field[0] if field.ndim == 3 and len(field) == 1 else field
    low, high = float(field.min()), float(field.max())
    return field, times, f"field off by {low:.3g} to {high:.3g} Hz by {path.name}, {how}"


def _nifti(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
    """Voxels ``(x, y, z)`` and the affine from them to RAS mm, none where the file has none."""
    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        with told(path):
            image = nib.load(path)
            shape = image.shape + (1,) * (3 - len(image.shape))
            if any(size != 1 for size in shape[3:]) or 0 in shape or image.get_data_dtype().kind not in "iuf":
                raise InputError(
                    f"--data.field_map {path}: is {image.shape} of {image.get_data_dtype()}; give one real map in Hz"
                )
            check_fits(f"{path}: the map", 16 * int(np.prod(shape)), "give a smaller one")
            values = np.asarray(image.dataobj, dtype=np.float32).reshape(shape[:3])
    except (ImageFileError, HeaderDataError) as error:
        raise InputError(f"{path}: cannot be read as NIfTI ({' '.join(str(error).split())})") from error
    if not np.isfinite(values).all():
        raise InputError(f"{path}: the map has NaN or infinite values; give 0 where there is no signal")
    codes = int(image.header["sform_code"]), int(image.header["qform_code"])
    if max(codes) <= 0:
        return values, None
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine[:3, :3])) < 1e-12:
        raise InputError(f"{path}: its header does not tell where the map lies (sform, qform); correct it")
    return values, image.affine


def _placed(
    path: Path,
    values: NDArray[np.float32],
    found: NDArray[np.float64],
    shape: tuple[int, int, int],
    affine: NDArray[np.float64],
) -> tuple[NDArray[np.float32], str]:
    """The map ``(Z, Y, X)`` in the voxels of a volume, and how it got there."""
    from scipy.ndimage import map_coordinates

    z, y, x = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij")
    there = np.linalg.inv(found) @ affine @ np.stack([x, y, z, np.ones_like(x)]).reshape(4, -1)
    size = np.array(values.shape)[:, None]
    slack = FAR / np.linalg.norm(found[:3, :3], axis=0)[:, None]
    # A slice alone reaches as far as it is thick.
    slack = np.where(size == 1, 0.5, slack)
    beyond = ((there[:3] < -slack) | (there[:3] > size - 1 + slack)).any(0)
    if beyond.all():
        raise InputError(f"--data.field_map {path}: lies elsewhere than the slices; give the map of the same head")
    b0 = map_coordinates(values, there[:3], order=1, mode="nearest").reshape(shape)
    share = f", {beyond.mean():.1%} of the voxels beyond its border as at it" if beyond.any() else ""
    return b0.astype(np.float32), f"put to where the slices lie{share}"
