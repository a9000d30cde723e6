"""What matters in dds: one option changed at a time, on a training volume that the prior held out.

    python benchmarks/ablation.py --data ../shared/data --output outputs/ablation --figure docs/figures/ablation.png

The default of each task is what ``configs/tuned`` says. A figure is the PSNR averaged over the three planes, of eight
slices at 128 x 128 pixels and seed 0, where it is not said; the table has its difference to the default. ``ends`` is
the axial PSNR of the first and the last slice alone. The boundary that wraps around, as in the released code, is not
part of the package: it is written out here. Goes on where it stopped (``ablation.json``), for what has not changed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.units import magnitude_percentile
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.files import write_whole
from lightning_mbir.physics import LinearOperator
from lightning_mbir.prior import load_prior
from lightning_mbir.prior.checkpoints.checkpoint import bundled_sums
from lightning_mbir.reconstruction import METHODS, TASKS, image_metrics, reconstruct
from lightning_mbir.solvers import conjugate_gradient

VOLUMES = {"ct": ("ct/train/acrin013_chest.nii.gz", "20:28"), "mri": ("mri/train/openms_p20_T1W.nii.gz", "28:36")}
PLANES = ("axial", "coronal", "sagittal")


def variants(default: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Options that differ from the default, by what the table calls them; ``levels``, ``samples``, ``seed`` and
    ``boundary`` are no options of the method."""
    rho, lam, top = default["rho"], default["lam"], default["sigma_max"]
    # What rho and lam are with a sigma_y and without, for the task that has the other.
    relative = {} if default["sigma_y"] else {"rho": 1.0, "lam": 0.003}
    absolute = {"rho": 0.079, "lam": 0.00039} if default["sigma_y"] else {}
    return {
        "default": {},
        **{f"seed {seed}": {"seed": seed} for seed in (1, 2, 3)},
        "no total variation": {"lam": 0.0},
        "lambda / 3": {"lam": lam / 3},
        "lambda x 3": {"lam": lam * 3},
        "rho / 10": {"rho": rho / 10},
        "rho x 10": {"rho": rho * 10},
        "rho / 10, same threshold": {"rho": rho / 10, "lam": lam / 10},
        "rho x 10, same threshold": {"rho": rho * 10, "lam": lam * 10},
        "boundary wraps around": {"boundary": "periodic"},
        "1 CG step": {"cg_iterations": 1},
        "5 CG steps": {"cg_iterations": 5},
        "15 CG steps": {"cg_iterations": 15},
        "sigma_y 0.002": {"sigma_y": 0.002, **relative},
        "sigma_y 0.005": {"sigma_y": 0.005, **relative},
        "sigma_y 0.02": {"sigma_y": 0.02, **relative},
        "no sigma_y": {"sigma_y": 0.0, **absolute},
        "sigma_max / 4": {"sigma_max": top / 4},
        "sigma_max x 4": {"sigma_max": top * 4},
        "sigma_max 378": {"sigma_max": 378.0},
        "sigma_min 0.005": {"sigma_min": 0.005},
        "sigma_min 0.05": {"sigma_min": 0.05},
        "equal ratios of levels": {"schedule": "geometric"},
        "from FBP or zero-filled": {"start": "direct"},
        "sigma_max / 4, from FBP or zero-filled": {"sigma_max": top / 4, "start": "direct"},
        "sigma_max x 4, from FBP or zero-filled": {"sigma_max": top * 4, "start": "direct"},
        "from ADMM-TV": {"start": "admm_tv"},
        "sigma_max 0.3, from ADMM-TV": {"sigma_max": 0.3, "start": "admm_tv"},
        "eta 0": {"eta": 0.0},
        "eta 0.5": {"eta": 0.5},
        "eta 1": {"eta": 1.0},
        "eta 1, as DDIM has it": {"eta": 1.0, "ddim": True},
        "noise half shared by slices": {"correlation": 0.5},
        "noise shared by slices": {"correlation": 1.0},
        "10 levels": {"levels": 10},
        "20 levels": {"levels": 20},
        "100 levels": {"levels": 100},
        "mean of 4 samples": {"samples": 4},
    }


def periodic_admm_tv(
    y: Tensor | None,
    operator: LinearOperator,
    *,
    rho: float,
    lam: float,
    cg_iterations: int,
    x0: Tensor,
    state: tuple[Tensor, Tensor] | None,
    pull: float,
    rhs: Tensor,
    overwrite_state: bool,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """One ADMM step whose differences wrap around from the last slice to the first."""

    def d(x: Tensor) -> Tensor:
        return x.roll(-1, 0) - x

    def d_adjoint(v: Tensor) -> Tensor:
        return v.roll(1, 0) - v

    z, w = state if state is not None else (torch.zeros_like(x0), torch.zeros_like(x0))
    target = rhs + pull * x0 + rho * d_adjoint(z - w)
    x = conjugate_gradient(
        lambda p: operator.normal(p) + pull * p + rho * d_adjoint(d(p)), target, x0, max_iterations=cg_iterations
    )
    v = d(x) + w
    z = v * (1 - (lam / rho) / v.abs().clamp_min(lam / rho))
    return x, (z, v - z)


def run(task_name: str, changed: dict[str, Any], data: Path) -> dict[str, float]:
    """Scores of a variant."""
    task = TASKS[task_name]
    file, slices = VOLUMES[task.modality]
    volume = VolumeDataModule(data / file, modality=task.modality, image_size=128, slices=slices).scan(0)
    assert isinstance(volume, Volume)
    truth = volume.data
    data_range = task.data_range or magnitude_percentile(truth)
    operator = task.build_operator(128, volume.spacing[1])
    y = operator(truth)
    prior = load_prior(task.modality)
    options = {**task.options["dds"], **changed}
    levels, samples, seed = options.pop("levels", None), options.pop("samples", 1), options.pop("seed", 0)
    step = periodic_admm_tv if options.pop("boundary", "") else sys.modules["lightning_mbir.samplers.dds"].admm_tv
    with mock.patch.object(sys.modules["lightning_mbir.samplers.dds"], "admm_tv", step):
        given = {"seed": seed, "volume": volume.name, "steps": levels, **options}
        volumes = [reconstruct(y, operator, prior, "dds", sample=k, **given).volume for k in range(samples)]
    x = torch.stack(volumes).mean(0)
    metrics = image_metrics(x, truth, data_range)
    ends = image_metrics(x[[0, -1]], truth[[0, -1]], data_range)
    planes = {plane: float(metrics[plane]["psnr"]) for plane in PLANES}
    return {**planes, "mean": statistics.mean(planes.values()), "ends": ends["axial"]["psnr"]}


def figure(results: dict[str, dict[str, dict[str, float]]]) -> Figure:
    """Differences to the default as bars, a column a task."""
    names = [name for name in next(iter(results.values())) if name != "default"]
    picture = Figure(figsize=(4.2 + 2.6 * len(results), 0.24 * len(names) + 1), layout="constrained")
    axes = picture.subplots(1, len(results), sharey=True, squeeze=False)[0]
    rows = np.arange(len(names))
    for ax, (task, scores) in zip(axes, results.items(), strict=True):
        gains = np.array([scores[name]["mean"] - scores["default"]["mean"] for name in names])
        shown = gains.clip(-3, 3)
        ax.barh(rows, shown, color=np.where(gains >= 0, "#2a7f62", "#b5483a"))
        for row, gain, end in zip(rows, gains, shown, strict=True):
            side = 0.06 if gain >= 0 else -0.06
            ax.text(end + side, row, f"{gain:+.2f}", va="center", ha="left" if gain >= 0 else "right", fontsize=7)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_title(f"{task}: default {scores['default']['mean']:.2f} dB", fontsize=10)
        ax.set_xlim(-3.8, 2.2)
        ax.set_xlabel("difference in PSNR, dB")
        ax.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(rows, names, fontsize=8)
    axes[0].invert_yaxis()
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("outputs/ablation"))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--figure", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "ablation.json"
    kept: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.exists() else {}
    results: dict[str, dict[str, dict[str, float]]] = {}
    for task in args.tasks:
        default = {**METHODS["dds"].options, **TASKS[task].options["dds"]}
        prior = bundled_sums()[TASKS[task].modality]
        for name, changed in variants(default).items():
            told = [task, *VOLUMES[TASKS[task].modality], {**default, **changed}, prior]
            key = json.dumps(told, sort_keys=True)
            if key not in kept:
                kept[key] = run(task, changed, args.data)
                write_whole(path, json.dumps(kept, indent=1).encode())
            results.setdefault(task, {})[name] = kept[key]
            print(f"{task}, {name}: {kept[key]['mean']:.2f} dB", file=sys.stderr, flush=True)
    print("| variant |" + "".join(f" {task} | axial, coronal, sagittal | ends |" for task in results))
    print("|---|" + "---|---|---|" * len(results))
    for name in next(iter(results.values())):
        cells = ""
        for scores in results.values():
            row, base = scores[name], scores["default"]
            if name == "default":
                cells += f" {row['mean']:.2f} dB |"
                cells += " " + " ".join(f"{row[plane]:.2f}" for plane in PLANES) + f" | {row['ends']:.2f} |"
            else:
                planes = " ".join(f"{row[plane] - base[plane]:+.2f}" for plane in PLANES)
                cells += f" {row['mean'] - base['mean']:+.2f} | {planes} | {row['ends'] - base['ends']:+.2f} |"
        print(f"| {name} |{cells}")
    if args.figure is not None:
        figure(results).savefig(args.figure, dpi=110)


if __name__ == "__main__":
    main()
