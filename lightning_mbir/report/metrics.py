"""How good a reconstruction is, plane by plane, with one explicit data range."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from lightning_mbir.errors import InputError
from lightning_mbir.kinds import check_kinds

PLANES = {"axial": 0, "coronal": 1, "sagittal": 2}
"""The axis of a volume ``(Z, Y, X)`` that numbers the slices of a plane."""

SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
SLAB = 16  # slices of windows at once, of a volume
CHUNK = 2**20  # pixels at once: torchmetrics' SSIM takes a hundred times as much memory


def decibels(value: float | None) -> str:
    """A PSNR for people; None is what no finite number becomes in files."""
    return "not finite" if value is None else f"{value:.2f} dB"


def image_metrics(volume: Float[Tensor, "z y x"], truth: Float[Tensor, "z y x"], data_range: float) -> dict[str, Any]:
    """PSNR and SSIM a plane and of the volume, and the normalised root-mean-square error.

    A plane's figure is the mean over its slices; nothing is rescaled. Slices of air are left out: those where
    less than 1 % of the true voxels are above a tenth of the data range, unless all are. They are easy, and would
    lift the mean (by 4 to 8 dB for the coronal plane of a chest or head), so figures of other work that counts
    every slice are higher. ``volume_psnr``, ``volume_ssim`` and ``nrmse`` count every voxel. SSIM (Wang et al. 2004)
    is left out where a plane is narrower than its window of 11 pixels; ``volume_ssim`` is that of windows of 11^3
    voxels, and left out of volumes with fewer slices.

    Args:
        volume, truth: ``(Z, Y, X)`` in the same unit.
        data_range: peak, in that unit.

    Raises:
        InputError: volumes of two shapes, or of other than three dimensions.
    """
    check_kinds(image_metrics, locals())
    check_alike("image_metrics", volume=volume, truth=truth)
    result: dict[str, Any] = {}
    for plane, axis in PLANES.items():
        found, ssim, windows = [], 0.0, 0
        tissue = torch.cat([
            (b > 0.1 * data_range).float().mean((1, 2, 3)) >= 0.01 for (b,) in _chunks(axis, truth)
        ])  # fmt: skip
        keep = tissue if bool(tissue.any()) else ~tissue
        for a, b in _chunks(axis, volume, truth, keep=keep):
            psnr = peak_signal_noise_ratio(a, b, data_range=data_range, dim=(1, 2, 3), reduction="none")
            found.append(psnr.clamp_max(100))  # a slice without any error would be infinite: 100 dB stand for that
            if min(a.shape[-2:]) >= SSIM_WINDOW:
                each = structural_similarity_index_measure(a, b, data_range=data_range, reduction="sum")
                assert isinstance(each, Tensor)
                ssim, windows = ssim + float(each), windows + len(a)
        result[plane] = {"psnr": float(torch.cat(found).mean())}
        if windows:
            result[plane]["ssim"] = ssim / windows
    pairs = list(zip(torch.split(volume, 1), torch.split(truth, 1), strict=True))
    mse = sum(float((a - b).double().square().sum()) for a, b in pairs) / volume.numel()
    energy = sum(float(b.double().square().sum()) for _, b in pairs) / volume.numel()
    result["volume_psnr"] = min(100.0, 10 * math.log10(data_range**2 / max(mse, 1e-300)))
    if min(volume.shape) >= SSIM_WINDOW:
        result["volume_ssim"] = volume_ssim(volume, truth, data_range)
    result["nrmse"] = mse**0.5 / max(energy**0.5, 1e-30)
    return result


def _chunks(axis: int, *volumes: Tensor, keep: Tensor | None = None) -> Iterator[list[Tensor]]:
    """The slices of volumes along an axis, ``(n, 1, rows, columns)``, as many at once as have ``CHUNK`` pixels; those
    that are kept."""
    depth = volumes[0].shape[axis]
    size = max(1, CHUNK * depth // max(volumes[0].numel(), 1))
    for first in range(0, depth, size):
        part = slice(first, first + size)
        some = slice(None) if keep is None else keep[part]
        chunk = [volume.movedim(axis, 0)[part][some][:, None].float() for volume in volumes]
        if len(chunk[0]):
            yield chunk


def check_alike(name: str, **volumes: Tensor) -> None:
    """Raise ``InputError`` where these are no real volumes ``(Z, Y, X)`` of one shape."""
    shapes = {key: tuple(volume.shape) for key, volume in volumes.items()}
    if len(set(shapes.values())) > 1 or any(volume.ndim != 3 for volume in volumes.values()):
        shown = ", ".join(f"{key} is {shape}" for key, shape in shapes.items())
        raise InputError(f"{name}: {shown}; give (Z, Y, X), the same of all")
    if any(volume.is_complex() for volume in volumes.values()):
        raise InputError(f"{name}: complex volumes have no order; give their magnitude, .abs()")


def volume_ssim(volume: Float[Tensor, "z y x"], truth: Float[Tensor, "z y x"], data_range: float) -> float:
    """Mean SSIM over windows of 11 x 11 x 11 voxels, Gaussian with a deviation of 1.5, that lie inside the volume.

    In slabs of slices, since it holds five filtered copies of what it works on.
    """
    weights = torch.exp(-0.5 * ((torch.arange(SSIM_WINDOW) - SSIM_WINDOW // 2) / SSIM_SIGMA).square())
    kernel = (weights / weights.sum()).tolist()

    def smooth(x: Tensor) -> Tensor:
        for axis in range(3):  # weighted sums of shifted views: several times as fast as conv3d on a CPU
            size = x.shape[axis] - SSIM_WINDOW + 1
            out = kernel[0] * x.narrow(axis, 0, size)
            for shift in range(1, SSIM_WINDOW):
                out.add_(x.narrow(axis, shift, size), alpha=kernel[shift])
            x = out
        return x

    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    total, count = 0.0, 0
    for first in range(0, len(volume) - SSIM_WINDOW + 1, SLAB):
        slab = slice(first, first + SLAB + SSIM_WINDOW - 1)
        a, b = volume[slab].float(), truth[slab].float()
        mean_a, mean_b = smooth(a), smooth(b)
        var_a, var_b = smooth(a * a) - mean_a.square(), smooth(b * b) - mean_b.square()
        covariance = smooth(a * b) - mean_a * mean_b
        ssim = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
        ssim /= (mean_a.square() + mean_b.square() + c1) * (var_a + var_b + c2)
        total += float(ssim.double().sum())
        count += ssim.numel()
    return total / count
