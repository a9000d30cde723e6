"""LPIPS, which needs torchvision and downloads a network's weights, so it is never needed."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

import torch
from torch import Tensor

from lightning_mbir.errors import InputError


def check_lpips() -> None:
    """Raise where LPIPS cannot be computed here."""
    if importlib.util.find_spec("torchvision") is None:
        raise InputError(
            "--lpips true: needs torchvision, which is not installed (pip install torchvision); leave it out"
        )
    _network()


@torch.no_grad()
def lpips(volume: Tensor, truth: Tensor, data_range: float) -> float:
    """Learned perceptual image patch similarity (Zhang et al., CVPR 2018, AlexNet): the mean over axial slices.

    Args:
        volume, truth: ``(Z, Y, X)`` in the same unit; 0 is black and ``data_range`` white.
        data_range: peak, in that unit.
    """
    network = _network().to(volume.device)
    total = 0.0
    for a, b in zip(volume, truth, strict=True):
        pair = [(x.float() / data_range).clamp(0, 1).expand(1, 3, *x.shape) for x in (a, b)]
        total += float(network(*pair))
        network.reset()
    return total / len(volume)


@cache
def _network() -> Any:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    try:
        return LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
    except (OSError, ModuleNotFoundError) as error:  # URLError is an OSError
        raise InputError(f"--lpips true: AlexNet's weights cannot be had ({error}); leave it out") from error
