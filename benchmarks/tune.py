"""Search the options of methods on training volumes with Optuna, and keep the best in ``configs/tuned``.

    python benchmarks/tune.py --data ../shared/data --tasks sv_ct --methods admm_tv dds --trials 30

The volumes are parts of the patients that the bundled priors held out (acrin013, tcgabca10w and openms_p20), 8 slices
of each at 128 x 128 pixels; tables are on other volumes. Patients whom a prior was trained on will not do: they favour
options that trust it (docs/method.md). Methods that treat every slice alone get two slices of each part that lie apart,
diffusion_mbir 4, with 60 levels; sense gets 8 coils and noise of 25 dB. A trial's score is the PSNR averaged over parts
and planes, with seed 0. The first trial is what the task uses today, and only what beats it by 0.05 dB is kept. Where
there are no more combinations than trials, all are tried. Searches lie in ``--output`` as Optuna journals, one for each
prior and choice of volumes, and go on where they stopped; ``--show`` prints the best trials without running any.
``--photons 1e5``, ``--snr 25``, ``--acc 4``, ``--mask uniform1d``, ``--coils 8`` and ``--views 4`` search for such
measurements instead of the task's own; what is found is only printed. ``--write docs/searches.csv`` runs nothing and
writes every trial of all searches below ``--output`` into one table.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from torch import Tensor

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.units import magnitude_percentile
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.errors import InputError
from lightning_mbir.files import write_whole
from lightning_mbir.methods.tasks import OVER, tuned_file
from lightning_mbir.physics import LinearOperator
from lightning_mbir.prior import SliceDenoiser, load_prior
from lightning_mbir.reconstruction import METHODS, TASKS, image_metrics, reconstruct
from lightning_mbir.reconstruction.provenance import digest, tensor_sha256
from lightning_mbir.solvers.fbp import FILTERS

VOLUMES = {
    "ct": (("ct/train/acrin013_chest.nii.gz", "20:28"), ("ct/train/tcgabca10w_abdomen.nii.gz", "28:36")),
    "mri": (
        ("mri/train/openms_p20_T1W.nii.gz", "14:22"),
        ("mri/train/openms_p20_T1W.nii.gz", "28:36"),
        ("mri/train/openms_p20_FLAIR.nii.gz", "20:28"),
    ),
}
LEAST = 0.05
"""What options must gain to be kept, dB: less is chance, and other measurements than these may lose by it."""
Range = tuple[float, float]
CG = [1, 2, 5, 10, 15, 30, 60]
SPACES: dict[str, dict[str, Range | list[Any]]] = {
    "admm_tv": {"rho": (1e-5, 0.3), "lam": (3e-7, 1e-2), "isotropic": [True, False], "cg_iterations": [4, 8, 15, 30]},
    "dds": {
        "sigma_max": (0.3, 10.0),
        "sigma_min": (0.005, 0.1),
        "rho": (1e-4, 1.0),
        "lam": (3e-7, 1e-2),
        "sigma_y": [0.0, 0.0015, 0.003, 0.005, 0.01],
        "eta": [0.0, 0.2, 0.4, 0.55, 0.7, 0.85, 1.0],
        "momentum": [0.0, 0.15, 0.25, 0.4, 0.6],
        "noise_scale": [0.6, 0.7, 0.77, 0.85, 1.0],
        "cg_iterations": CG,
    },
    "diffusion_mbir": {
        "sigma_max": (0.5, 40.0),
        "rho": (1e-3, 1.0),
        "lam": (1e-5, 1e-2),
        "cg_iterations": CG,
        "snr": (0.05, 0.3),
        "consistency": ["noisy", "tweedie"],
    },
    "score_slices": {
        "sigma_max": (0.2, 10.0),
        "snr": (0.1, 0.5),
        "cg_iterations": CG,
        "consistency": ["noisy", "tweedie"],
    },
    "mcg": {"sigma_max": (0.3, 10.0), "zeta": (0.3, 10.0), "cg_iterations": CG},
    "dps": {"sigma_max": (0.3, 10.0), "zeta": (0.3, 20.0)},
    "diffpir": {
        "sigma_max": (0.3, 10.0),
        "sigma_n": (1e-4, 1e-2),
        "zeta": [0.0, 0.3, 0.6, 1.0],
        "cg_iterations": CG,
    },
    "tpdm": {
        "sigma_max": (0.3, 10.0),
        "eta": [0.0, 0.4, 0.7, 0.85, 1.0],
        "period": [2, 3, 4],
        "cg_iterations": CG,
    },
    "cgls": {"steps": [5, 10, 20, 40, 80, 160]},
    "sirt": {"steps": [50, 100, 200, 400, 800, 1600], "relaxation": [0.5, 1.0, 1.5, 1.9]},
    "fbp": {"filter": list(FILTERS)},
    "sense": {"lam": (1e-5, 1.0)},
    "l1_wavelet": {"lam": (1e-4, 1e-2), "levels": [1, 2, 3], "wavelet": ["haar", "db2", "db4"], "axes": ["yx", "zyx"]},
}
"""What is searched: a range, on a logarithmic scale, or a list of choices."""
MEASURED: dict[str, dict[str, Any]] = {"sense": {"coils": 8, "snr": 25.0}}
"""Flags of the task, where its own would tell nothing about a method."""
FLAGS: dict[str, type] = {"photons": float, "snr": float, "acc": float, "mask": str, "coils": int, "views": int}
STEPS = {"diffusion_mbir": 60}
"""Levels, where the default would take too long for a search."""
SLICES = {name: slice(1, None, 4) for name in ("score_slices", "mcg", "dps", "diffpir")}
"""Of methods that treat every slice alone, two that lie apart."""
SLICES["diffusion_mbir"] = slice(0, 4)


@dataclass(frozen=True)
class Scan:
    """A training volume and its measurement."""

    name: str
    truth: Tensor
    y: Tensor
    weights: Tensor | None
    operator: LinearOperator
    data_range: float
    noise_std: float


class Problem:
    """A task on its training volumes."""

    def __init__(
        self, task: str, data: Path, second_prior: str | None = None, flags: dict[str, Any] | None = None
    ) -> None:
        self.task, self.flags = TASKS[task], flags or {}
        self.volumes = [self._volume(data / file, slices) for file, slices in VOLUMES[self.task.modality]]
        self.prior = load_prior(self.task.modality)
        self.second = self.prior if second_prior is None else load_prior(second_prior)

    def _volume(self, file: Path, slices: str) -> Volume:
        volume = VolumeDataModule(file, modality=self.task.modality, image_size=128, slices=slices).scan(0)
        assert isinstance(volume, Volume)
        return volume

    def scan(self, volume: Volume, method: str) -> Scan:
        """The slices that a method gets, and their measurement."""
        truth = volume.data[SLICES.get(method, slice(None))]
        flags = self.measured(method)
        operator = self.task.build_operator(128, volume.spacing[1], **flags)
        clean = operator(truth)
        y, weights = self.task.add_noise(clean, (0, volume.name), **flags)
        weights = weights if METHODS[method].weighted else None
        data_range = self.task.data_range or magnitude_percentile(volume.data)
        return Scan(volume.name, truth, y, weights, operator, data_range, self.task.noise_std(clean, weights, **flags))

    def measured(self, method: str) -> dict[str, Any]:
        """Flags of the measurement that a method gets."""
        return {**MEASURED.get(method, {}), **self.flags}

    def score(self, method: str, options: dict[str, Any]) -> float:
        """PSNR, averaged over volumes and planes, with the task's options under ``options``."""
        scans = [self.scan(volume, method) for volume in self.volumes]
        return statistics.mean(statistics.mean(self.planes(scan, method, options)) for scan in scans)

    def planes(self, scan: Scan, method: str, options: dict[str, Any]) -> list[float]:
        """PSNR of the axial, coronal and sagittal plane of a volume."""
        second = self.second if "second_prior" in METHODS[method].needs else None
        chosen = {"steps": STEPS.get(method), **self.tuned(method), **options}
        given: dict[str, Any] = {"seed": 0, "volume": scan.name, "second_prior": second}
        given |= {"weights": scan.weights, "noise_std": scan.noise_std}
        result = reconstruct(scan.y, scan.operator, self.prior, method, **given, **chosen)
        metrics = image_metrics(result.volume, scan.truth, scan.data_range)
        return [float(metrics[plane]["psnr"]) for plane in ("axial", "coronal", "sagittal")]

    def today(self, method: str) -> dict[str, Any]:
        """What is searched, as the task has it now."""
        known = {**METHODS[method].options, "steps": METHODS[method].steps, **self.tuned(method)}
        return {name: known[name] for name in SPACES[method]}

    def tuned(self, method: str) -> dict[str, Any]:
        """Options that the task has for such measurements."""
        measured = self.measured(method)
        noisy = not {"photons", "snr"}.isdisjoint(measured)
        return self.task.tuned(method, noisy, self.task.settings(**measured).get("views"))

    def key(self, method: str) -> str:
        """Of the study: its trials are of the same options, with the same priors on the same slices."""
        told: list[Any] = [VOLUMES[self.task.modality], str(SLICES.get(method)), STEPS.get(method)]
        told += [sorted(SPACES[method])]
        told += [self.measured(method)] if self.measured(method) else []
        if METHODS[method].needs_prior:
            told.append(_weights(self.prior))
        if "second_prior" in METHODS[method].needs:
            told.append(_weights(self.second))
        return f"{method} {digest({'of': told})[:12]}"


def _weights(prior: SliceDenoiser) -> str:
    return tensor_sha256(torch.cat([p.detach().flatten() for p in prior.network.parameters()]))


def suggest(trial: optuna.Trial, method: str) -> dict[str, Any]:
    return {
        name: trial.suggest_categorical(name, space)
        if isinstance(space, list)
        else trial.suggest_float(name, *space, log=True)
        for name, space in SPACES[method].items()
    }


def search(problem: Problem, method: str, trials: int, folder: Path, show: bool) -> None:
    task, today = problem.task, problem.today(method)
    folder.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(folder / f"{task.name}_{method}.journal")))
    study = optuna.create_study(
        study_name=problem.key(method), storage=storage, direction="maximize", load_if_exists=True
    )
    finished = [trial for trial in study.trials if trial.state.is_finished()]
    choices = [space for space in SPACES[method].values() if isinstance(space, list)]
    if len(choices) == len(SPACES[method]) and math.prod(map(len, choices)) <= trials:
        study.sampler = optuna.samplers.GridSampler(SPACES[method])  # all of them
    else:
        study.sampler = optuna.samplers.TPESampler(seed=len(finished), multivariate=True, n_startup_trials=5)
    scored = today in [trial.params for trial in finished]
    if not show and not scored:
        study.enqueue_trial(today, skip_if_exists=True)

    def objective(trial: optuna.Trial) -> float:
        started = time.perf_counter()
        options = suggest(trial, method)
        try:
            score = problem.score(method, options)
        except InputError as error:  # options with which it diverges
            print(f"{task.name} {method}: {error}")
            return 0.0
        words = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in options.items())
        seconds = time.perf_counter() - started
        print(f"{task.name} {method} {trial.number}: {score:.2f} dB, {seconds:.0f} s: {words}", flush=True)
        return score

    if not show:
        study.optimize(objective, max(0 if scored else 1, trials - len(finished)))
        before = max(trial.value for trial in study.trials if trial.params == today and trial.value is not None)
        if study.best_value > before + LEAST and not problem.flags:
            keep(study, task.name, method)
    report(study, task.name, method)


def keep(study: optuna.Study, task: str, method: str) -> None:
    """The best options into the task's file, rounded to what was told apart."""
    path = tuned_file(task)
    options = yaml.safe_load(path.read_text())
    best = {k: float(f"{v:.2g}") if isinstance(v, float) else v for k, v in study.best_params.items()}
    options[method] = {**options.get(method, {}), **best}
    over = {name: options.pop(name) for name in OVER if name in options}
    text = (
        "# Options found on training volumes by benchmarks/tune.py, those of dds as docs/method.md tells; what is not "
        "here is the\n# method's default.\n"
    )
    text += yaml.safe_dump(options, default_flow_style=None, width=110)
    for name, given in over.items():
        text += f"# {OVER[name]}, over those.\n" + yaml.safe_dump({name: given}, default_flow_style=None, width=110)
    write_whole(path, text.encode())


def report(study: optuna.Study, task: str, method: str) -> None:
    """A line of the table of docs/method.md: first and best score, and the options of the best."""
    done = [trial for trial in study.trials if trial.value is not None]
    if len(done) < 2:
        print(f"{task} {method}: too few trials to tell")
        return
    best = ", ".join(f"{k} {v:.2g}" if isinstance(v, float) else f"{k} {v}" for k, v in study.best_params.items())
    print(f"| {task} | {method} | {len(done)} | {done[0].value:.2f} | {study.best_value:.2f} | {best} |")


def table(folder: Path) -> str:
    """Every finished trial of the journals in a folder and those below, as CSV; a search is a study of a journal."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["search", "prior_and_slices", "trial", "psnr_db", "options"])
    for path in sorted(folder.rglob("*.journal")):
        storage = JournalStorage(JournalFileBackend(str(path)))
        for study in sorted(optuna.get_all_study_summaries(storage), key=lambda study: study.study_name):
            for trial in optuna.load_study(study_name=study.study_name, storage=storage).trials:
                if trial.value is not None:
                    options = {k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in trial.params.items()}
                    name, score = str(path.relative_to(folder).with_suffix("")), f"{trial.value:.2f}"
                    of = study.study_name.partition(" ")[2]
                    lines.writerow([name, of, trial.number, score, json.dumps(options)])
    return text.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--methods", nargs="+", default=list(SPACES), choices=list(SPACES))
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=Path("outputs/tune"))
    parser.add_argument("--second_prior", default=None, help="prior of coronal slices; the axial one by default")
    for flag, kind in FLAGS.items():
        parser.add_argument(f"--{flag}", type=kind, default=None)
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--write", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if args.write is not None:
        write_whole(args.write, table(args.output).encode())
        return
    if args.data is None:
        parser.error("give --data, the folder with ct/train and mri/train")
    print("| task | method | trials | first, dB | best, dB | best options |")
    print("|---|---|---|---|---|---|")
    for task in args.tasks:
        given = {flag: getattr(args, flag) for flag in FLAGS if getattr(args, flag) is not None}
        try:
            TASKS[task].settings(**given)
        except InputError as error:
            parser.error(str(error))
        problem = Problem(task, args.data, args.second_prior, given)
        for method in args.methods:
            if problem.task.modality in METHODS[method].modalities:
                search(problem, method, args.trials, args.output, args.show)


if __name__ == "__main__":
    main()
