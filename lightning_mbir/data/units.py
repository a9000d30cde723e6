"""The [0, 1]-like unit that priors are trained in, and how a volume is brought to it."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Num
from torch import Tensor

Modality = Literal["ct", "mri"]

MU_WATER = 0.0192
"""Attenuation of water in 1/mm, at an effective energy of 70 keV."""

CT_SCALE = 2 * MU_WATER
"""Attenuation (1/mm) that is 1 in the unit of CT priors: air is 0, water 0.5, 1000 HU is 1."""

MRI_PERCENTILE = 99.5
"""The percentile of a volume's magnitude that is 1 in the unit of MRI priors."""


def magnitude_percentile(volume: Tensor, percentile: float = MRI_PERCENTILE) -> float:
    """Percentile of the magnitudes of a volume of any size (``torch.quantile`` refuses more than 16 million)."""
    values = volume.abs().flatten()
    k = max(1, round(values.numel() * percentile / 100))
    return float(torch.kthvalue(values, min(k, values.numel())).values)


def training_scale(volume: Num[Tensor, "z y x"], modality: Modality) -> float:
    """Factor of a volume in physical unit over the same volume in the prior's unit."""
    return CT_SCALE if modality == "ct" else magnitude_percentile(volume)
