"""The [0, 1]-like unit that priors are trained in, and how a volume is brought to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Num
from torch import Tensor

Modality = Literal["ct", "mri"]

LENGTHS = {
    "m": 1e3, "meter": 1e3, "metre": 1e3, "cm": 10.0, "centimeter": 10.0, "centimetre": 10.0, "mm": 1.0,
    "millimeter": 1.0, "millimetre": 1.0, "um": 1e-3, "\N{MICRO SIGN}m": 1e-3, "\N{GREEK SMALL LETTER MU}m": 1e-3,
    "micron": 1e-3, "micrometer": 1e-3, "micrometre": 1e-3,
}  # fmt: skip
"""Units of length in mm."""

MU_WATER = 0.0192
"""Attenuation of water in 1/mm, at an effective energy of 70 keV."""

CT_SCALE = 2 * MU_WATER
"""Attenuation (1/mm) that is 1 in the unit of CT priors: air is 0, water 0.5, 1000 HU is 1."""

MRI_PERCENTILE = 99.5
"""The percentile of a volume's magnitude that is 1 in the unit of MRI priors."""


def factor(unit: str, known: Mapping[str, float]) -> float | None:
    """What a unit is in that of a table; 1 where none is told, None of one that is not known."""
    name = unit.strip().lower()
    return 1.0 if not name else known.get(name, known.get(name.removesuffix("s")))


def magnitude_percentile(volume: Tensor, percentile: float = MRI_PERCENTILE) -> float:
    """Percentile of the magnitudes of a volume of any size (``torch.quantile`` refuses more than 16 million)."""
    values = volume.abs().flatten()
    k = max(1, round(values.numel() * percentile / 100))
    return float(torch.kthvalue(values, min(k, values.numel())).values)


def training_scale(volume: Num[Tensor, "z y x"], modality: Modality) -> float:
    """Factor of a volume in physical unit over the same volume in the prior's unit."""
    return CT_SCALE if modality == "ct" else magnitude_percentile(volume)
