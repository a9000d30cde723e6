"""Whether the spread of posterior samples is an uncertainty, and by what it has to be multiplied.

    python benchmarks/calibration.py --data ../shared/data --output calibration --keep

Of each task, with and without noise, eight samples of each candidate on slices at 128 x 128 of the patients that the
bundled priors held out (acrin013, openms_p20), and of what `--samples` takes also on two patients of the test set
(riderpilot0109, openms_p04). Three tables: candidates as they are; the factor of each task, which is what the spread on
the held-out patient lacks; and the test patients before and after. ``--keep`` writes the factors into
``configs/tuned/spread.yaml``, where `predict --samples` takes them from: one command after the priors or the options of
a task have changed.

Each run is a file in ``--output``, with the samples' mean and deviation, named by all that it depends on, so that the
command goes on where it was stopped; ``--show`` makes the tables of what is there. ``--tasks``, ``--noise`` and
``--candidates`` take part of them, which can run beside each other into one folder.
"""

from __future__ import annotations

import argparse
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.files import write_whole
from lightning_mbir.methods.plans import Plan, Setting, Wanted
from lightning_mbir.methods.priors import load_task_prior
from lightning_mbir.methods.samples import PosteriorSamples
from lightning_mbir.methods.spread import spread_file
from lightning_mbir.prior import SliceDenoiser
from lightning_mbir.reconstruction import TASKS
from lightning_mbir.reconstruction.provenance import digest
from lightning_mbir.reconstruction.runner import Runner
from lightning_mbir.report.calibration import calibrate

SIZE = 128
VOLUMES: dict[str, dict[str, tuple[str, int, int]]] = {
    "held out": {"ct": ("ct/train/acrin013_chest", 22, 6), "mri": ("mri/train/openms_p20_T1W", 18, 3)},
    "test": {"ct": ("ct/test/riderpilot0109_chest", 23, 4), "mri": ("mri/test/openms_p04_T1W", 20, 2)},
}
"""File, first slice, and how many."""
NOISE: dict[str, dict[str, Any]] = {"ct": {"photons": 1e5}, "mri": {"snr": 25.0}}
DEFAULT = "what --samples takes"
Settings = tuple[str | None, int | None, dict[str, Any]]
DDIM: dict[str, Any] = {"ddim": True, "eta": 1.0}
CT_DDIM: Settings = ("dds", 40, {**DDIM, "sigma_max": 1.3})
CANDIDATES: dict[str, dict[str, Settings]] = {
    DEFAULT: dict.fromkeys(TASKS, (None, None, {})),
    "dds, 40 levels": dict.fromkeys(TASKS, ("dds", 40, {})),
    "dds, ddim": {"sv_ct": CT_DDIM, "la_ct": CT_DDIM, "cs_mri": ("dds", 40, DDIM)},
    "pula": dict.fromkeys(TASKS, ("pula", 40, {})),
    "pula, gamma 0.5": dict.fromkeys(TASKS, ("pula", 40, {"gamma": 0.5})),
}
"""Method, levels and options of each, over those of the task."""


@dataclass(frozen=True)
class Run:
    """Eight samples of one candidate on one volume.

    Attributes:
        runner, plan, scan: what is run on what.
    """

    runner: Runner
    plan: Plan
    scan: Volume

    def result(self, folder: Path, show: bool) -> tuple[Tensor, Tensor, float] | None:
        """Mean, deviation and seconds: read where they are; else worked out, unless ``show``."""
        identity = self.runner.identity(self.scan, self.plan)
        path = folder / f"{self.scan.name}_{self.runner.task.name}_{digest(identity)[:16]}.npz"
        if path.is_file():
            with np.load(path) as file:
                return torch.from_numpy(file["mean"]), torch.from_numpy(file["std"]), float(file["seconds"])
        if show:
            return None
        done = self.runner.run(self.runner.case(self.scan, [self.plan]), self.plan, "")
        assert isinstance(done, PosteriorSamples)
        buffer = io.BytesIO()
        mean, std = done.image.numpy(), done.std.numpy()
        np.savez(buffer, mean=mean, std=std, seconds=done.seconds, identity=json.dumps(identity, default=str))
        write_whole(path, buffer.getvalue())
        return done.image, done.std, done.seconds

    def cells(self, mean: Tensor, std: Tensor) -> str:
        """PSNR of the mean, and calibration: ratio, within 90 % and CRPS as a percentage of the data range."""
        truth = self.scan.data
        peak = self.runner.data_range(truth)
        known = calibrate(mean, std, truth, self.plan.samples)
        psnr = -10 * math.log10(float((mean - truth).double().square().mean()) / peak**2)
        return f"{psnr:.2f} | {known.ratio:.2f} | {known.within_90:.3f} | {100 * known.crps / peak:.3f}"


def run_of(task: str, noisy: bool, part: str, candidate: str, prior: SliceDenoiser, args: argparse.Namespace) -> Run:
    """What is run of a candidate."""
    own = TASKS[task]
    flags = NOISE[own.modality] if noisy else {}
    file, first, count = VOLUMES[part][own.modality]
    slices = f"{first}:{first + (args.slices or count)}"
    module = VolumeDataModule(args.data / f"{file}.nii.gz", modality=own.modality, image_size=SIZE, slices=slices)
    scan = module.scan(0)
    assert isinstance(scan, Volume)
    method, steps, options = CANDIDATES[candidate][task]
    (plan,) = Wanted(own, method, options, steps, args.samples).plans(Setting(noisy))
    runner = Runner(own, own.settings(**flags), flags, 0, has_phase=False, prior=prior, shown=False)
    return Run(runner, plan, scan)


def factor_of(run: Run, mean: Tensor, std: Tensor) -> dict[str, Any]:
    """An entry of ``spread.yaml``: what the spread of the held-out patient lacks, and what it was found with."""
    identity = run.plan.identity
    return {
        "factor": float(f"{calibrate(mean, std, run.scan.data, run.plan.samples).ratio:.3g}"),
        "patient": run.scan.name,
        "settings": run.runner.settings,
        **{key: identity[key] for key in ("method", "options", "steps", "samples")},
        "image_size": SIZE,
        "prior": run.runner.prior_identity(run.plan),
    }


def keep(factors: dict[str, dict[str, Any]]) -> None:
    """New factors over those that are there."""
    path = spread_file()
    kept = (yaml.safe_load(path.read_text()) if path.is_file() else None) or {}
    for task, found in factors.items():
        kept[task] = {**kept.get(task, {}), **found}
    head = (
        "# What the standard deviation of posterior samples is multiplied by, found by benchmarks/calibration.py on\n"
        "# patients that the priors held out, and what it was found with. Taken where all of this is the same but the\n"
        "# strength of the noise, the size of the slices and the number of samples.\n"
    )
    write_whole(path, (head + yaml.safe_dump(kept, default_flow_style=None, width=110)).encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--noise", nargs="+", default=["clean", "noisy"], choices=["clean", "noisy"])
    parser.add_argument("--candidates", nargs="+", default=list(CANDIDATES), choices=list(CANDIDATES))
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--slices", type=int, default=None, help="how many of each volume")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--keep", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    first, factors, after = [], {}, []
    for task in args.tasks:
        prior = load_task_prior(None, TASKS[task].modality)
        for noise in args.noise:
            noisy = noise == "noisy"
            words = f"{task}, {'with' if noisy else 'without'} noise"
            for candidate in args.candidates:
                run = run_of(task, noisy, "held out", candidate, prior, args)
                found = run.result(args.output, args.show)
                if found is None:
                    continue
                *volumes, seconds = found
                first.append(f"| {words} | {candidate} | {run.cells(*volumes)} | {seconds:.0f} |")
                print(first[-1], flush=True)
                if candidate != DEFAULT:
                    continue
                entry = factor_of(run, *volumes)
                factors.setdefault(task, {})[noise] = entry
                checked = run_of(task, noisy, "test", candidate, prior, args)
                known = checked.result(args.output, args.show)
                if known is not None:
                    mean, std, _ = known
                    for told, spread in (
                        ("as the samples have it", std),
                        (f"x {entry['factor']:g}", std * entry["factor"]),
                    ):
                        after.append(f"| {words} | {told} | {checked.cells(mean, spread)} |")
    columns = "PSNR of the mean | error / spread | within 90 % | CRPS, % of the range"
    print(f"\n| held-out patients | candidate | {columns} | seconds |\n|---|---|---|---|---|---|---|", *first, sep="\n")
    print(f"\n| test patients | spread | {columns} |\n|---|---|---|---|---|---|", *after, sep="\n")
    if args.keep:
        keep(factors)


if __name__ == "__main__":
    main()
