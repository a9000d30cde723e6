"""What is told of one volume: on the screen, and in TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from lightning_mbir.report.metrics import PLANES

T = TypeVar("T")


@dataclass(frozen=True)
class Record:
    """What TensorBoard is told of one volume; no picture of one that was finished before."""

    index: int
    metrics: dict[str, Any]
    picture: Tensor | None


def scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """The figures of one volume, ``plane/name`` where they are of a plane."""
    names = ("volume_psnr", "volume_ssim", "nrmse", "lpips", "residual", "misfit", "seconds", "nfe")
    scalars = {f"{plane}/{name}": value for plane in PLANES for name, value in metrics.get(plane, {}).items()}
    scalars |= {name: metrics[name] for name in names if name in metrics}
    spread = metrics.get("calibration", {})
    scalars |= {f"calibration/{name}": spread[name] for name in ("ratio", "within_90", "crps") if name in spread}
    return {name: float(value) for name, value in scalars.items() if value is not None}


def mean_scalars(records: Sequence[Record]) -> dict[str, float]:
    """Means over the volumes that have them."""
    found: dict[str, list[float]] = {}
    for record in records:
        for name, value in scalars(record.metrics).items():
            found.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def of_all_ranks(own: list[Record], ranks: int, volumes: int | None) -> list[Record]:
    """The records of all ranks in the order of the volumes, once all have come here.

    ``test`` makes the ranks even by repeating the first volumes; where it is known how many ``volumes`` there are, the
    repeats are left out.
    """
    lists = gathered(own, ranks)
    records = sorted((record for rank in lists for record in rank), key=lambda record: record.index)
    return [record for record in records if volumes is None or record.index < volumes]


def log_record(logger: object, task: str, record: Record) -> None:
    """Into TensorBoard, where that is the logger."""
    if not isinstance(logger, TensorBoardLogger):
        return
    board = logger.experiment
    for name, value in scalars(record.metrics).items():
        board.add_scalar(f"{task}/{name}", value, record.index)
    if record.picture is not None:
        board.add_image(f"{task}/{record.metrics['volume']}", record.picture, record.index, dataformats="HW")
    board.flush()


def summary(metrics: dict[str, Any], folder: Path) -> str:
    """A line on one volume, with where its results lie."""
    scores = ", ".join(f"{plane} {metrics[plane]['psnr']:.2f}" for plane in PLANES if plane in metrics)
    scores = f"PSNR {scores} dB, " if scores else ""
    if "acceleration" in metrics:
        scores = f"acceleration {metrics['acceleration']:.2f}, {scores}"
    work = f"data residual {metrics['residual']:.2e}{_misfit(metrics)}, {metrics['seconds']:.0f} s"
    return f"{metrics['volume']}: {scores}{work} -> {folder}"


def _misfit(metrics: dict[str, Any]) -> str:
    """The residual against what the noise alone would leave, and what that means where it is far from 1."""
    misfit = metrics.get("misfit")
    if misfit is None:
        return ""
    meaning = ": noise is fitted" if misfit < 0.7 else ": more than noise explains" if misfit > 2 else ""
    return f" ({misfit:.2f} of the noise{meaning})"


def gathered(own: list[T], ranks: int) -> list[list[T]]:
    """The lists of all ranks, once all have come here."""
    lists: list[list[T]] = [list(own)]
    if ranks > 1:
        lists = [[] for _ in range(ranks)]
        torch.distributed.all_gather_object(lists, own)
    return lists
