"""How many noise levels a reconstruction needs: dds at 20, 50 and 100 against diffusion_mbir at the published 2000.

    python benchmarks/levels.py --data ../shared/data --tasks sv_ct --slices 16 --output outputs/levels

All run in one process, on the same measurement of a test volume, with the same prior; dds with three seeds, of which
means are taken. diffusion_mbir as published has noise from 378 to 0.01, one corrector and one conjugate gradient step a
level, and for CT its rho and lambda; those of MRI were for another mask, so the scanned ones are taken.
``--tuned`` adds it with the options of ``configs/tuned``, found at 60 levels.
Writes ``levels.json`` after every run, goes on where it stopped, and prints the table as Markdown; times are compared
within one process alone. Each 4000 network evaluations take 25 minutes for 16 slices on an idle core.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.units import magnitude_percentile
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.files import write_whole
from lightning_mbir.reconstruction import METHODS, TASKS, image_metrics, reconstruct
from lightning_mbir.reconstruction.provenance import git_revision, prior_identity

CASES = {
    "sv_ct": ("ct/test/lungfcp0001_chest.nii.gz", 32),
    "la_ct": ("ct/test/lungfcp0001_chest.nii.gz", 32),
    "cs_mri": ("mri/test/openms_p04_T1W.nii.gz", 24),
}
"""Volume of each task, and the middle of the slices that are taken."""
PUBLISHED: dict[str, dict[str, Any]] = {
    "sv_ct": {},  # the defaults are the published setting for CT
    "la_ct": {},
    "cs_mri": {"rho": 0.01, "lam": 1e-4},
}
PUBLISHED_MBIR, TUNED_MBIR = "diffusion_mbir, published", "diffusion_mbir, tuned"
RUNS = [("dds", levels, seed) for levels in (20, 50, 100) for seed in (0, 1, 2)]
RUNS += [(PUBLISHED_MBIR, 2000, 0)]


def options(task_name: str, name: str) -> dict[str, Any]:
    return PUBLISHED[task_name] if name == PUBLISHED_MBIR else TASKS[task_name].options[method_of(name)]


def method_of(name: str) -> str:
    return name.partition(",")[0]


def row_key(task: str, name: str, levels: int, seed: int, slices: int) -> str:
    method, prior = method_of(name), prior_identity(None, TASKS[task].modality, complex=False)
    chosen = {**METHODS[method].options, **options(task, name)}
    return json.dumps([task, CASES[task], method, levels, seed, slices, chosen, prior], sort_keys=True)


def run(task_name: str, name: str, levels: int, seed: int, slices: int, data: Path) -> dict[str, Any]:
    task = TASKS[task_name]
    file, middle = CASES[task_name]
    part = f"{middle - slices // 2}:{middle + slices - slices // 2}"
    volume = VolumeDataModule(data / file, modality=task.modality, image_size=128, slices=part).scan(0)
    assert isinstance(volume, Volume)
    operator = task.build_operator(128, volume.spacing[1])
    operator.norm()  # not part of a method's time
    y = operator(volume.data)
    result = reconstruct(
        y, operator, method=method_of(name), steps=levels, seed=seed, volume=volume.name, **options(task_name, name)
    )
    data_range = task.data_range or magnitude_percentile(volume.data)
    scores = image_metrics(result.volume, volume.data, data_range)
    return {
        "process": os.getpid(),
        "revision": git_revision(),
        "nfe": result.nfe,
        "seconds": result.seconds,
        "residual": result.residual,
        **scores,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("outputs/levels"))
    parser.add_argument("--tasks", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--slices", type=int, default=16)
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    runs = RUNS + ([(TUNED_MBIR, 2000, 0)] if args.tuned else [])
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "levels.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for task in args.tasks:
        for name, levels, seed in runs:
            key = row_key(task, name, levels, seed, args.slices)
            if key not in results:
                results[key] = run(task, name, levels, seed, args.slices, args.data)
                write_whole(path, json.dumps(results, indent=2).encode())
    print("| task | method | levels | NFE | axial | coronal | sagittal | seconds | times faster |")
    print("|---|---|---|---|---|---|---|---|---|")
    for task in args.tasks:
        slow = results[row_key(task, PUBLISHED_MBIR, 2000, 0, args.slices)]
        for name, levels in dict.fromkeys((name, levels) for name, levels, _ in runs):
            seeds = [seed for m, n, seed in runs if (m, n) == (name, levels)]
            rows = [results[row_key(task, name, levels, seed, args.slices)] for seed in seeds]

            def mean(of: Any, rows: list[dict[str, Any]] = rows) -> float:
                return sum(of(row) for row in rows) / len(rows)

            planes = " | ".join(
                f"{mean(lambda row, p=plane: row[p]['psnr']):.2f}" for plane in ("axial", "coronal", "sagittal")
            )
            seconds = mean(lambda row: row["seconds"])
            together = all(row["process"] == slow["process"] for row in rows)
            faster = f"{slow['seconds'] / seconds:.0f}" if together else "not in one run"
            shown = f"{name}, {len(seeds)} seeds" if len(seeds) > 1 else name
            print(f"| {task} | {shown} | {levels} | {rows[0]['nfe']} | {planes} | {seconds:.0f} | {faster} |")


if __name__ == "__main__":
    main()
