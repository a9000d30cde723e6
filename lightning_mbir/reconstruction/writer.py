"""Results on the disk, each file whole or not there."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lightning_mbir.data.volume import Volume, write_volume
from lightning_mbir.errors import InputError
from lightning_mbir.prior.files import write_whole


def check_writable(folder: Path) -> None:
    """Raise where ``folder`` cannot be made or written to; leaves nothing behind."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        reason = "is not a folder" if not existing.is_dir() else "cannot be written to"
        raise InputError(f"--output_dir {folder}: {existing} {reason}; give a folder that you may write to")


def write_results(
    folder: Path, volume: Volume, metrics: dict[str, Any], figure: Figure, config_yaml: str | None
) -> None:
    """``recon.nii.gz``, ``metrics.json``, ``montage.png`` and ``predict_config.yaml`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_volume(folder / "recon.nii.gz", volume)
    write_whole(folder / "metrics.json", (json.dumps(metrics, indent=2) + "\n").encode())
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor="black")
    write_whole(folder / "montage.png", buffer.getvalue())
    if config_yaml is not None:
        write_whole(folder / "predict_config.yaml", config_yaml.encode())
