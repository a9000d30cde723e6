"""What numbers may be that a user gives; nothing heavy is imported here, so that others are told at once."""

from __future__ import annotations

from typing import Any

from lightning_mbir.errors import InputError

LARGEST, SMALLEST = 1e15, 1e-15
"""Sums of squares of numbers between these fit single precision."""


def fits(value: float) -> bool:
    """Whether a number, or the largest of several, is 0 or of a size that can be worked with."""
    return value == 0 or SMALLEST <= abs(value) <= LARGEST


def check_size(value: float, what: str) -> None:
    """Raise where a number is neither 0 nor of a size that can be worked with."""
    if not fits(value):
        raise InputError(f"{what} is {value:.3g}; it must be between {SMALLEST:g} and {LARGEST:g}")


def plain(value: Any) -> Any:
    """Scalars of NumPy, and tensors of one number, as Python's own, in mappings and lists too; all else as it is."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    item = getattr(value, "item", None)
    return item() if callable(item) and getattr(value, "ndim", None) == 0 else value
