"""What bfloat16 and the slice batch change in reconstructions, and the time that they take, by turns in one process.

    python benchmarks/precision.py --data ../shared/data --threads 2 --turns 3

`dds` with the options of its task on training volumes: 12 slices from the middle of each, CT from 8 views and MRI
8-fold undersampled. Differences are the largest over all voxels and volumes from the first row; PSNR is a mean over
volumes. Prints Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.units import MU_WATER, Modality, magnitude_percentile
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.methods.tasks import TASKS
from lightning_mbir.prior import load_prior
from lightning_mbir.reconstruction import reconstruct
from lightning_mbir.reconstruction.case import Case, simulate

RUNS = (("float32", 8), ("float32", 4), ("float32", 1), ("bfloat16", 8), ("bfloat16", 1))
"""Precision, and how many slices pass the network at once at most; the first is what the others are compared with."""


def case(file: Path, task: str, size: int, count: int) -> Case:
    """The measurement of slices from the middle of a volume."""
    modality: Modality = TASKS[task].modality
    depth = len(cast(Volume, VolumeDataModule(file, modality=modality).scan(0)).data)
    start = max(0, (depth - count) // 2)
    data = VolumeDataModule(file, modality=modality, image_size=size, slices=f"{start}:{min(depth, start + count)}")
    return simulate(cast(Volume, data.scan(0)), TASKS[task], TASKS[task].settings(), 0, has_phase=False)


def rows(task: str, cases: list[Case], steps: int | None, turns: int) -> list[str]:
    """A line of the table for each run."""
    modality = TASKS[task].modality
    options = TASKS[task].tuned("dds")
    found: dict[tuple[str, int], list[Tensor]] = {run: [] for run in RUNS}
    seconds: dict[tuple[str, int], list[float]] = {run: [] for run in RUNS}
    priors = {run: load_prior(modality, slice_batch=run[1], precision=run[0]) for run in RUNS}
    for one in cases:
        for turn in range(turns):
            for run in RUNS:
                started = time.perf_counter()
                given = one.y, one.operator(False), priors[run], "dds"
                volume = reconstruct(*given, modality=modality, volume=one.name, steps=steps, **options).volume
                seconds[run].append(time.perf_counter() - started)
                if turn == 0:
                    found[run].append(volume)
    lines = []
    for run in RUNS:
        differences, scores = [], []
        for one, first, volume in zip(cases, found[RUNS[0]], found[run], strict=True):
            assert one.truth is not None
            peak = TASKS[task].data_range or magnitude_percentile(one.truth)
            unit = MU_WATER / 1000 if modality == "ct" else peak
            differences.append(float((volume - first).abs().max()) / unit)
            scores.append(float(-10 * ((volume - one.truth) / peak).square().mean().log10()))
        largest = f"{max(differences):.2g} HU" if modality == "ct" else f"{max(differences):.1e} of the peak"
        ratio = statistics.median(a / b for a, b in zip(seconds[RUNS[0]], seconds[run], strict=True))
        lines.append(f"| {modality} | {run[0]} | {run[1]} | {largest} | {statistics.mean(scores):.3f} | {ratio:.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--slices", type=int, default=12)
    parser.add_argument("--volumes", type=int, default=2, help="of each modality, the first by name")
    parser.add_argument("--steps", type=int, help="noise levels [the method's own]")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--turns", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print("| prior | precision | slices at once | largest difference | PSNR, dB | times as fast |")
    print("|---|---|---|---|---|---|")
    for task in ("sv_ct", "cs_mri"):
        files = sorted((args.data / TASKS[task].modality / "train").glob("*.nii.gz"))[: args.volumes]
        cases = [case(file, task, args.image_size, args.slices) for file in files]
        print("\n".join(rows(task, cases, args.steps, args.turns)), flush=True)


if __name__ == "__main__":
    main()
