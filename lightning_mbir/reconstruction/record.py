"""What is told of one volume: to the caller, and on the screen."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed
from torch import Tensor

from lightning_mbir.data.units import MU_WATER, Modality
from lightning_mbir.data.volumes.nifti import read_nifti
from lightning_mbir.data.volumes.reading import as_volume
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.reconstruction.writer import METRICS
from lightning_mbir.report.metrics import PLANES

T = TypeVar("T")


@dataclass(frozen=True)
class VolumeRecord:
    """What ``predict`` has made of one volume, or has found finished with the same settings.

    Attributes:
        name: of the volume.
        task: ``sv_ct``, ``la_ct`` or ``cs_mri``.
        method: its name.
        folder: of the results.
        files: all of them by their names in ``folder``, such as ``recon.nii.gz`` and ``metrics.json``.
        metrics: what ``metrics.json`` holds (docs/comparison.md).
        seconds: that the reconstruction took, when it was made.
        volume: with ``keep_volumes``, the volume of ``recon.nii.gz``: on the grid of its file turned to RAS,
            ``(Z, Y, X)``, CT in 1/mm.
        std: likewise of ``std.nii.gz``, where there are samples, ``(Z, Y, X)`` in the unit of ``volume``.
    """

    name: str
    task: str
    method: str
    folder: Path
    files: dict[str, Path]
    metrics: dict[str, Any]
    seconds: float
    volume: Volume | None = None
    std: Tensor | None = None

    def to(self, device: torch.device | str) -> VolumeRecord:
        """With its volumes on a device; Lightning brings what ``predict_step`` gives to the host by this.

        Args:
            device: such as ``cpu``.
        """
        if self.volume is None:
            return self
        std = None if self.std is None else self.std.to(device)
        return replace(self, volume=self.volume.with_data(self.volume.data.to(device)), std=std)


def record_of(folder: Path, keep: bool, modality: Modality, notes: tuple[str, ...] = ()) -> VolumeRecord:
    """The record of the results in a folder.

    Args:
        folder: as ``predict`` leaves it.
        keep: whether its volumes are read.
        modality: of the volume.
        notes: of its reader.
    """
    metrics = json.loads((folder / METRICS).read_text())
    files = {name: folder / name for name in (*metrics["files"], METRICS)}
    told = metrics["volume"], metrics["task"], metrics["method"], folder, files, metrics, metrics["seconds"]
    if not keep:
        return VolumeRecord(*told)
    calibrated = bool(metrics["input"].get("calibrated", True))
    unit = MU_WATER / 1000 if modality == "ct" and calibrated else 1.0
    read = _read(files["recon.nii.gz"])
    data = read.data * unit + (MU_WATER if unit != 1.0 else 0.0)
    volume = replace(
        read,
        data=data,
        name=metrics["volume"],
        modality=modality,
        calibrated=modality == "mri" or calibrated,
        notes=notes,
    )
    spread = files.get("std.nii.gz")
    return VolumeRecord(*told, volume, None if spread is None else _read(spread).data * unit)


def _read(path: Path) -> Volume:
    """A volume of ours where it lay, as MRI, whose values are left as they are."""
    return as_volume(path, read_nifti(path, "mri", assumed=True), "mri")


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
