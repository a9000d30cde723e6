"""How good a prior is: denoising at fixed noise levels beside a reference, and unconditional samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_mbir.prior.denoiser import denoised

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIGMAS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Noise levels of the held-out denoising PSNR (peak 1)."""

CHURNED = (0.3, 80.0)
"""Levels at which samples are given fresh noise: where it is decided what a slice shows, and not how it looks."""

SHOWN_MM = 3.0
"""Distance of the slices of samples."""

SMOOTHING_WIDTHS = (0.0, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.3, 1.7, 2.2, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0)


def noisy_copies(images: Tensor, sigma: float, seed: int) -> Tensor:
    """``images + sigma n``; the same ``n`` for the same seed on every device."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return images + sigma * noise.to(images)


@torch.no_grad()
def denoising_mse(
    network: nn.Module,
    images: Tensor,
    sigmas: Sequence[float] = SIGMAS,
    seed: int = 0,
    distance: float | Tensor | None = None,
) -> Tensor:
    """Squared error ``(n_sigmas, B)`` of denoised images ``(B, C, Y, X)``, a mean over channels and pixels.

    Of a network of several slices their ``distance`` in mm is that of all, or of each image ``(B,)``.
    """
    errors = []
    for sigma in sigmas:
        clean = denoised(network, noisy_copies(images, sigma, seed), sigma, distance)
        errors.append((clean - images).square().mean((1, 2, 3)))
    return torch.stack(errors)


@torch.no_grad()
def smoothing_mse(images: Tensor, sigmas: Sequence[float] = SIGMAS, seed: int = 0) -> Tensor:
    """The reference: squared error ``(n_sigmas, B)`` of the best Gaussian smoothing of each image.

    The width is chosen by the truth, for each image and level, among ``SMOOTHING_WIDTHS`` pixels: no smoothing filter
    of this kind does better.
    """
    rows, columns = images.shape[-2:]
    v = torch.fft.fftfreq(rows, device=images.device)[:, None]
    u = torch.fft.rfftfreq(columns, device=images.device)
    gains = [torch.exp(-2 * (torch.pi * width) ** 2 * (u**2 + v**2)) for width in SMOOTHING_WIDTHS]
    best = []
    for sigma in sigmas:
        spectrum = torch.fft.rfft2(noisy_copies(images, sigma, seed))
        smooth = (torch.fft.irfft2(spectrum * gain, s=(rows, columns)) for gain in gains)
        errors = torch.stack([(image - images).square().mean((1, 2, 3)) for image in smooth])
        best.append(errors.amin(0))
    return torch.stack(best)


def psnr(mse: Tensor) -> Tensor:
    """PSNR in dB of a peak of 1."""
    return -10 * mse.log10()


@torch.no_grad()
def generate(
    network: nn.Module,
    n: int,
    image_size: int | tuple[int, int],
    steps: int = 24,
    sigma_max: float = 150.0,
    seed: int = 0,
    device: torch.device | str = "cpu",
    churn: float = 0.2,
) -> Tensor:
    """``(n, C, Y, X)`` unconditional samples, by the stochastic sampler of Karras et al. 2022 (EDM), algorithm 2, with
    levels spaced as in equation 5, from ``sigma_max`` to 0.02.

    Args:
        n: how many.
        image_size: of a square, or ``(Y, X)``.
        steps: of Heun's method: twice as many evaluations, less one.
        sigma_max: must hide the mean of a whole slice, which is that of a pixel times the square root of their number.
        seed: of all noise; the same samples on every device.
        churn: by what share a level in ``CHURNED`` is raised with fresh noise before each step (the paper has 0.41
            at most). That makes good for errors of the steps before; 0 follows the probability flow.
    """
    together = int(getattr(network, "slices", 1))
    channels, distance = together * int(getattr(network, "in_channels", 1)), SHOWN_MM if together > 1 else None
    generator = torch.Generator().manual_seed(seed)
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    x = sigma_max * torch.randn((n, channels, *size), generator=generator).to(device)
    ramp = torch.linspace(1, 0, steps, dtype=torch.float64)
    levels = (0.02 ** (1 / 7) + ramp * (sigma_max ** (1 / 7) - 0.02 ** (1 / 7))) ** 7

    def slope(image: Tensor, sigma: float) -> Tensor:
        return (image - denoised(network, image, sigma, distance)) / sigma

    for now, after in pairwise([*levels.tolist(), 0.0]):
        if CHURNED[0] <= now <= CHURNED[1]:
            fresh = torch.randn(x.shape, generator=generator).to(x)
            x = x + now * math.sqrt((1 + churn) ** 2 - 1) * fresh
            now *= 1 + churn
        first = slope(x, now)
        ahead = x + (after - now) * first
        x = ahead if after == 0 else x + (after - now) * 0.5 * (first + slope(ahead, after))
    return x


def magnitude(images: Tensor) -> Tensor:
    """``(B, C, Y, X)`` to what is looked at, ``(B, Y, X)``: the image or the modulus of a complex one, of three slices
    the middle."""
    if images.shape[1] % 3 == 0:
        images = images.chunk(3, 1)[1]
    return images[:, 0] if images.shape[1] == 1 else images.square().sum(1).sqrt()


def sheet(rows: Sequence[Tensor]) -> Tensor:
    """One picture ``(rows Y, B X)`` in 0 .. 1 of rows of images ``(B, C, Y, X)``."""
    return torch.cat([torch.cat(list(magnitude(row)), 1) for row in rows]).clamp(0, 1).float().cpu()


def rows_figure(title: str, rows: Mapping[str, Tensor]) -> Figure:
    """Images ``(B, C, Y, X)`` side by side, a row of each below its name, in grey values from 0 to 1."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    head, wide, dpi = 0.26, 4.8, 110
    pictures = {name: sheet([images]).numpy() for name, images in rows.items()}
    heights = [wide * picture.shape[0] / picture.shape[1] for picture in pictures.values()]
    tall = head * (len(rows) + 1) + sum(heights)
    figure = Figure(figsize=(wide, tall), facecolor="black", dpi=dpi)
    FigureCanvasAgg(figure)
    text: dict[str, Any] = {"color": "white", "fontsize": 10, "va": "center"}
    figure.text(0.01, 1 - head / 2 / tall, f"{title}; grey values 0 to 1", **text)
    top = head
    for (name, picture), height in zip(pictures.items(), heights, strict=True):
        figure.text(0.01, 1 - (top + head / 2) / tall, name, **text)
        axes = figure.add_axes((0, 1 - (top + head + height) / tall, 1, height / tall))
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_axis_off()
        top += head + height
    return figure


def psnr_figure(curves: Mapping[str, Sequence[float]]) -> Figure:
    """Denoising PSNR over the noise level: a solid line each, broken where the name says that it is a reference."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, values in curves.items():
        reference = "smoothing" in name
        axes.plot(SIGMAS, values, "--" if reference else "o-", label=name, lw=1.2 if reference else 1.8, ms=4)
    axes.set(xscale="log", xlabel="noise level sigma (peak 1)", ylabel="PSNR of the denoised slice (dB)")
    axes.set_xticks(SIGMAS, [f"{sigma:g}" for sigma in SIGMAS])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure
