"""How good a reconstruction is, plane by plane, with one explicit data range."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

PLANES = {"axial": 0, "coronal": 1, "sagittal": 2}
"""The axis of a volume ``(Z, Y, X)`` that numbers the slices of a plane."""

SSIM_WINDOW = 11


def image_metrics(volume: Tensor, truth: Tensor, data_range: float) -> dict[str, Any]:
    """PSNR and SSIM a plane, PSNR of the volume, and the normalised root-mean-square error.

    A plane's figure is the mean over its slices; nothing is rescaled. SSIM is left out where a plane is narrower
    than its window of 11 pixels.

    Args:
        volume, truth: ``(Z, Y, X)`` in the same unit.
        data_range: peak, in that unit.
    """
    result: dict[str, Any] = {}
    for plane, axis in PLANES.items():
        a = volume.movedim(axis, 0)[:, None].float()
        b = truth.movedim(axis, 0)[:, None].float()
        # A slice that is exact (air, say) would be infinite: 100 dB stand for "no error to speak of".
        psnr = peak_signal_noise_ratio(a, b, data_range=data_range, dim=(1, 2, 3), reduction="none")
        result[plane] = {"psnr": float(psnr.clamp_max(100).mean())}
        if min(a.shape[-2:]) >= SSIM_WINDOW:
            ssim = structural_similarity_index_measure(a, b, data_range=data_range)
            assert isinstance(ssim, Tensor)
            result[plane]["ssim"] = float(ssim)
    mse = float((volume - truth).double().square().mean())
    result["volume_psnr"] = float(10 * torch.log10(torch.tensor(data_range**2 / max(mse, 1e-30))))
    result["nrmse"] = mse**0.5 / max(float(truth.double().square().mean()) ** 0.5, 1e-30)
    return result
