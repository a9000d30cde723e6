"""Volumes as text inside a page: NIfTI of whole steps, packed and in base64, reduced where they are huge."""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_mbir.report.scale import Scale, plain

MOST_VOXELS = 20 * 2**20
"""Voxels that a page carries at most, all volumes together: about 2 bytes each, so some 40 MB."""
STEPS = 1024
"""Steps that the window of a scale is divided into: 2 HU of the usual one of CT."""
INT16 = 32767


@dataclass(frozen=True)
class Embedded:
    """A volume as a page carries it.

    Attributes:
        text: NIfTI-1 of int16, by gzip, in base64.
        loss: by how much a value may differ from what it stands for, in the unit of the file.
        clipped: voxels beyond what int16 holds, which are cut.
    """

    text: str
    loss: float
    clipped: int


def factors(shape: tuple[int, int, int], volumes: int, most: int = MOST_VOXELS) -> tuple[int, int, int]:
    """Sides ``(z, y, x)`` of the blocks whose means are shown, so that a page of several volumes is not too large.

    Args:
        shape: ``(Z, Y, X)`` of each.
        volumes: how many there are.
        most: voxels of all together.
    """
    sides = [1, 1, 1]

    def blocks() -> list[int]:
        return [-(-n // side) for n, side in zip(shape, sides, strict=True)]

    while volumes * int(np.prod(blocks())) > most and max(blocks()) > 1:
        sides[max(range(3), key=lambda axis: (blocks()[axis], axis))] *= 2
    return sides[0], sides[1], sides[2]


def reduced(data: Tensor, sides: tuple[int, int, int]) -> Tensor:
    """Means over blocks of ``(Z, Y, X)``; the last ones of an axis may be smaller."""
    if sides == (1, 1, 1):
        return data.detach().float().cpu()
    volume = data.detach().float().cpu()[None, None]
    return F.avg_pool3d(volume, sides, ceil_mode=True, count_include_pad=False)[0, 0]


def reduced_affine(affine: np.ndarray, sides: tuple[int, int, int]) -> np.ndarray:
    """The affine of ``reduced``, from ``(x, y, z)`` to mm: the middle of a block is where it lies."""
    z, y, x = sides
    blocks = np.diag([x, y, z, 1.0])
    blocks[:3, 3] = [(side - 1) / 2 for side in (x, y, z)]
    return affine @ blocks


def embed(data: Tensor, affine: np.ndarray, scale: Scale, spread: bool = False) -> Embedded:
    """A volume in the unit of its file, in steps of 1/1024 of the window.

    Args:
        data: ``(Z, Y, X)`` in physical unit.
        affine: ``(4, 4)`` from ``(x, y, z)`` to RAS mm.
        scale: unit and window.
        spread: whether these are deviations, which are multiplied but not shifted.
    """
    packed, clipped = steps_file(data, affine, scale, spread)
    return Embedded(base64.b64encode(packed).decode(), _step(scale) / 2, clipped)


def steps_file(data: Tensor, affine: np.ndarray, scale: Scale, spread: bool = False) -> tuple[bytes, int]:
    """The bytes of ``.nii.gz`` that ``embed`` has as text, and how many voxels are cut."""
    from nibabel.nifti1 import Nifti1Header, Nifti1Image

    step, offset = _step(scale), 0.0 if spread else scale.offset
    counts = (data.detach().float().cpu() * (scale.factor / step)).round()
    clipped = int((counts.abs() > INT16).sum())
    array = counts.clamp(-INT16, INT16).to(torch.int16).numpy().transpose(2, 1, 0)
    image = Nifti1Image(array, affine, Nifti1Header(endianness="<"))
    image.header.set_data_dtype(np.int16)  # the array is written as it is
    image.header.set_slope_inter(step, offset)
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), 6, mtime=0), clipped


def of_steps(packed: bytes, scale: Scale) -> Tensor:
    """The volume ``(Z, Y, X)`` of ``steps_file`` in physical unit.

    Raises:
        ValueError: bytes that are none of its.
    """
    from nibabel.nifti1 import Nifti1Image

    try:
        image = Nifti1Image.from_bytes(gzip.decompress(packed))
        array = np.asanyarray(image.dataobj, dtype=np.float32)
    except (OSError, EOFError, ValueError, RuntimeError) as error:
        raise ValueError(f"no volume of steps: {error}") from error
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 1, 0)) - np.float32(scale.offset)) / scale.factor


def _step(scale: Scale) -> float:
    """The step, as NIfTI holds it."""
    low, high = scale.window
    return float(np.float32((high - low) / STEPS if scale.unit != "HU" else max(1, round((high - low) / STEPS))))


def told(scale: Scale, sides: tuple[int, int, int], clipped: int, shape: tuple[int, int, int]) -> list[str]:
    """What a page says of how its voxels differ from the files."""
    lines = [f"Values are rounded by up to {plain(_step(scale) / 2)}{scale.unit and f' {scale.unit}'}."]
    if sides != (1, 1, 1):
        z, y, x = sides
        lines.append(
            f"Reduced for this page: each voxel is the mean of {z} x {y} x {x} (slices, rows, columns) of the "
            f"{' x '.join(map(str, shape))} voxels of the volume. Errors are those of the means, and smaller than "
            "those of voxels; the numbers are of the whole volume."
        )
    if clipped:
        lines.append(f"{clipped} voxels are beyond what is shown, and cut to it.")
    return lines
