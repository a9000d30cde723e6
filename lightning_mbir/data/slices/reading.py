"""Volumes and phantoms as stacks of slices in the prior's unit, kept in a cache for the next training."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
import torch
import torch.nn.functional as F
from monai.data import PersistentDataset
from monai.transforms import Transform
from torch import Tensor

from lightning_mbir.data.phantoms import chest_phantom, head_phantom, leaves_phantom
from lightning_mbir.data.units import Modality, training_scale
from lightning_mbir.data.volumes.reading import read_volume
from lightning_mbir.data.volumes.resample import resize_in_plane, square_pixels
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.errors import InputError

log = logging.getLogger(__name__)

SLICES_FIRST: dict[str, tuple[int, int, int]] = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}
PHANTOM_SLICES = 32
READING = 6
"""Version of ``ReadSlices``; another one leaves older caches alone."""
BODY_MM = 400.0
"""Width of what a phantom fills its slices with."""
WRITTEN = 60.0
"""Seconds after which nobody is taken to write a file any more whose last part is missing."""


class CachedSlices(PersistentDataset):  # type: ignore[misc]
    """Volumes as stacks of slices. What is wrong with a file comes back as an item: MONAI and worker processes would
    bury it in errors of their own. A file of the cache that was cut short is made again, on which MONAI would end."""

    def __getitem__(self, index: int) -> Any:
        try:
            if self._cut_short(index):
                return self.transform(self.data[index])
            return super().__getitem__(index)
        except RuntimeError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, InputError):
                cause = cause.__cause__
            if cause is None:
                raise
            return cause

    def _cut_short(self, index: int) -> bool:
        """Whether the cache has a part of a volume's slices alone: another process writes it, or was stopped there."""
        if self.cache_dir is None:
            return False
        name = self.hash_func(self.data[index]).decode() + self.transform_hash
        kept = Path(self.cache_dir) / f"{name}.pt"
        try:
            if is_zipfile(kept):  # torch's format, whose table of contents comes last
                return False
            age = time.time() - kept.stat().st_mtime
        except FileNotFoundError:
            return False
        if age < WRITTEN:
            return True
        log.warning("%s: not a whole file of the cache; it is made again", kept)
        kept.unlink(missing_ok=True)
        return False


class ReadSlices(Transform):  # type: ignore[misc]
    """The slices with signal of a volume, and what there is to say of it, in lines.

    For each size ``(n, Y, X)`` slices in half precision and in the prior's unit, and the mm from one to the next.

    Of ``neighbours`` those between the first and the last are kept too, so that what lies side by side did so.

    A ``Transform``, since ``PersistentDataset`` keeps what comes before the first step that is none: what is said of a
    volume is kept with it, for each training to be told.

    Raises:
        InputError: a file that cannot be read, or holds values that are not finite or do not fit half precision.
    """

    def __call__(self, item: dict[str, Any]) -> tuple[list[tuple[Tensor, float]], list[str]]:
        stacks, notes = [], []
        volume = None if "seed" in item else square_pixels(read_volume(Path(item["file"]), item["modality"]))
        if volume is not None and volume.notes:
            notes.append("; ".join((item["file"], *volume.notes)))
        for size in item["sizes"]:
            if volume is None:
                depth = PHANTOM_SLICES if item["axis"] == "axial" else size
                data = draw(item["phantom"], item["modality"], (depth, size, size), item["seed"])
                spacing = (BODY_MM / size,) * 3
            else:
                data = fit_in_plane(volume.data, size)
                pixel = volume.spacing[1] * max(1.0, max(volume.data.shape[1:]) / size)
                spacing = (volume.spacing[0], pixel, pixel)
            data = data.permute(SLICES_FIRST[item["axis"]])
            distance = spacing[SLICES_FIRST[item["axis"]][0]]
            scale = training_scale(data, item["modality"])
            data = data / scale if scale > 0 else data
            if volume is not None and item["max_noise"] is not None and (noise := own_noise(data)) > item["max_noise"]:
                notes.append(f"{item['file']}: noise of {noise:.3g} at {size} pixels, left out at that size")
                stacks.append((data[:0].half(), distance))
                continue
            if float(data.abs().max()) > torch.finfo(torch.half).max:
                raise InputError(
                    f"{item['file']}: a voxel is {float(data.abs().max()):.3g} times as large as what counts as 1 "
                    "(docs/priors.md); such values are no image, and half precision does not hold them"
                )
            signal = (data > 0.1).float().mean((-2, -1)) >= item["min_signal"]
            if item["neighbours"] and bool(signal.any()):
                first, last = signal.nonzero().flatten()[[0, -1]].tolist()
                signal[first : last + 1] = True
            # numpy's mirror goes to and fro where the stack is shorter than what is missing
            rows = np.pad(np.arange(data.shape[1]), (0, -data.shape[1] % item["stride"]), mode="reflect")
            stacks.append((data[signal][:, torch.from_numpy(rows)].half(), distance))
        return stacks, notes


def draw(kind: str, modality: Modality, shape: tuple[int, int, int], seed: int) -> Tensor:
    """A phantom: a ``chest``, a ``head`` of any contrast, or ``leaves``."""
    if kind == "leaves":
        return leaves_phantom(shape, seed, modality)
    return chest_phantom(shape, seed) if kind == "chest" else head_phantom(shape, seed, contrast=None)


def own_noise(data: Tensor) -> float:
    """Standard deviation of the noise of slices ``(n, Y, X)``: of most 2 x 2 pixels with signal, the diagonal detail.

    The median does not mind edges as long as most of an image is smooth (Donoho and Johnstone 1994).
    """
    rows, columns = data.shape[-2] // 2 * 2, data.shape[-1] // 2 * 2
    a, b, c, d = (data[..., i:rows:2, j:columns:2] for i in (0, 1) for j in (0, 1))
    body = torch.minimum(torch.minimum(a, b), torch.minimum(c, d)) > 0.3
    detail = ((a - b - c + d) / 2).abs()[body]
    return float(detail.median() / 0.6745) if len(detail) else 0.0


def fit_in_plane(data: Tensor, size: int) -> Tensor:
    """Slices ``(n, Y, X)`` padded with zeros to a square, and averaged down to ``size`` where they are larger."""
    rows, columns = data.shape[-2:]
    if max(rows, columns) > size:
        return resize_in_plane(Volume(data, np.eye(4), "", "mri"), size).data
    top, left = (size - rows) // 2, (size - columns) // 2
    return F.pad(data, (left, size - columns - left, top, size - rows - top))
