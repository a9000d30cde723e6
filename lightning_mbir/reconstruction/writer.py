"""What lies in the folder of a volume's results: written, found again, and told from what is not ours."""

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
from lightning_mbir.errors import InputError
from lightning_mbir.files import write_whole
from lightning_mbir.report.sheet import DPI
from lightning_mbir.report.tables import to_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = "metrics.json"
STATE = "samples/running.npz"
"""The samples so far, from which a run that was killed goes on."""
TRIED = "tuning.json"
"""The settings that were tried so far, likewise; in the end with what was chosen."""
KEPT = "state"
"""The state of the reconstruction that runs, likewise; see ``lightning_mbir/checkpointing.py``."""
STATES = (STATE, TRIED, KEPT)
"""What a run that was killed is gone on from."""
OURS = {
    "recon.nii.gz",
    "std.nii.gz",
    "off_by.nii.gz",
    METRICS,
    "montage.png",
    "calibration.png",
    "predict_config.yaml",
    TRIED,
}
REPORT = "report.html"
OURS |= {"tuning.png", REPORT}
DICOM = "dicom"
"""The derived series of ``--write dicom``."""
FOLDERS = {"samples", DICOM}


def write_results(
    folder: Path, volume: Volume, metrics: dict[str, Any], figure: Figure, config_yaml: str | None
) -> None:
    """``recon.nii.gz``, ``montage.png`` and ``predict_config.yaml`` into ``folder``.

    At last ``metrics.json``, with the names of all files that lie there then.
    """
    write_volume(folder / "recon.nii.gz", volume)
    write_figure(folder / "montage.png", figure)
    if config_yaml is not None:
        write_whole(folder / "predict_config.yaml", config_yaml.encode())
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    names = sorted(str(file) for file in files if file != Path(STATE) and file.parts[0] != KEPT)
    write_whole(
        folder / METRICS,
        to_json({**metrics, "files": names}),
    )


def finished(folder: Path, key: str) -> dict[str, Any] | None:
    """The metrics of the results in a folder, if these are of the identity ``key`` and all there."""
    try:
        metrics = json.loads((folder / METRICS).read_text())
        if metrics["key"] == key and all((folder / name).is_file() for name in metrics["files"]):
            return dict(metrics)
    except (OSError, ValueError, KeyError, TypeError):  # none, or of another version
        pass
    return None


def check_replaceable(folder: Path) -> None:
    """Raise where a folder holds what would be lost with the results that are replaced.

    Raises:
        InputError: files that no run has written; hidden ones do not count.
    """
    if not folder.is_dir():
        return
    ours = {path.name for path in folder.iterdir() if path.name in (FOLDERS if path.is_dir() else OURS)}
    others = sorted(path.name for path in folder.iterdir() if path.name not in ours and path.name[0] != ".")
    if others:
        raise InputError(
            f"{folder}: new results take the place of the folder, and {', '.join(others[:3])} in it is none of them; "
            "move that, or give another --output_dir"
        )


def write_figure(path: Path, figure: Figure) -> None:
    """A figure as PNG, on black."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="black")
    write_whole(path, buffer.getvalue())


def write_spread(folder: Path, volume: Volume, std: Tensor, off: Tensor | None, calibration: Figure | None) -> None:
    """``std.nii.gz``, of CT in HU, before the other results; the map of probabilities ``off_by.nii.gz`` where one was
    asked for, and with ground truth ``calibration.png``."""
    hounsfield = volume.modality == "ct" and volume.calibrated
    # A deviation is scaled, not shifted as HU are: for the writer it is a volume without a unit.
    data = std.cpu() * (1000 / MU_WATER if hounsfield else 1.0)
    write_volume(folder / "std.nii.gz", replace(volume, data=data, calibrated=False))
    if off is not None:
        write_volume(folder / "off_by.nii.gz", replace(volume, data=off.cpu(), calibrated=False))
    if calibration is not None:
        write_figure(folder / "calibration.png", calibration)
