"""A volume made one that can be measured and reconstructed: square slices, values that make an image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lightning_mbir.data.volumes.resample import has_square_pixels, resize_in_plane, square_in_plane
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.errors import InputError

TINIEST, HUGEST = 1e-12, 1e12
"""Limits of a volume's largest value, within which its measurement is one that methods take."""


def fitted(volume: Volume, source: Path | str, image_size: int = 0) -> Volume:
    """A volume with square slices of square pixels, and in its notes what that took.

    Args:
        volume: as it was read.
        source: what it is called where it cannot be used.
        image_size: pixels along the side of a slice; 0 keeps their size, padded to a square.

    Raises:
        InputError: air alone, or values that no method takes.
    """
    low, high = float(volume.data.min()), float(volume.data.max())
    if high <= 0:
        raise InputError(f"{source}: air alone, nothing to reconstruct; give other slices or another volume")
    if not TINIEST < high <= max(high, -low) < HUGEST:
        raise InputError(f"{source}: values up to {max(high, -low):.3g} are too small or too large for an image")
    found = resize_in_plane(volume, image_size) if image_size else square_in_plane(volume)
    return replace(found, notes=(*volume.notes, *_fitting(volume, found)))


def _fitting(volume: Volume, fitted: Volume) -> Iterator[str]:
    """What was done to the slices, a line each."""
    (_, rows, columns), (size, _) = volume.data.shape, fitted.data.shape[1:]
    (_, height, width), (_, pixel, _) = volume.spacing, fitted.spacing
    if not has_square_pixels(volume):
        what = f"pixels of {height:.3g} x {width:.3g} mm are made square, of {pixel:.3g} mm"
    elif abs(pixel - height) > 1e-3 * height:
        own = f"{rows} x {columns} pixels of {height:.3g} mm"
        what = f"slices of {own} are resized to {size} x {size} of {pixel:.3g} mm"
    elif rows != size or columns != size:
        what = f"slices of {rows} x {columns} are padded to {size} x {size}"
    else:
        return
    yield what
    yield "a volume that is written goes back to the file's own grid"
