"""Between which sizes numbers are worked with; nothing heavy is imported here, so that others are told at once."""

from __future__ import annotations

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
