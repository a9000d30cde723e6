"""Figures of several results: volumes beside each other, and the spread of samples beside the error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from lightning_mbir.kinds import check_kinds
from lightning_mbir.report.calibration import Calibration
from lightning_mbir.report.metrics import PLANES
from lightning_mbir.report.montage import SCORES, score_text
from lightning_mbir.report.scale import Scale
from lightning_mbir.report.sheet import Picture, Place, Planes, middle_planes, planes_sheet
from lightning_mbir.report.tables import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def comparison_figure(
    title: str, truth: Tensor, results: list[tuple[Row, Planes | None]], place: Place, scale: Scale
) -> Figure:
    """The middle slice of each plane: truth and methods, and below each method its error.

    Args:
        title: what the measurement is.
        truth: ``(Z, Y, X)`` in physical unit.
        results: row and planes of each method; a failed one has no planes.
        place: where the voxels lie.
        scale: window of all pictures, and the unit of errors.
    """
    columns = [(row["method"], planes, None if planes is None else row) for row, planes in results]
    return planes_sheet(title, _with_errors("ground truth", middle_planes(truth), columns), place, scale, SCORES).figure


def volumes_figure(
    title: str,
    volumes: Mapping[str, Tensor],
    place: Place,
    scale: Scale,
    truth: Tensor | None = None,
    metrics: Mapping[str, dict[str, Any]] | None = None,
    truth_name: str = "ground truth",
) -> Figure:
    """Volumes beside each other, the middle slice of each plane; with a truth, their errors below them.

    Args:
        title: what they are.
        volumes: ``(Z, Y, X)`` in physical unit by what stands above them; of complex ones the magnitude is shown.
        place: where the voxels lie.
        scale: window and unit, the same everywhere.
        truth: the true volume, which becomes the first column.
        metrics: of ``image_metrics``, by the names of ``volumes``; they stand under the pictures.
        truth_name: what stands above the truth, or above what is taken for it.
    """
    check_kinds(volumes_figure, locals())
    images = {name: volume.abs() if volume.is_complex() else volume for name, volume in volumes.items()}
    columns = [(name, middle_planes(image), (metrics or {}).get(name)) for name, image in images.items()]
    if truth is None:
        rows: list[list[Picture | None]] = [[Picture(*column[:2], captions=_scores(column[2])) for column in columns]]
    else:
        rows = _with_errors(truth_name, middle_planes(truth.abs() if truth.is_complex() else truth), columns)
    return planes_sheet(title, rows, place, scale, SCORES if metrics else "").figure


def _with_errors(
    truth_name: str, wanted: Planes, columns: Sequence[tuple[str, Planes | None, dict[str, Any] | None]]
) -> list[list[Picture | None]]:
    """The truth and what is held against it, by name, planes and scores; and below each its error."""
    above: list[Picture | None] = [Picture(truth_name, wanted)]
    below: list[Picture | None] = [None]
    for name, planes, scores in columns:
        above.append(Picture(name, planes, captions=_scores(scores)))
        error = None if planes is None else {plane: planes[plane] - wanted[plane] for plane in PLANES}
        below.append(None if error is None else Picture("", error, "error"))
    return [above, below]


def _scores(metrics: dict[str, Any] | None) -> dict[str, str]:
    return {} if metrics is None else {plane: score_text(metrics[plane]) for plane in PLANES}


def calibration_figure(
    title: str,
    calibration: Calibration,
    mean: Tensor,
    std: Tensor,
    truth: Tensor,
    samples: int,
    place: Place,
    scale: Scale,
    factor: float = 1.0,
) -> Figure:
    """The reliability diagram, and the error of the mean beside the spread of the samples in the middle planes.

    Args:
        title: what was measured and how it was reconstructed.
        calibration: of ``calibrate``.
        mean, std, truth: ``(Z, Y, X)`` in physical unit; ``samples`` is how many the first two are of.
        place: where the voxels lie.
        scale: window and unit.
        factor: that ``std`` is from the samples' own.
    """
    check_kinds(calibration_figure, locals())
    errors, spreads = middle_planes((mean - truth).abs()), middle_planes(std)
    peak = float(np.quantile(np.concatenate([errors[plane].ravel() for plane in place.planes]), 0.995)) * scale.factor
    row: list[Picture | None] = [
        Picture("mean of the samples", middle_planes(mean)),
        Picture("|error| of the mean", errors, "spread"),
        Picture("deviation of samples", spreads, "spread"),
    ]
    sheet = planes_sheet(title, [row], place, scale, aside=4.5, least=5.9, peak=max(peak, 1e-12))
    _reliability(sheet.axes(0.75, 0.8, 3.3, 3.3), calibration, scale)
    lines = [
        f"RMSE / predicted deviation {calibration.ratio:.2f}",
        *(
            f"within {k} deviation{'s' * (k > 1)}: {100 * calibration.within[k - 1]:.0f} % of the voxels "
            f"({100 * calibration.expected[k - 1]:.0f} % expected)"
            for k in (1, 2)
        ),
        f"within their 90 %: {100 * calibration.within_90:.0f} %",
        f"{samples} samples" + (f", spread times {factor:g}" if factor != 1 else ""),
    ]
    for k, line in enumerate(lines):
        sheet.text(0.75, 4.75 + 0.2 * k, line)
    return sheet.figure


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
    ax.set_xlabel(f"predicted deviation{scale.in_brackets}", color="white", fontsize=9)
    ax.set_ylabel(f"root-mean-square error{scale.in_brackets}", color="white", fontsize=9)
    ax.tick_params(colors="white", labelsize=8, which="both")
    for spine in ax.spines.values():
        spine.set_color("0.5")
