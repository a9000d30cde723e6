"""How many noise levels a reconstruction by dds needs: 20 against 50, and both against a published sampler at 2000.

    python benchmarks/levels.py --data ../shared/data --threads 1 --figure docs/figures/levels.png
    python benchmarks/levels.py --data ../shared/data --published --cases sv_ct/lungfcp0001 --slices 8 --seeds 3

All methods get the same measurement and prior, on slices from the middle of volumes that neither prior nor search has
seen. ``--published`` adds diffusion_mbir as published instead: noise from 378 to 0.01, one corrector and one conjugate
gradient step a level, and for CT its rho and lambda (those of MRI were for another mask, so the scanned ones are
taken); ``--tuned`` adds it with the options of ``configs/tuned``, found at 60 levels. Each of these runs takes 25
minutes for 16 slices on an idle core.
Writes ``levels.json`` after every run, goes on where it stopped, and prints a table as Markdown: means over seeds;
times are compared within one process alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.units import magnitude_percentile
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.files import write_whole
from lightning_mbir.prior.checkpoints.checkpoint import bundled_sums
from lightning_mbir.reconstruction import METHODS, TASKS, image_metrics, reconstruct
from lightning_mbir.reconstruction.case import simulate
from lightning_mbir.reconstruction.provenance import git_revision

CHEST, SMALL = "ct/test/lungfcp0001_chest.nii.gz", "ct/test/riderpilot0109_chest.nii.gz"
T1, FLAIR = "mri/test/openms_p04_T1W.nii.gz", "mri/test/openms_p04_FLAIR.nii.gz"
PLANES = ("axial", "coronal", "sagittal")


@dataclass(frozen=True)
class Scan:
    """What is measured: a task's name, a volume, and flags of the measurement."""

    task: str
    file: str
    flags: dict[str, Any] = field(default_factory=dict)


CASES: dict[str, Scan] = {}
for _task in ("sv_ct", "la_ct"):
    CASES[f"{_task}/lungfcp0001"] = Scan(_task, CHEST)
    CASES[f"{_task}/riderpilot0109"] = Scan(_task, SMALL)
    CASES[f"{_task}/lungfcp0001, 1e5 photons"] = Scan(_task, CHEST, {"photons": 1e5})
    CASES[f"{_task}/shoulder, out of distribution"] = Scan(_task, "ct/ood/sts037_shoulder.nii.gz")
CASES["sv_ct/lungfcp0001, 4 views"] = Scan("sv_ct", CHEST, {"views": 4})
CASES["cs_mri/p04 T1W"] = Scan("cs_mri", T1)
CASES["cs_mri/p04 FLAIR"] = Scan("cs_mri", FLAIR)
CASES["cs_mri/p04 T1W, 25 dB"] = Scan("cs_mri", T1, {"snr": 25.0})
CASES["cs_mri/liver T2, out of distribution"] = Scan("cs_mri", "mri/test/tcgabc4073_liver_T2_ood.nii.gz")


@dataclass(frozen=True)
class Run:
    """What is run: a method, its levels, and options over those of the task."""

    name: str
    method: str
    levels: int
    published: bool = False

    def options(self, scan: Scan) -> dict[str, Any]:
        if self.published:
            return {"rho": 0.01, "lam": 1e-4} if scan.task == "cs_mri" else {}  # for CT, the defaults are as published
        task = TASKS[scan.task]
        noisy = bool({"photons", "snr"} & scan.flags.keys())
        views = task.settings(**scan.flags).get("views")
        return task.tuned(self.method, noisy, views)


FIFTY, TWENTY = Run("50", "dds", 50), Run("20", "dds", 20)
PUBLISHED = Run("diffusion_mbir, published", "diffusion_mbir", 2000, published=True)
TUNED = Run("diffusion_mbir, tuned", "diffusion_mbir", 2000)


def key_of(scan: Scan, run: Run, seed: int, slices: int) -> str:
    prior = bundled_sums()[TASKS[scan.task].modality]
    chosen = {**METHODS[run.method].options, **run.options(scan)}
    return json.dumps([asdict(scan), run.method, run.levels, seed, slices, chosen, prior], sort_keys=True)


def measure(scan: Scan, run: Run, seed: int, slices: int, data: Path) -> dict[str, Any]:
    task = TASKS[scan.task]
    depth = len(_read(data / scan.file, task.modality, None).data)
    start = max(0, (depth - slices) // 2)
    volume = _read(data / scan.file, task.modality, f"{start}:{min(depth, start + slices)}")
    case = simulate(volume, task, task.settings(**scan.flags), 0, has_phase=False)
    operator = case.operator(False)
    operator.norm()  # not part of a method's time
    given: dict[str, Any] = {"weights": case.weights, "noise_std": case.noise_std, "volume": case.name}
    result = reconstruct(case.y, operator, method=run.method, steps=run.levels, seed=seed, **given, **run.options(scan))
    scores = image_metrics(result.volume, volume.data, task.data_range or magnitude_percentile(volume.data))
    told = {"process": os.getpid(), "revision": git_revision(), "nfe": result.nfe, "seconds": result.seconds}
    return {**told, "residual": result.residual, **scores}


def _read(file: Path, modality: Any, slices: str | None) -> Volume:
    volume = VolumeDataModule(file, modality=modality, image_size=128, slices=slices).scan(0)
    assert isinstance(volume, Volume)
    return volume


@dataclass(frozen=True)
class Row:
    """Means over seeds."""

    psnr: tuple[float, ...]
    nfe: int
    seconds: float
    processes: frozenset[int]

    @property
    def mean(self) -> float:
        return statistics.mean(self.psnr)


def row(results: dict[str, Any], scan: Scan, run: Run, seeds: int, slices: int) -> Row:
    found = [results[key_of(scan, run, seed, slices)] for seed in range(1 if run.levels > 1000 else seeds)]
    psnr = tuple(statistics.mean(one[plane]["psnr"] for one in found) for plane in PLANES)
    seconds = statistics.mean(one["seconds"] for one in found)
    return Row(psnr, found[0]["nfe"], seconds, frozenset(one["process"] for one in found))


def figure(rows: dict[tuple[str, str], Row]) -> Figure:
    """What 20 levels lose or gain against 50, of each case."""
    names = list(dict.fromkeys(case for case, _ in rows))[::-1]
    shown = Figure(figsize=(7.5, 0.34 * len(names) + 1.2), layout="constrained")
    axes = shown.subplots()
    gains = [rows[name, TWENTY.name].mean - rows[name, FIFTY.name].mean for name in names]
    axes.scatter(gains, range(len(names)), color="tab:blue", zorder=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.axvspan(-0.2, 0.2, color="0.93")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("PSNR at 20 levels less that at 50, dB, mean over the planes")
    axes.grid(axis="x", linewidth=0.4)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("outputs/levels"))
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES), metavar="CASE")
    parser.add_argument("--slices", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--tuned", action="store_true")
    parser.add_argument("--figure", type=Path, default=None)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    runs = [FIFTY, TWENTY]
    if args.published or args.tuned:
        runs = [TWENTY, FIFTY, Run("100", "dds", 100), PUBLISHED] + ([TUNED] if args.tuned else [])
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "levels.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    rows: dict[tuple[str, str], Row] = {}
    for name in args.cases:
        for run in runs:
            for seed in range(1 if run.levels > 1000 else args.seeds):
                key = key_of(CASES[name], run, seed, args.slices)
                if key not in results:
                    results[key] = measure(CASES[name], run, seed, args.slices, args.data)
                    write_whole(path, json.dumps(results, indent=2).encode())
            rows[name, run.name] = row(results, CASES[name], run, args.seeds, args.slices)
    against = runs[-1] if args.published or args.tuned else FIFTY
    print("| task | volume | levels | NFE | axial | coronal | sagittal | mean, less the reference | seconds | faster |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for (name, levels), found in rows.items():
        task, _, volume = name.partition("/")
        reference = rows[name, against.name]
        planes = " | ".join(f"{value:.2f}" for value in found.psnr)
        gain = "" if levels == against.name else f"{found.mean - reference.mean:+.2f}"
        together = found.processes == reference.processes
        faster = f"{reference.seconds / found.seconds:.1f}" if together else "not in one run"
        print(f"| {task} | {volume} | {levels} | {found.nfe} | {planes} | {gain} | {found.seconds:.0f} | {faster} |")
    if args.figure is not None:
        figure(rows).savefig(args.figure, dpi=110)


if __name__ == "__main__":
    main()
