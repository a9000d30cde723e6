"""What a measurement chooses without a truth, scored with it: options as shipped, `tune`, `auto`, the best of all.

    python benchmarks/trust.py --data ../shared/data --output trust            # all cases; goes on where it was stopped
    python benchmarks/trust.py --data ../shared/data --output trust --cases brain8 disc20
    python benchmarks/trust.py --data ../shared/data --output trust --evidence       # which volume to ask two priors of

Each case is a stack of five slices, simulated or measured. `auto` tries 30 settings of `dds`, ADMM-TV and, of MRI,
wavelets, by what they predict of the parts held out; no truth is in that. Then, with the truth: PSNR in dB of `dds` and
of what needs no prior as shipped, of the best settings of `dds` alone (`tune`), of `auto`, and of whichever of all
settings tried is best by the truth. Evidence is by how many nats a pixel the prior of the run finds the object more
probable than `generic` does; only the more probable one is tried. All of these have 25 noise levels, as in the search.
A case is a file in ``--output``; the table is that of all files there.

`--evidence` asks both priors of each of three volumes that are made of the first fold, and of the truth: whose answer
is to be believed. PSNR and held-out errors are of the same three.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from prior_reconstruction import disc, knee
from torch import Tensor

from lightning_mbir.data import VolumeDataModule
from lightning_mbir.data.measurements.measurement import read_measurement
from lightning_mbir.data.measurements.options import MeasurementOptions
from lightning_mbir.data.units import magnitude_percentile
from lightning_mbir.files import write_whole
from lightning_mbir.methods.candidates import GENERIC, Budget
from lightning_mbir.methods.evidence import log_evidence
from lightning_mbir.methods.held_out import hold_out
from lightning_mbir.methods.plans import Setting, Wanted
from lightning_mbir.methods.priors import load_task_prior
from lightning_mbir.methods.run import run_method
from lightning_mbir.methods.tasks import Task
from lightning_mbir.methods.trials import Trial, Tuning
from lightning_mbir.methods.tuning import tune
from lightning_mbir.methods.units import measured_scale, measured_unit
from lightning_mbir.physics import LinearOperator
from lightning_mbir.prior import SliceDenoiser
from lightning_mbir.reconstruction import TASKS, measured_operator, part_of
from lightning_mbir.reconstruction.case import Case, simulate
from lightning_mbir.reconstruction.measured import estimated_noise
from lightning_mbir.report.tables import to_json
from lightning_mbir.samplers import KeyedNoise

CHEST, LEG, THIGH = "ct/test/riderpilot0109_chest", "ct/ood/sts028_lowerleg", "ct/ood/sts013_thigh_knee"
BRAIN, FLAIR, LIVER = "mri/test/openms_p04_T1W", "mri/test/openms_p04_FLAIR", "mri/test/tcgabc4073_liver_T2_ood"
TOOTH, COILS = "raw/tooth_parallel_projections.h5", "raw/brain_gre_16ch_128x128.npz"


def simulated(data: Path, task: str, volume: str, first: int, **settings: Any) -> Case:
    module = VolumeDataModule(
        data / f"{volume}.nii.gz", modality=TASKS[task].modality, image_size=128, slices=f"{first}:{first + 5}"
    )
    return simulate(module.scan(0), TASKS[task], TASKS[task].settings(**settings), 0, has_phase=False)


def tooth(data: Path, _: str, views: int) -> Case:
    """Its truth is least squares of all 181 views (20 steps). FBP is none: with the Hann filter it is blurred so much
    that it misses its own views by 3.1 %, twice their noise."""
    whole = read_measurement(data / TOOTH, "ct", MeasurementOptions(image_size=256, slices=(0, 1)))
    truth = run_method(whole.y, measured_operator(whole), method="cgls", modality="ct", calibrated=False).volume
    part = part_of(whole, views=views)
    noise = part.noise_std or estimated_noise(part)
    operator = cache(lambda _: measured_operator(part))
    return Case("tooth", operator, part.y, (1.0, 1.0, 1.0), truth=truth, calibrated=False, noise_std=noise)


def coils(data: Path, _: str, acc: float) -> Case:
    """Its truth is least squares of all of its k-space."""
    whole = read_measurement(data / COILS, "mri", MeasurementOptions(axes="coil y x"))
    truth = run_method(whole.y, measured_operator(whole), method="sense", modality="mri").image
    part = part_of(whole, acc=acc)
    noise = part.noise_std or estimated_noise(part)
    operator = cache(lambda complex: measured_operator(part, complex))
    return Case("brain", operator, part.y, (1.0, 1.0, 1.0), truth=truth, noise_std=noise)


def one_of(cases: Callable[[Path], list[tuple[str, str, Case]]], number: int, data: Path, _: str) -> Case:
    return cases(data)[number][2]


CASES: dict[str, tuple[str, str, Callable[[Path, str], Case], bool]] = {
    "chest8": ("chest, 8 views", "sv_ct", partial(simulated, volume=CHEST, first=23), False),
    "chest4": ("chest, 4 views", "sv_ct", partial(simulated, volume=CHEST, first=23, views=4), False),
    "chest20": ("chest, 20 views", "sv_ct", partial(simulated, volume=CHEST, first=23, views=20), False),
    "chest8n": ("chest, 8 views, 1e4 photons", "sv_ct", partial(simulated, volume=CHEST, first=23, photons=1e4), True),
    "chest60n": (
        "chest, 60 views, 3e3 photons",
        "sv_ct",
        partial(simulated, volume=CHEST, first=23, views=60, photons=3e3),
        True,
    ),
    "leg8": ("lower leg, 8 views", "sv_ct", partial(simulated, volume=LEG, first=33), False),
    "thigh8": ("thigh, 8 views", "sv_ct", partial(simulated, volume=THIGH, first=53), False),
    "chest90": ("chest, 90 degrees", "la_ct", partial(simulated, volume=CHEST, first=23), False),
    "chest90n": (
        "chest, 90 degrees, 1e5 photons",
        "la_ct",
        partial(simulated, volume=CHEST, first=23, photons=1e5),
        True,
    ),
    "leg90": ("lower leg, 90 degrees", "la_ct", partial(simulated, volume=LEG, first=33), False),
    "brain8": ("brain T1, x8", "cs_mri", partial(simulated, volume=BRAIN, first=21), False),
    "flair8": ("brain FLAIR, x8", "cs_mri", partial(simulated, volume=FLAIR, first=21), False),
    "brain12": ("brain T1, x12", "cs_mri", partial(simulated, volume=BRAIN, first=21, acc=12.0), False),
    "brain4n": ("brain T1, x4, 15 dB", "cs_mri", partial(simulated, volume=BRAIN, first=21, acc=4.0, snr=15.0), True),
    "liver8": ("liver, x8", "cs_mri", partial(simulated, volume=LIVER, first=13), False),
    "tooth36": ("tooth measured, 36 views", "sv_ct", partial(tooth, views=36), True),
    "tooth12": ("tooth measured, 12 views", "sv_ct", partial(tooth, views=12), True),
    "disc20": ("disc measured, 20 views", "sv_ct", partial(one_of, partial(disc, size=128), 0), True),
    "disc60": ("disc measured, 60 views", "sv_ct", partial(one_of, partial(disc, size=128), 1), True),
    "coils4": ("brain measured, 16 coils, x4", "cs_mri", partial(coils, acc=4.0), True),
    "coils8": ("brain measured, 16 coils, x8", "cs_mri", partial(coils, acc=8.0), True),
    "knee4": ("knee measured, x4", "cs_mri", partial(one_of, knee, 0), True),
}
"""What each case is called, its task, what makes it, and whether it has noise."""
MEASURED = ("tooth", "disc", "coils", "knee")


def views_of(task: Task, operator: LinearOperator) -> int | None:
    return len(operator.parts.place) if task.modality == "ct" else None


def psnr(image: Tensor, case: Case, ct: bool) -> float:
    assert case.truth is not None
    known = TASKS["sv_ct"].data_range if ct and case.calibrated else None
    peak = known or magnitude_percentile(case.truth)
    return float(-20 * torch.log10((image - case.truth).square().mean().sqrt() / peak))


def run(name: str, data: Path, evaluations: int) -> dict[str, Any]:
    """One case: what is chosen, and how all that was tried does by the truth."""
    title, task_name, make, noisy = CASES[name]
    case, task = make(data, task_name), TASKS[task_name]
    complex = task.modality == "mri" and name.startswith(MEASURED)
    operator = case.operator(complex)
    prior = cache(lambda name: load_task_prior(name, task.modality, complex=complex))
    setting = Setting(noisy, generic=not complex, views=views_of(task, operator))
    choice = Wanted(task, "auto", budget=Budget(evaluations)).plans(setting)[0].choice
    assert choice is not None
    shared: dict[str, Any] = {
        "modality": task.modality, "volume": case.name, "noise_std": case.noise_std, "calibrated": case.calibrated,
        "spacing": case.spacing,
    }  # fmt: skip
    began = time.perf_counter()
    tuning = tune(case.y, operator, choice, prior, weights=case.weights, **shared)
    seconds = time.perf_counter() - began

    def by_truth(trial: Trial) -> float:
        settings = dict(trial.settings)
        candidate = choice.candidates[trial.candidate]
        method = candidate.chosen
        steps = settings.pop("steps")
        steps = min(steps, choice.budget.levels) if method.needs_prior else steps
        given: SliceDenoiser | None = prior(candidate.prior) if method.needs_prior else None
        result = run_method(
            case.y, operator, given, method, weights=case.weights, steps=steps, **shared, **settings
        )  # fmt: skip
        return psnr(result.image, case, task.modality == "ct")

    whole = [trial for trial in tuning.trials if trial.whole]
    truth = {id(trial): by_truth(trial) for trial in whole}
    shipped = {}
    for k, candidate in enumerate(tuning.candidates):
        trial = tuning.shipped(k)  # none where another prior was found to be more probable
        shipped[candidate.name] = by_truth(Trial(k, candidate.full, (), 0.0)) if trial is None else truth[id(trial)]
    tried = [k for k, candidate in enumerate(tuning.candidates) if candidate.chosen.needs_prior and tuning.best(k)]
    return {
        "title": title,
        "seconds": round(seconds),
        "evidence": tuning.evidence,
        "shipped": shipped,
        "tune": truth[id(_tuned(tuning, tried[0]))] if tried else None,
        "auto": truth[id(tuning.chosen)],
        "chosen": tuning.candidate.name,
        "changes": tuning.changes,
        "best": max(*truth.values(), *shipped.values()),
        "trials": [[trial.candidate, trial.error, truth[id(trial)]] for trial in whole],
    }


def _tuned(tuning: Tuning, candidate: int) -> Trial:
    """What `--tune true` takes of one candidate."""
    best, shipped = tuning.best(candidate), tuning.shipped(candidate)
    assert best is not None and shipped is not None
    return best if best.beats(shipped) else shipped


def evidence(name: str, data: Path) -> str | None:
    """A row: what is made of the first fold, how it predicts the rest, and what two priors say of it."""
    title, task_name, make, noisy = CASES[name]
    case, task = make(data, task_name), TASKS[task_name]
    if task.modality == "mri" and name.startswith(MEASURED):
        return None  # complex: there is no generic prior
    assert case.truth is not None
    operator = case.operator(False)
    choice = Wanted(task, "auto").plans(Setting(noisy, generic=True, views=views_of(task, operator)))[0].choice
    assert choice is not None
    candidates = {candidate.name: candidate for candidate in choice.candidates}
    fold = hold_out(operator, case.y, case.weights)[0]
    scale = measured_scale(fold.y, fold.operator, task.modality, case.calibrated)
    priors = {name: load_task_prior(name, task.modality) for name in (None, GENERIC)}
    own, other = (measured_unit(prior.unit, scale, task.modality, case.calibrated) for prior in priors.values())
    factor, shift = own.scale / other.scale, (own.offset - other.offset) / other.scale

    def generic(x: Tensor, sigma: float) -> Tensor:
        return (priors[GENERIC](x * factor + shift, sigma * factor) - shift) / factor

    def nats(volume: Tensor) -> float:
        return log_evidence((volume - own.offset) / own.scale, priors[None], generic, KeyedNoise(0, case.name))

    found: dict[str, tuple[float, float, float]] = {}
    for method in METHODS[:3]:
        candidate = candidates[method]
        settings = dict(candidate.full)
        if candidate.chosen.needs_prior:
            settings["steps"] = min(settings["steps"], choice.budget.levels)
        given = priors[candidate.prior] if candidate.chosen.needs_prior else None
        result = run_method(
            fold.y, fold.operator, given, candidate.method, modality=task.modality, volume=case.name, scale=scale,
            noise_std=case.noise_std, calibrated=case.calibrated, spacing=case.spacing, weights=fold.weights,
            **settings,
        )  # fmt: skip
        error = sum(fold.errors(result.volume)) ** 0.5
        found[method] = psnr(result.image, case, task.modality == "ct"), error, nats(result.volume)
    by_psnr, errors, said = zip(*found.values(), strict=True)
    cells = [*(f"{value:.2f}" for value in by_psnr), *(f"{value:.4f}" for value in errors)]
    cells += [f"{value:+.3f}" for value in (said[2], (said[0] + said[1]) / 2, nats(case.truth))]
    return f"| {title} | {' | '.join(cells)} |"


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| measurement | dds | dds, `generic` | ADMM-TV | wavelets | evidence | dds, `tune` | `auto` | chosen "
        "| best of all tried | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shipped = [f"{row['shipped'][name]:.2f}" if name in row["shipped"] else "" for name in METHODS]
        evidence = "" if row["evidence"] is None else f"{row['evidence']:+.3f}"
        tuned = "" if row["tune"] is None else f"{row['tune']:.2f}"
        chosen = f"{evidence} | {tuned} | {row['auto']:.2f} | {row['chosen']}"
        lines.append(f"| {row['title']} | {' | '.join(shipped)} | {chosen} | {row['best']:.2f} | {row['seconds']} |")
    if rows:
        count = len(rows)
        gain = sum(row["auto"] - row["shipped"]["dds"] for row in rows) / count
        short = [row["best"] - row["auto"] for row in rows]
        below = [row["shipped"]["admm_tv"] - row["auto"] for row in rows]
        lines.append(
            f"\n{count} cases: auto is {gain:+.2f} dB from dds as shipped, {sum(short) / count:.2f} dB short of the "
            f"best on average and {max(short):.2f} at most, {max(below):.2f} dB below ADMM-TV as shipped at most."
        )
    return "\n".join(lines)


def rows_in(
    folder: Path, names: Iterable[str], wanted: list[str], run: Callable[[str], dict[str, Any]]
) -> list[dict[str, Any]]:
    """The rows of all names that have a file in a folder, those that are wanted run before where they have none."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in wanted:
        path = folder / f"{name}.json"
        if not path.is_file():
            print(f"{name} ...", flush=True)
            write_whole(path, to_json(run(name)))
    files = [folder / f"{name}.json" for name in names]
    return [json.loads(path.read_text()) for path in files if path.is_file()]


METHODS = ("dds", "dds with prior generic", "admm_tv", "l1_wavelet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES), metavar="CASE")
    parser.add_argument("--evaluations", type=int, default=30)
    parser.add_argument("--evidence", action="store_true")
    args = parser.parse_args()
    if args.evidence:
        print(
            "| measurement | dds | dds, `generic` | ADMM-TV | held out: dds | dds, `generic` | ADMM-TV "
            "| evidence by ADMM-TV | by both dds | by the truth |\n|---|---|---|---|---|---|---|---|---|---|"
        )
        for row in filter(None, (evidence(name, args.data) for name in args.cases)):
            print(row, flush=True)
        return
    rows = rows_in(args.output, CASES, args.cases, lambda name: run(name, args.data, args.evaluations))
    print(table(rows))


if __name__ == "__main__":
    main()
