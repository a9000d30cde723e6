"""How far the main field is off, and when each sample of k-space was taken."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lightning_mbir.data.measurements.content import Content
from lightning_mbir.errors import InputError

LONGEST_READOUT = 1.0
"""Seconds; a larger time is in ms."""


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
    given = {"b0": (shape, (count, *shape)), "times": (shape, shape[1:])}
    right = {"b0": "(Y, X), or (Z, Y, X) for one a slice", "times": "(Y, X), or (X,)"}
    found: dict[str, Tensor] = {}
    for name, shapes in given.items():
        item = content[name]
        if item.shape not in shapes or item.dtype.kind not in "iuf":
            raise InputError(
                f"{content.path}: {name} is {item.shape} of {item.dtype}, k-space {shape}; give real {right[name]}"
            )
        values = item.read(*((chosen,) if item.ndim == 3 else ())).astype(np.float32)
        if not np.isfinite(values).all():
            raise InputError(f"{content.path}: {name} has NaN or infinite values; give 0 where there is no signal")
        found[name] = torch.from_numpy(values)
    longest = float(found["times"].abs().max())
    if longest > LONGEST_READOUT:
        raise InputError(f"{content.path}: times reach {longest:.4g}; give seconds")
    return found
