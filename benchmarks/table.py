"""The table of the README: every task and method on volumes that neither priors nor tuning have seen.

    python benchmarks/table.py --data ../shared/data --output outputs/table

Writes ``results.json`` after every line, goes on where it stopped, and prints the table as Markdown.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.phase import smooth_phase
from lightning_mbir.data.units import magnitude_percentile
from lightning_mbir.data.volume import Volume
from lightning_mbir.reconstruction import TASKS, image_metrics, reconstruct

CASES = {
    "sv_ct": ("ct/test/lungfcp0001_chest.nii.gz", "20:44", "fbp"),
    "la_ct": ("ct/test/lungfcp0001_chest.nii.gz", "20:44", "fbp"),
    "cs_mri": ("mri/test/openms_p04_T1W.nii.gz", "12:36", "zero_filled"),
    "cs_mri --phase": ("mri/test/openms_p04_T1W.nii.gz", "12:36", "zero_filled"),
}


def score(task_name: str, method: str, steps: int | None, data: Path) -> dict[str, Any]:
    """One line of the table."""
    file, slices, _ = CASES[task_name]
    name, phase, _ = task_name.partition(" --phase")
    task = TASKS[name]
    volume = VolumeDataModule(data / file, modality=task.modality, image_size=128, slices=slices).scan(0)
    assert isinstance(volume, Volume)
    operator = task.build_operator(128, volume.spacing[1], complex=bool(phase))
    x = volume.data
    y = operator(torch.polar(x, smooth_phase(x.shape, np.random.RandomState(0))) if phase else x)
    operator.norm()  # not part of a method's time
    result = reconstruct(y, operator, method=method, steps=steps, volume=volume.name, **task.options.get(method, {}))
    data_range = task.data_range or magnitude_percentile(volume.data)
    scores = image_metrics(result.volume.abs() if phase else result.volume, x, data_range)
    return {"nfe": result.nfe, "seconds": result.seconds, "residual": result.residual, **scores}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("outputs/table"))
    levels = {"sv_ct": 60, "la_ct": 60, "cs_mri": 100}
    parser.add_argument("--levels", type=json.loads, default=levels, help="noise levels of diffusion_mbir by task")
    parser.add_argument("--tasks", nargs="+", default=list(CASES), choices=list(CASES))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "results.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for task in args.tasks:
        levels = args.levels.get(task)
        methods = ((CASES[task][2], None), ("admm_tv", None), ("dds", None), ("diffusion_mbir", levels))
        for method, steps in methods[: 4 if levels else 3]:
            key = f"{task}/{method}"
            if key not in results:
                results[key] = score(task, method, steps, args.data)
                partial = path.with_suffix(".partial")
                partial.write_text(json.dumps(results, indent=2))
                partial.replace(path)
    print("| task | method | axial | coronal | sagittal | NFE | seconds |")
    print("|---|---|---|---|---|---|---|")
    for key, row in results.items():
        task, method = key.split("/")
        planes = " | ".join(
            f"{row[plane]['psnr']:.2f} / {row[plane].get('ssim', float('nan')):.3f}"
            for plane in ("axial", "coronal", "sagittal")
        )
        print(f"| {task} | {method} | {planes} | {row['nfe']} | {row['seconds']:.0f} |")


if __name__ == "__main__":
    main()
