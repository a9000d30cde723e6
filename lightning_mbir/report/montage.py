"""Pictures of a reconstruction: three planes beside the truth, the direct inversion and the error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lightning_mbir.report.metrics import PLANES, decibels
from lightning_mbir.report.scale import Scale
from lightning_mbir.report.sheet import Picture, Place, middle, middle_planes, planes_sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def montage(
    title: str,
    name: str,
    volume: Tensor,
    direct: tuple[str, Tensor] | None,
    truth: Tensor | None,
    place: Place,
    scale: Scale,
    metrics: dict[str, Any] | None = None,
) -> Figure:
    """The middle slice of each plane; columns truth, direct inversion, reconstruction, error.

    Volumes of fewer than four slices are shown in the axial plane alone.

    Args:
        title: what was measured and how it was reconstructed.
        name: of the method, above its column.
        volume: reconstruction ``(Z, Y, X)`` in physical unit.
        direct: name and volume of the direct inversion; none where that is the method itself.
        truth: the true volume, where there is one.
        place: where the voxels lie.
        scale: window and unit, the same everywhere.
        metrics: of ``image_metrics``, shown under the reconstruction.
    """
    scores = {} if metrics is None else {plane: score_text(metrics[plane]) for plane in PLANES}
    row: list[Picture | None] = [Picture(name, middle_planes(volume), captions=scores)]
    if direct is not None:
        row.insert(0, Picture(direct[0], middle_planes(direct[1])))
    if truth is not None:
        row.insert(0, Picture("ground truth", middle_planes(truth)))
        error = {plane: middle(volume, plane) - middle(truth, plane) for plane in PLANES}
        row.append(Picture(f"error of {name}", error, "error"))
    note = "" if metrics is None else SCORES
    return planes_sheet(title, [row], place, scale, note).figure


SCORES = "PSNR and SSIM are means over the slices of the plane"


def score_text(score: dict[str, float]) -> str:
    """PSNR and SSIM of a plane."""
    return decibels(score["psnr"]) + (f", SSIM {score['ssim']:.3f}" if score.get("ssim") is not None else "")


def planes_image(volume: Tensor, window: tuple[float, float]) -> Tensor:
    """The three middle slices side by side, ``(height, width)`` in 0 .. 1, for TensorBoard."""
    low, high = window
    pictures = [torch.from_numpy(np.ascontiguousarray(middle(volume, plane))) for plane in PLANES]
    height = max(p.shape[0] for p in pictures)
    padded = [torch.nn.functional.pad(p, (0, 4, 0, height - p.shape[0]), value=low) for p in pictures]
    return ((torch.cat(padded, 1) - low) / (high - low)).clamp(0, 1)
