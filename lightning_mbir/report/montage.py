"""Pictures of a reconstruction: three planes beside the truth, the direct inversion and the error, or in a row."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from lightning_mbir.board import pixels
from lightning_mbir.kinds import check_kinds
from lightning_mbir.report.metrics import PLANES, decibels
from lightning_mbir.report.scale import Scale
from lightning_mbir.report.sheet import (
    COLOURS,
    GAP,
    Picture,
    Place,
    Planes,
    Sheet,
    mark,
    middle,
    middle_planes,
    planes_sheet,
    show,
)

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
    check_kinds(montage, locals())
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


STRIP, ROW = 7.2, 3.2
"""Inches that a strip is wide, and that its rows are high at most."""


def strip(title: str, rows: Sequence[tuple[str, Planes]], place: Place, scale: Scale) -> np.ndarray:
    """The middle slices of a volume side by side, a row for each of several; smaller than ``montage``, for TensorBoard.

    Args:
        title: above all.
        rows: name and middle slices, in physical unit, of each.
        place: where the voxels lie.
        scale: window and unit.

    Returns:
        an image ``(height, width, 3)`` of bytes.
    """
    sizes = {plane: place.size(plane) for plane in place.planes}
    margin, label, head = 0.1, 0.24, 0.36
    room = STRIP - 2 * margin - GAP * (len(sizes) - 1)
    per_mm = min(room / sum(wide for _, wide in sizes.values()), ROW / max(high for high, _ in sizes.values()))
    height = per_mm * max(high for high, _ in sizes.values())
    lines = textwrap.wrap(title, int(STRIP * 11))
    top = head + 0.2 * (len(lines) - 1)
    sheet = Sheet(STRIP, top + len(rows) * (label + height + GAP) + label)
    for k, line in enumerate(lines):
        sheet.text(margin, head / 2 + 0.2 * k, line, 11)
    for k, (name, planes) in enumerate(rows):
        left, y = margin, top + k * (label + height + GAP)
        for plane, (high, wide) in sizes.items():
            n = place.shape[PLANES[plane]]
            told = f"{plane} {n // 2 + 1} of {n}"
            sheet.text(left, y + label / 2, f"{name}: {told}" if plane == place.planes[0] else told, 10, "0.7")
            ax = sheet.axes(left, y + label, wide * per_mm, high * per_mm)
            pixel = place.pixel(plane)
            show(ax, scale.shown(planes[plane]), pixel[0] / pixel[1], COLOURS["grey"], scale.window)
            mark(ax, plane, place, high * per_mm, measure=k == 0 and plane == place.planes[0])
            left += wide * per_mm + GAP
    sheet.text(margin, sheet.tall - label / 2, scale.window_text, 10, "0.7")
    return pixels(sheet.figure)
