"""Figures of several results: methods beside each other, and the spread of samples beside the error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from lightning_mbir.data.units import MU_WATER, Modality
from lightning_mbir.report.calibration import Calibration
from lightning_mbir.report.metrics import PLANES, decibels
from lightning_mbir.report.montage import FEW, Planes, aspect, middle_planes, new_figure, show
from lightning_mbir.report.tables import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ERROR_SHARE = 0.2
"""Share of the window at which an error has its full colour."""

LEAST_ROW = 0.75
"""Inches that a row of thin pictures takes, for the sake of its label."""


@dataclass(frozen=True)
class Scale:
    """How numbers are shown.

    Attributes:
        window: black and white, in physical unit.
        factor: from physical unit to the unit of the labels.
        unit: name of that unit.
    """

    window: tuple[float, float]
    factor: float = 1.0
    unit: str = ""

    @classmethod
    def of(cls, modality: Modality, window: tuple[float, float], calibrated: bool = True) -> Scale:
        """Differences in HU for CT, in the file's own unit for MRI."""
        if modality == "ct" and calibrated:
            return cls(window, 1000 / MU_WATER, " (HU)")
        return cls(window)


def comparison_figure(
    title: str,
    truth: Tensor,
    results: list[tuple[Row, Planes | None]],
    spacing: tuple[float, float, float],
    scale: Scale,
) -> Figure:
    """The middle slice of each plane: truth and methods, and below each method its error.

    Args:
        title: what the measurement is.
        truth: ``(Z, Y, X)``.
        results: row and planes of each method; a failed one has no planes.
        spacing: voxel size ``(z, y, x)`` in mm.
        scale: window of all pictures, and the unit of errors.
    """
    wanted = middle_planes(truth)
    planes = [plane for plane in PLANES if plane == "axial" or len(truth) >= FEW]
    sizes = {plane: tuple(np.multiply(wanted[plane].shape, _pixel(plane, spacing))) for plane in planes}
    width = 2.5 if len(results) < 5 else 1.9
    per_mm = width / max(size[1] for size in sizes.values())
    heights = {plane: sizes[plane][0] * per_mm for plane in planes}
    grid = _Grid(columns=1 + len(results), width=width, left=0.32, top=0.6)
    tall = grid.top + sum(2 * height + grid.caption + 3 * grid.gap for height in heights.values()) + 0.3
    figure = grid.figure(tall)
    figure.text(grid.x(grid.left), grid.y(0.14), title, color="white", fontsize=11, va="center")
    low, high = scale.window
    peak = ERROR_SHARE * (high - low)
    picture: Any = None
    y = grid.top
    for plane in planes:
        height, ratio = heights[plane], aspect(plane, spacing)
        centred: dict[str, Any] = {"color": "white", "fontsize": 10, "ha": "center", "va": "center"}
        figure.text(grid.x(0.16), grid.y(y + height / 2), plane, rotation=90, **centred)
        below = y + height + grid.caption
        for column, (name, planes_of, row) in enumerate(
            [("ground truth", wanted, None), *((row["method"], planes_of, row) for row, planes_of in results)]
        ):
            ax = grid.axes(column, y, height)
            if plane == planes[0]:
                ax.set_title(name, color="white", fontsize=11, pad=5)
            if planes_of is None:
                show(ax, np.full(wanted[plane].shape, low), ratio, "gray", scale.window)
                ax.text(0.5, 0.5, "failed", transform=ax.transAxes, **centred)
                continue
            show(ax, planes_of[plane], ratio, "gray", scale.window)
            if row is None:
                continue
            grid.text(column, y + height + grid.caption / 2, _scores(row[plane]))
            error = (planes_of[plane] - wanted[plane]) * scale.factor
            limit = (-peak * scale.factor, peak * scale.factor)
            picture = show(grid.axes(column, below, height), error, ratio, "RdBu_r", limit)
        y = below + height + 3 * grid.gap
    if picture is not None:  # into the empty place below the truth
        first = grid.top + heights[planes[0]] + grid.caption
        cax = grid.axes(0, first + heights[planes[0]] / 2, 0.12, inset=0.2)
        bar = figure.colorbar(picture, cax=cax, orientation="horizontal")
        bar.set_label(f"error{scale.unit}", color="white", fontsize=9)
        bar.ax.tick_params(colors="white", labelsize=8)
    note = "dB: PSNR, then SSIM, means over the slices of the plane"
    figure.text(grid.x(grid.left), 0.12 / tall, note, color="0.7", fontsize=8, va="center")
    return figure


def calibration_figure(
    calibration: Calibration,
    mean: Tensor,
    std: Tensor,
    truth: Tensor,
    samples: int,
    spacing: tuple[float, float, float],
    scale: Scale,
    factor: float = 1.0,
) -> Figure:
    """The reliability diagram, and the error of the mean beside the spread of the samples in the middle planes.

    Args:
        calibration: of ``calibrate``.
        mean, std, truth: ``(Z, Y, X)``; ``samples`` is how many the first two are of.
        spacing: voxel size ``(z, y, x)`` in mm.
        scale: the unit of the labels.
        factor: that ``std`` is from the samples' own.
    """
    planes = [plane for plane in PLANES if plane == "axial" or len(truth) >= FEW]
    errors, spreads, anatomy = middle_planes((mean - truth).abs()), middle_planes(std), middle_planes(mean)
    sizes = {plane: tuple(np.multiply(errors[plane].shape, _pixel(plane, spacing))) for plane in planes}
    width, left = 2.2, 4.6
    per_mm = width / max(size[1] for size in sizes.values())
    heights = {plane: sizes[plane][0] * per_mm for plane in planes}
    grid = _Grid(columns=3, width=width, left=left, top=0.4)
    rows = {plane: max(height + grid.gap, LEAST_ROW) for plane, height in heights.items()}
    tall = max(grid.top + sum(rows.values()) + 0.7, 5.5)
    figure = grid.figure(tall)
    _reliability(figure.add_axes((0.75 / grid.wide, 1 - 3.85 / tall, 3.3 / grid.wide, 3.3 / tall)), calibration, scale)
    figures = (
        f"RMSE / predicted deviation {calibration.ratio:.2f}\n"
        + "\n".join(
            f"within {k} deviation{'s' * (k > 1)}: {100 * calibration.within[k - 1]:.0f} % of the voxels "
            f"({100 * calibration.expected[k - 1]:.0f} % expected)"
            for k in (1, 2)
        )
        + f"\nwithin their 90 %: {100 * calibration.within_90:.0f} %"
        + f"\n{samples} samples"
        + (f", spread times {factor:g}" if factor != 1 else "")
    )
    figure.text(grid.x(0.75), grid.y(4.55), figures, color="white", fontsize=9, va="top")
    peak = float(np.quantile(np.concatenate([errors[plane].ravel() for plane in planes]), 0.995)) * scale.factor
    peak = max(peak, 1e-12)
    y = grid.top
    picture: Any = None
    for plane in planes:
        height, ratio = heights[plane], aspect(plane, spacing)
        for column, (name, planes_of) in enumerate(
            (("mean of the samples", anatomy), ("|error| of the mean", errors), ("deviation of samples", spreads))
        ):
            ax = grid.axes(column, y, height)
            if plane == planes[0]:
                ax.set_title(name, color="white", fontsize=10, pad=5)
            if column == 0:
                show(ax, planes_of[plane], ratio, "gray", scale.window)
                ax.set_ylabel(plane, color="white", fontsize=9)
            else:
                picture = show(ax, planes_of[plane] * scale.factor, ratio, "inferno", (0.0, peak))
        y += rows[plane]
    cax = grid.axes(1, y + 0.08, 0.12, span=2)
    bar = figure.colorbar(picture, cax=cax, orientation="horizontal")
    bar.set_label(f"error and deviation{scale.unit}", color="white", fontsize=9)
    bar.ax.tick_params(colors="white", labelsize=8)
    return figure


def _reliability(ax: Any, calibration: Calibration, scale: Scale) -> None:
    predicted = np.array(calibration.predicted) * scale.factor
    error = np.array(calibration.error) * scale.factor
    ax.set_facecolor("black")
    shown = (predicted > 0) & (error > 0)
    if shown.any():
        both = np.concatenate([predicted[shown], error[shown]])
        ends = [both.min() / 1.3, both.max() * 1.3]
        ax.loglog(ends, ends, "--", color="0.6", linewidth=1, label="calibrated")
        ax.loglog(predicted[shown], error[shown], "o-", color="#ffb347", markersize=4, label="bins of equal counts")
        ax.set_xlim(ends)
        ax.set_ylim(ends)
        ax.legend(facecolor="black", edgecolor="0.4", labelcolor="white", fontsize=8, loc="upper left")
    ax.set_xlabel(f"predicted deviation{scale.unit}", color="white", fontsize=9)
    ax.set_ylabel(f"root-mean-square error{scale.unit}", color="white", fontsize=9)
    ax.tick_params(colors="white", labelsize=8, which="both")
    for spine in ax.spines.values():
        spine.set_color("0.5")


class _Grid:
    """Places pictures in inches from the left and the top."""

    gap, caption = 0.05, 0.24

    def __init__(self, columns: int, width: float, left: float, top: float) -> None:
        self.width, self.left, self.top = width, left, top
        self.wide = left + columns * (width + self.gap) + 0.1

    def figure(self, tall: float) -> Figure:
        self.tall = tall
        self._figure = new_figure((self.wide, tall))
        return self._figure

    def x(self, inches: float) -> float:
        return inches / self.wide

    def y(self, inches: float) -> float:
        return 1 - inches / self.tall

    def axes(self, column: int, top: float, height: float, span: int = 1, inset: float = 0.0) -> Any:
        left = self.left + column * (self.width + self.gap) + inset
        width = span * self.width + (span - 1) * self.gap - 2 * inset
        place = (self.x(left), self.y(top + height), width / self.wide, height / self.tall)
        return self._figure.add_axes(place)

    def text(self, column: int, y: float, text: str) -> None:
        x = self.left + column * (self.width + self.gap) + self.width / 2
        self._figure.text(self.x(x), self.y(y), text, color="white", fontsize=9, ha="center", va="center")


def _pixel(plane: str, spacing: tuple[float, float, float]) -> tuple[float, float]:
    """Height and width of a pixel in mm."""
    z, y, x = spacing
    return {"axial": (y, x), "coronal": (z, x), "sagittal": (z, y)}[plane]


def _scores(score: dict[str, float]) -> str:
    return decibels(score["psnr"]) + (f"  {score['ssim']:.3f}" if "ssim" in score else "")
