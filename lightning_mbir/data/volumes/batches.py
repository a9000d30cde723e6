"""Volumes in the batches of MONAI's loaders: dictionaries of ``MetaTensor``, turned to what our own data are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lightning_mbir.data.units import Modality
from lightning_mbir.data.volumes.fitting import fitted
from lightning_mbir.data.volumes.image import Image
from lightning_mbir.data.volumes.reading import as_volume
from lightning_mbir.data.volumes.values import as_float32, check_type, flat_parts
from lightning_mbir.data.volumes.volume import ASSUMED, UNSIZED, Volume
from lightning_mbir.errors import InputError

KEY = "image"
"""What a volume is called in a batch."""
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def volume_of_batch(batch: Any, modality: Modality) -> Volume:
    """The volume of a batch ``{"image": MetaTensor}`` as MONAI's ``DataLoader`` gives it, one at a time.

    Its array is ``(1, 1, I, J, K)``; axes of length 1 before the last three may be missing. The meta data tell the
    affine, in RAS or by their ``space`` in LPS, and as ``filename_or_obj`` what the results are filed under. Values are
    taken as a file's are: Hounsfield units of CT, of MRI any unit. Other keys are not looked at.

    Args:
        batch: the dictionary, or the ``MetaTensor`` itself.
        modality: ``"ct"`` or ``"mri"``, which a batch does not tell.

    Raises:
        InputError: no image, several volumes or channels, other axes, no place in the world, no name, and whatever
            ``read_volume`` refuses.
    """
    image = batch
    if isinstance(batch, Mapping):
        if KEY not in batch:
            raise InputError(
                f"a batch with {', '.join(map(str, batch)) or 'nothing'} in it; give the volume as {KEY!r}"
            )
        image = batch[KEY]
    if not isinstance(image, Tensor):
        raise InputError(f"a batch with a {type(image).__name__}; give a Volume, or {{'{KEY}': MetaTensor}}")
    meta = getattr(image, "meta", None)
    if not isinstance(meta, dict):
        raise InputError(
            "a batch with a plain tensor, which does not tell where its voxels lie; give a MetaTensor with its affine, "
            "as MONAI's LoadImaged does"
        )
    name = _one(meta.get("filename_or_obj"))
    if not isinstance(name, str | Path) or not Path(name).name:
        raise InputError(
            "a batch without the name that results are filed under; set meta['filename_or_obj'] of its image"
        )
    path = Path(name)
    array = _three_axes(path, image)
    notes = check_type(path, array.dtype, modality)
    affine, placed = _affine(path, image.affine, meta, modality)  # type: ignore[attr-defined]
    flat, rounded = as_float32(path, flat_parts(array), array.size)
    read = Image(flat.reshape(array.shape), affine, (*placed, *notes, *rounded))
    return fitted(as_volume(path, read, modality), path)


def _three_axes(path: Path, image: Tensor) -> np.ndarray:
    """The array ``(I, J, K)`` of one volume of one channel."""
    shape = tuple(image.shape)
    shown = " x ".join(map(str, shape))
    if not 3 <= len(shape) <= 5:
        raise InputError(
            f"{path}: an image of {len(shape)} axes ({shown}); give batch, channel and three axes of space"
        )
    before = shape[:-3]
    if math.prod(before) != 1:
        two = len(before) == 2
        what = "channels" if two and before[0] == 1 else "volumes" if two and before[1] == 1 else "volumes or channels"
        right = "one channel, of magnitudes" if what == "channels" else "one volume at a time (batch_size=1)"
        raise InputError(f"{path}: {math.prod(before)} {what} ({shown}); give {right}")
    found: np.ndarray = image.detach().as_subclass(Tensor).cpu().reshape(shape[-3:]).numpy()
    return found


def _affine(path: Path, given: Any, meta: dict[Any, Any], modality: Modality) -> tuple[np.ndarray, tuple[str, ...]]:
    """From array indices to RAS mm, and what is to be said of it."""
    affine = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given, np.float64)
    if affine.size != 16:
        raise InputError(f"{path}: an affine of {' x '.join(map(str, affine.shape))}; give one of 4 x 4")
    affine = affine.reshape(4, 4)
    if (affine == np.eye(4)).all() and "original_affine" not in meta:  # which MONAI gives where there is none
        if modality == "ct":
            raise InputError(
                f"{path}: its image has no affine, and projections are of lengths in mm; give MetaTensor(affine=...), "
                "or where the identity is right, set meta['original_affine'] too"
            )
        return affine, (f"no affine: {UNSIZED}, {ASSUMED[0]}; axes are taken to run right, anterior and superior",)
    space = str(getattr(_one(meta.get("space")), "value", _one(meta.get("space")) or "RAS"))
    if space not in ("RAS", "LPS"):
        raise InputError(f"{path}: an affine to the space {space!r}; give one to RAS or LPS")
    return LPS @ affine if space == "LPS" else affine, ()


def _one(value: Any) -> Any:
    """The value of the only volume of a batch, in which MONAI makes lists of them."""
    return value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
