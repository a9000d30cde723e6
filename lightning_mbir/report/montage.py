"""Pictures of a reconstruction: three planes beside the truth, the direct inversion and the error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lightning_mbir.report.metrics import PLANES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW = 4  # slices, below which the other two planes are lines

Planes = dict[str, np.ndarray]
"""The middle slice of each plane, as ``middle`` cuts it."""


def montage(
    volume: Tensor,
    direct: Tensor,
    truth: Tensor | None,
    spacing: tuple[float, float, float],
    window: tuple[float, float],
    titles: tuple[str, str],
    metrics: dict[str, Any] | None = None,
) -> Figure:
    """The middle slice of each plane; columns truth, direct inversion, reconstruction, error.

    Volumes of fewer than ``FEW`` slices are shown in the axial plane alone.

    Args:
        volume: reconstruction ``(Z, Y, X)``.
        direct: filtered back-projection or zero-filled volume.
        truth: the true volume, where there is one.
        spacing: voxel size ``(z, y, x)`` in mm, for the aspect of the pictures.
        window: grey values of black and white, the same everywhere.
        titles: names of the direct inversion and of the method.
        metrics: of ``image_metrics``, shown under the reconstruction.
    """
    columns = [(titles[0], direct), (titles[1], volume)]
    if truth is not None:
        columns.insert(0, ("ground truth", truth))
    z, y, x = (n * s for n, s in zip(volume.shape, spacing, strict=True))
    planes = list(PLANES)[: 3 if len(volume) >= FEW else 1]
    heights = [y, z, z][: len(planes)]  # axial, coronal, sagittal
    n = len(columns) + (truth is not None)
    width = 2.9
    heights_in = [width * h / max(x, y) for h in heights]
    size = (width * n + 0.9, sum(heights_in) + 0.3 * len(planes) + 0.3)
    figure = new_figure(size, layout="constrained")
    axes = figure.subplots(len(planes), n, gridspec_kw={"height_ratios": heights_in}, squeeze=False)
    error_peak = 0.2 * (window[1] - window[0])
    for row, plane in enumerate(planes):
        for column, (title, data) in enumerate(columns):
            ax = axes[row, column]
            show(ax, middle(data, plane), aspect(plane, spacing), "gray", window)
            if row == 0:
                ax.set_title(title, color="white", fontsize=11)
        if truth is not None:
            error = middle(volume - truth, plane)
            picture = show(axes[row, -1], error, aspect(plane, spacing), "RdBu_r", (-error_peak, error_peak))
            if row == 0:
                axes[row, -1].set_title(f"error (±{error_peak:.2g})", color="white", fontsize=11)
                bar = figure.colorbar(picture, ax=axes[:, -1], fraction=0.05, pad=0.02)
                bar.ax.tick_params(colors="white", labelsize=8)
        if metrics is not None:
            score = metrics[plane]
            text = f"{score['psnr']:.2f} dB" + (f", SSIM {score['ssim']:.3f}" if "ssim" in score else "")
            axes[row, n - 2].set_xlabel(text, color="white", fontsize=9)
        axes[row, 0].set_ylabel(plane, color="white", fontsize=10)
    return figure


def new_figure(size: tuple[float, float], **options: Any) -> Figure:
    """An empty figure on black, ``(width, height)`` in inches; matplotlib is imported for the first one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, facecolor="black", **options)
    FigureCanvasAgg(figure)
    return figure


def middle(data: Tensor, plane: str) -> np.ndarray:
    """The middle slice of a plane as people look at it: front and head up, rows downwards."""
    axis = PLANES[plane]
    picture = data.detach().float().cpu().select(axis, data.shape[axis] // 2)
    # RAS: rows go from back to front (axial) or foot to head, so they are turned upside down.
    return torch.flip(picture, (0, 1)).numpy()


def middle_planes(volume: Tensor) -> Planes:
    """The middle slices of ``(Z, Y, X)``."""
    return {plane: middle(volume, plane) for plane in PLANES}


def planes_image(volume: Tensor, window: tuple[float, float]) -> Tensor:
    """The three middle slices side by side, ``(height, width)`` in 0 .. 1, for TensorBoard."""
    low, high = window
    pictures = [torch.from_numpy(middle(volume, plane).copy()) for plane in PLANES]
    height = max(p.shape[0] for p in pictures)
    padded = [torch.nn.functional.pad(p, (0, 4, 0, height - p.shape[0]), value=low) for p in pictures]
    return ((torch.cat(padded, 1) - low) / (high - low)).clamp(0, 1)


def aspect(plane: str, spacing: tuple[float, float, float]) -> float:
    """Height over width of a pixel."""
    z, y, x = spacing
    return {"axial": y / x, "coronal": z / x, "sagittal": z / y}[plane]


def show(ax: Any, picture: np.ndarray, aspect: float, colours: str, window: tuple[float, float]) -> Any:
    """Draw a picture and nothing around it; returns what a colour bar takes."""
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax.imshow(picture, cmap=colours, vmin=window[0], vmax=window[1], aspect=aspect, interpolation="bilinear")
