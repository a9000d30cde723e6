"""What the texts of flags stand for that tell about volumes and measurements; the data room reads them too."""

from __future__ import annotations

from lightning_mbir.errors import InputError

FAULTS = ("zingers", "drift", "rings")
"""Of projections, in the order that they are taken away."""


def partial_fourier(text: str) -> str:
    """What becomes of a side of k-space that was not measured."""
    if text not in ("zero", "pocs", "homodyne"):
        raise InputError("give zero, pocs or homodyne")
    return text


def slice_range(text: str) -> tuple[int, int]:
    """``20:44`` to ``(20, 44)``."""
    parts = text.split(":")
    if len(parts) != 2 or not all(part.isdecimal() for part in parts) or int(parts[0]) >= int(parts[1]):
        raise InputError("give first:last+1, such as 20:44")
    return int(parts[0]), int(parts[1])


def voxel_size(text: str) -> tuple[float, float, float]:
    """``3,0.8,0.8`` to ``(3.0, 0.8, 0.8)``."""
    try:
        sizes = [float(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if len(sizes) != 3 or not all(0 < size < float("inf") for size in sizes):
        raise InputError("give three lengths in mm, slices first, such as 3,0.8,0.8")
    return sizes[0], sizes[1], sizes[2]


def faults(text: str) -> tuple[str, ...]:
    """``rings,zingers`` to ``("zingers", "rings")``."""
    names = text.replace(" ", "").split(",")
    if not set(names) <= set(FAULTS):
        raise InputError(f"give some of {', '.join(FAULTS)}, with commas")
    return tuple(name for name in FAULTS if name in names)


def scatter_share(text: str) -> tuple[float, float]:
    """``0.02`` to ``(0.02, 0.0)``, ``0.02,20`` to ``(0.02, 20.0)``."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 2) or not 0 < values[0] < 1 or not all(0 <= value < 1e6 for value in values):
        raise InputError("give a share of the open beam, such as 0.02, or of the intensity smoothed over bins: 0.02,20")
    return values[0], values[1] if len(values) == 2 else 0.0


def rotation_center(text: str) -> float | str:
    """A bin, or ``search``."""
    try:
        return text if text == "search" else float(text)
    except ValueError:
        raise InputError("give a bin, counted from 0, or search") from None
