"""Results on the disk, each file whole or not there."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lightning_mbir.data.units import MU_WATER
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.data.volumes.writing import write_volume
from lightning_mbir.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_results(
    folder: Path, volume: Volume, metrics: dict[str, Any], figure: Figure, config_yaml: str | None
) -> None:
    """``recon.nii.gz``, ``metrics.json``, ``montage.png`` and ``predict_config.yaml`` into ``folder``.

    What an earlier run told of the spread of samples goes away: it is not of this volume.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("std.nii.gz", "calibration.png"):
        (folder / name).unlink(missing_ok=True)
    write_volume(folder / "recon.nii.gz", volume)
    write_whole(folder / "metrics.json", (json.dumps(metrics, indent=2) + "\n").encode())
    write_figure(folder / "montage.png", figure)
    if config_yaml is not None:
        write_whole(folder / "predict_config.yaml", config_yaml.encode())


def write_figure(path: Path, figure: Figure) -> None:
    """A figure as PNG, on black."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor="black")
    write_whole(path, buffer.getvalue())


def write_spread(folder: Path, volume: Volume, std: Tensor, calibration: Figure | None) -> None:
    """``std.nii.gz``, of CT in HU, and with ground truth ``calibration.png`` beside the results of ``volume``."""
    hounsfield = volume.modality == "ct" and volume.calibrated
    # A deviation is scaled, not shifted as HU are: for the writer it is a volume without a unit.
    data = std.cpu() * (1000 / MU_WATER if hounsfield else 1.0)
    write_volume(folder / "std.nii.gz", replace(volume, data=data, calibrated=False))
    if calibration is not None:
        write_figure(folder / "calibration.png", calibration)
