"""What the texts of flags stand for: numbers, and what tells about volumes and measurements; the data room reads it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_mbir.errors import InputError

FAULTS = ("zingers", "drift", "rings")
"""Of projections, in the order that they are taken away."""
CHECKPOINTS = tuple(f"{above}*.ckpt" for above in ("", "checkpoints/", "*/checkpoints/", "*/*/checkpoints/"))
"""Where they may lie in a folder that was given for one."""
LARGEST_WHOLE = 2**63 - 1
"""What arrays count with."""


@dataclass(frozen=True)
class Numbers:
    """Makes a number of a text, as YAML writes them.

    Attributes:
        least, most: bounds, which are allowed themselves; none where other code knows them.
        positive: above 0, and finite.
        whole: whole numbers alone.
    """

    least: float | None = None
    most: float | None = None
    positive: bool = False
    whole: bool = False

    def __call__(self, text: str) -> Any:
        """The number.

        Raises:
            InputError: no such number, or one beyond the bounds.
        """
        kind = "a whole number" if self.whole else "a number"
        try:
            found = int(text) if self.whole else float(text.replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            raise InputError(f"give {kind}") from None
        if self.positive and not 0 < found < math.inf:
            raise InputError("give a positive number")
        if self.least is not None and not self.least <= found < math.inf:
            raise InputError(f"give {kind} of at least {self.least}")
        most = LARGEST_WHOLE if self.whole and self.most is None else self.most
        if most is not None and not found <= most:
            raise InputError(f"give {kind} of at most {most}")
        return found

    @property
    def range(self) -> str:
        """The bounds in words, as help has them; empty without any."""
        if self.least is None:
            return "above 0" if self.positive else ""
        return f"{self.least} or more" if self.most is None else f"{self.least} to {self.most}"


def whole(least: int | None = None, most: int | None = None) -> Numbers:
    """Whole numbers from ``least`` to ``most``."""
    return Numbers(least, most, whole=True)


def number(positive: bool = False, least: float | None = None, most: float | None = None) -> Numbers:
    """Numbers above 0 or from ``least``, up to ``most``."""
    return Numbers(least, most, positive)


def existing(right: str, folders: bool = True) -> Callable[[str], Path]:
    """A file that is there, or a folder.

    Args:
        right: what a user is told to give else.
        folders: whether a folder may be given.
    """

    def value(text: str) -> Path:
        path = Path(text)
        if not path.exists():
            raise InputError(f"no such file{' or folder' if folders else ''}; give {right}")
        if path.is_dir() and not folders:
            raise InputError(f"a folder; give {right}")
        return path

    return value


def checkpoint(text: str) -> Path:
    """A checkpoint of a training; of a folder of trainings the newest one is named."""
    path, right = Path(text), "a checkpoint that `fit` or `fit_unet` wrote"
    kept = [file for part in CHECKPOINTS for file in path.glob(part)] if path.is_dir() else []
    if kept:
        right = str(max(kept, key=lambda file: (file.name == "last.ckpt", file.stat().st_mtime)))
    return existing(right, folders=False)(text)


def truth(text: str) -> bool:
    """``true`` or ``false``."""
    if text.lower() not in ("true", "false"):
        raise InputError("give true or false")
    return text.lower() == "true"


def whitening(text: str) -> bool | str:
    """``true``, ``false`` or ``corners``."""
    if text.lower() not in ("true", "false", "corners"):
        raise InputError("give true, false or corners")
    return text.lower() if text.lower() == "corners" else text.lower() == "true"


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


def stack(text: str) -> int:
    """Of one slice, or three neighbouring ones."""
    if text not in ("1", "3"):
        raise InputError("give 1, or 3 neighbouring ones")
    return int(text)


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
