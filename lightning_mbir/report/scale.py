"""In which unit numbers are shown, and between which grey values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from torch import Tensor

from lightning_mbir.data.units import MU_WATER, Modality, magnitude_percentile
from lightning_mbir.kinds import check_kinds

T = TypeVar("T", Tensor, np.ndarray)

ERROR_SHARE = 0.2
"""Share of the window at which an error has its full colour."""


@dataclass(frozen=True)
class Scale:
    """From the physical unit of a volume to the unit of its file, in which everything is shown.

    Attributes:
        window: black and white, in the unit of the file.
        factor: from physical unit to that of the file; differences and deviations are multiplied by it alone.
        offset: what is added to values beyond that.
        unit: name of the unit of the file; empty where it has none.
    """

    window: tuple[float, float]
    factor: float = 1.0
    offset: float = 0.0
    unit: str = ""

    @classmethod
    def of(cls, modality: Modality, window: tuple[float, float], calibrated: bool = True) -> Scale:
        """HU for CT, 1 over whatever is the unit of length for CT without mm, the file's own unit for MRI.

        Args:
            modality: of the volume.
            window: black and white in physical unit.
            calibrated: CT: whether attenuation is in 1/mm.
        """
        if modality == "mri":
            return cls(window)
        if not calibrated:
            return cls(window, unit="1/length")
        plain = cls(window, 1000 / MU_WATER, -1000.0, "HU")
        low, high = (round(plain.factor * value + plain.offset, 6) for value in window)
        return cls((low, high), plain.factor, plain.offset, plain.unit)

    def shown(self, values: T) -> T:
        """Values in the unit of the file."""
        return values * self.factor + self.offset

    @property
    def error_peak(self) -> float:
        """The error that has its full colour, in the unit of the file."""
        return ERROR_SHARE * (self.window[1] - self.window[0])

    @property
    def in_brackets(self) -> str:
        """The unit behind a name."""
        return f" ({self.unit})" if self.unit else ""

    @property
    def window_text(self) -> str:
        """The window for people, such as ``window -1000 to 1000 HU``."""
        low, high = self.window
        return f"window {plain(low)} to {plain(high)}{self.unit and f' {self.unit}'}"


def picture_window(image: Tensor, modality: Modality, calibrated: bool = True) -> tuple[float, float]:
    """Black and white of pictures in physical unit: -1000 to 1000 HU, else 0 to the 99.5th percentile of an image.

    Args:
        image: ``(Z, Y, X)``, the truth where there is one.
        modality: of the volume.
        calibrated: CT: whether attenuation is in 1/mm.
    """
    check_kinds(picture_window, locals())
    if modality == "mri" or not calibrated:
        return 0.0, magnitude_percentile(image)
    return 0.0, 2 * MU_WATER


def plain(value: float) -> str:
    """A number for people, in four digits and without an exponent where that is short."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
