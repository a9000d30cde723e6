"""Whether k-space has zero frequency in the middle, and its image the object."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lightning_mbir.errors import InputError

BAND = 8
"""One of how many parts of an axis is compared at either side of the middle and of the ends."""
LEAST = 16
"""Points of an axis below which its parts are too few to be compared."""
MUCH = 4.0
"""How many times the energy of the middle the ends have where an array begins with what belongs in the middle. Noise
has as much in both."""
LOOKED_AT = 8
"""Slices at most that are looked at as images."""
NAMES = ("y", "x")


def check_centre(path: Path, y: Tensor) -> tuple[str, ...]:
    """A note where the image has its object at the ends of the field of view.

    Args:
        path: of the file, for messages.
        y: k-space ``(Z, ..., Y, X)``, with zeros where nothing was measured.

    Raises:
        InputError: k-space that is strongest at both ends of an axis, so that zero frequency is not in the middle.
    """
    if wrong := uncentred(y):
        raise InputError(f"{path}: {wrong} first")
    some = torch.fft.ifftshift(y[:: -(-len(y) // LOOKED_AT)], (-2, -1))
    if ends := _strong_ends(torch.fft.fftshift(torch.fft.ifft2(some), (-2, -1))):
        return (
            f"the object lies at both ends of {ends}, not in the middle: was its image shifted by "
            "numpy.fft.ifftshift before it was transformed?",
        )
    return ()


def uncentred(y: Tensor) -> str:
    """What is wrong with k-space ``(..., Y, X)`` that is strongest at both ends of an axis; empty where nothing is."""
    if not (ends := _strong_ends(y)):
        return ""
    return (
        f"k-space is strongest at both ends of {ends}, as numpy.fft.fft2 leaves it; zero frequency has to be in the "
        f"middle: apply numpy.fft.fftshift to {ends}"
    )


def _strong_ends(values: Tensor) -> str:
    """The axes whose ends are far stronger than the middle."""
    return " and ".join(axis for axis, along in zip(NAMES, _power(values), strict=True) if _ends_stronger(along))


def _power(values: Tensor) -> tuple[Tensor, Tensor]:
    """Energy along y and along x, slice by slice so that no copy of all is made."""
    total = torch.zeros(values.shape[-2:], dtype=torch.float64, device=values.device)
    for one in values.flatten(0, -3) if values.ndim > 2 else values[None]:
        total += torch.view_as_real(one.resolve_conj()).double().square().sum(-1)
    return total.sum(1), total.sum(0)


def _ends_stronger(along: Tensor) -> bool:
    count = len(along)
    if count < LEAST:
        return False
    part = count // BAND
    ends = float(along[:part].sum() + along[-part:].sum())
    middle = float(along[count // 2 - part : count // 2 + part].sum())
    return ends > MUCH * middle
