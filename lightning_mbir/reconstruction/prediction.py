"""One volume reconstructed and written, with its samples where there are several."""

from __future__ import annotations

import logging
import shutil
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_mbir.data.measurements.measurement import Measurement
from lightning_mbir.data.volumes.dicom_writing import dicom_headers, write_dicom
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.errors import InputError, WriteError
from lightning_mbir.files import check_room, unfinished, whole_folder, write_whole
from lightning_mbir.methods.fbp import unfiltered
from lightning_mbir.methods.plans import Plan
from lightning_mbir.methods.run import Reconstruction, run_method
from lightning_mbir.methods.samples import PosteriorSamples, Running
from lightning_mbir.methods.trials import Trial, Tuning
from lightning_mbir.reconstruction.case import Case
from lightning_mbir.reconstruction.course import Course
from lightning_mbir.reconstruction.job import Job, assumed, placed
from lightning_mbir.reconstruction.kept import kept_samples, state_folder, told_left, tried
from lightning_mbir.reconstruction.logged import run_name
from lightning_mbir.reconstruction.pages import prediction_page
from lightning_mbir.reconstruction.provenance import device_name, digest, file_sha256, git_revision, plain_data
from lightning_mbir.reconstruction.runner import Runner
from lightning_mbir.reconstruction.spread import known_correction, spread_of
from lightning_mbir.reconstruction.writer import (
    DICOM,
    KEPT,
    REPORT,
    STATES,
    TRIED,
    check_replaceable,
    finished,
    write_figure,
    write_results,
    write_spread,
)
from lightning_mbir.report.choice import choice_figure
from lightning_mbir.report.figures import calibration_figure
from lightning_mbir.report.montage import montage
from lightning_mbir.report.page import write_page
from lightning_mbir.report.scale import Scale, picture_window
from lightning_mbir.report.sheet import Place
from lightning_mbir.report.tables import measured_text, method_text, to_json
from lightning_mbir.slabs import current, every, from_first, gathered, holding, of_all
from lightning_mbir.version import __version__

log = logging.getLogger(__name__)


def predict_volume(job: Job) -> tuple[dict[str, Any], bool]:
    """Reconstruct one volume into a folder that is its results, whole, as ``docs/comparison.md`` says.

    Of processes that share the volume all come here; the first one writes.

    Returns:
        the metrics, and whether they are of a result that this process has just written, rather than found finished
        or left to another process.

    Raises:
        InputError: files in the folder that are none of ours, another process that writes there, and whatever is
            wrong with the volume.
        WriteError: a disk that is full, or does not let us write; it says what is kept.
    """
    try:
        with holding(job.slab):
            return _predict(job)
    finally:
        if job.course is not None:
            job.course.close()


def _predict(job: Job) -> tuple[dict[str, Any], bool]:
    runner, scan, plan, folder, first = job.runner, job.scan, job.plan, job.folder, job.slab.first
    identity = _identity(job)
    key = _agreed(digest(identity), scan.name)
    lacks_dicom = job.write == "dicom" and not (folder / DICOM).is_dir()
    known = from_first(finished(folder, key) if first and not job.overwrite and not lacks_dicom else None)
    if known is not None:
        if first:
            lacks = f", but has no {REPORT}" if job.report and not (folder / REPORT).is_file() else ""
            told = f"finished before, with the same settings{lacks}; --overwrite true does it again"
            print(f"{scan.name}: {told} -> {folder}")
        return known, False
    if first:
        check_replaceable(folder)
        check_room(folder, _bytes(job))
    headers = _dicom_headers(job) if first else []
    running, new = Running(), None
    try:
        with whole_folder(folder, *STATES) if first else nullcontext(unfinished(folder)) as new:
            case, each = runner.case(scan, [plan]), None
            plan, tuning = _chosen(job, case, new, key)
            job = replace(job, plan=plan)
            if plan.samples > 1:
                running, each = kept_samples(job, identity, case, new / "samples")
            elif first:
                shutil.rmtree(new / "samples", ignore_errors=True)
            kept, course = state_folder(job, identity, new / KEPT), _course(job, key, case)
            result = runner.run(case, plan, job.title, running, each, kept, course)
            figures = runner.metrics(scan, case, plan, result)
            direct = _direct(runner, plan, case)
            result, case, direct = _whole(result, case, direct)
            if not first:
                return {}, False
            metrics = {"key": key, **_provenance(job, identity), **figures, **runner.scores(case, result.image)}
            if tuning is not None:
                _write_choice(job, new, tuning, metrics, identity)
            written = _written(job, new, case, result, direct, metrics, running, headers)
            shutil.rmtree(new / KEPT, ignore_errors=True)
            return written, True
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(told_left(job, identity))
        raise
    except WriteError as error:
        if new is None:  # before the work
            raise
        samples = f"the {running.count} samples so far and " if running.count else ""
        told = str(error).replace(str(new), str(folder))  # which is where it would have been
        raise WriteError(
            f"{told}; {samples}the volumes that are finished are kept, and the same command goes on"
        ) from error


def _agreed(key: str, name: str) -> str:
    """The key, which is the same in all processes that share a volume."""
    if set(of_all(key)) != {key}:
        raise InputError(f"{name}: the processes that share it see other files, priors or versions; give all the same")
    return key


def _course(job: Job, key: str, case: Case) -> Course | None:
    """What follows the volume; of processes that share it, none unless all of them have one."""
    course, runner, plan = job.course, job.runner, job.plan
    if not every(course is not None, case.device) or course is None:
        return None
    course.run = run_name(runner.task.name, case.name, plan.name, key)
    operator = case.passing(runner.takes_complex(plan))
    course.start(job.scan, case, operator, runner.task.modality, runner.task.data_range)
    return course


def _whole(
    result: Reconstruction, case: Case, direct: tuple[str, Tensor] | None
) -> tuple[Reconstruction, Case, tuple[str, Tensor] | None]:
    """Images of all slices, on the host of the first process of those that share them."""
    if not current().split:
        return result, case, direct
    result = replace(result, volume=gathered(result.image))
    if isinstance(result, PosteriorSamples):
        result = replace(result, std=gathered(result.std))
    truth = None if case.truth is None else gathered(case.truth)
    return result, replace(case, truth=truth), None if direct is None else (direct[0], gathered(direct[1]))


def _chosen(job: Job, case: Case, folder: Path, key: str) -> tuple[Plan, Tuning | None]:
    """What is run, chosen by the measurement where the plan leaves that open; what was tried is kept as it goes."""
    path, first = folder / TRIED, job.slab.first
    if job.plan.choice is None:
        if first:
            path.unlink(missing_ok=True)  # of other settings
        return job.plan, None

    def keep(trials: list[Trial]) -> None:
        write_whole(path, to_json({"key": key, "trials": [asdict(trial) for trial in trials]}))

    known = from_first(tried(path, key) if first else [])
    return job.runner.choose(case, job.plan, job.title, known, keep if first else None)


def _write_choice(job: Job, folder: Path, tuning: Tuning, metrics: dict[str, Any], identity: dict[str, Any]) -> None:
    """What was chosen and why: two lines in the metrics, all of it in ``tuning.json``, a figure."""
    chosen, options = tuning.candidate, tuning.candidate.full
    metrics |= {"steps": options.pop("steps", None), "options": options}
    metrics |= {"chosen_because": tuning.lines, "warning": tuning.warning(job.runner.prior_name)}
    if not chosen.chosen.needs_prior:
        metrics["prior"] = None
    elif chosen.prior is not None:
        metrics["prior"] = identity["other_priors"][chosen.prior]
    write_whole(folder / TRIED, to_json({"key": metrics["key"], **tuning.data}))
    write_figure(folder / "tuning.png", choice_figure(tuning, job.scan.name))


def _written(
    job: Job,
    folder: Path,
    case: Case,
    result: Reconstruction,
    direct: tuple[str, Tensor] | None,
    metrics: dict[str, Any],
    running: Running,
    headers: list[Any],
) -> dict[str, Any]:
    """Write all that there is of a volume; returns the metrics."""
    runner, plan, modality, image = job.runner, job.plan, job.runner.task.modality, result.image
    window = picture_window(image if case.truth is None else case.truth, modality, case.calibrated)
    scale, volume = Scale.of(modality, window, case.calibrated), placed(job.scan, image, case)
    place = Place.of(image, volume.affine, volume.sided, case.sized and case.calibrated)
    spread = None
    if isinstance(result, PosteriorSamples):
        spread = spread_of(runner, job.scan, case, plan, result, job.off_by)
        metrics |= {"samples": running.scores, **spread.metrics}
        log.info("%s: %s", case.name, spread.correction.line)
    title = f"{measured_text(case.name, metrics['task'], metrics['settings'])}; {method_text(metrics)}"
    if spread is not None and isinstance(result, PosteriorSamples):
        drawn = None
        if case.truth is not None and spread.calibration is not None:
            shown = spread.calibration, image, spread.std, case.truth, result.samples, place, scale
            drawn = calibration_figure(title, *shown, spread.correction.factor)
        write_spread(folder, volume, spread.std, spread.off, drawn)
    name = plan.method.rpartition(".")[2]
    scores = None if case.truth is None else metrics
    figure = montage(title, name, image, direct, case.truth, place, scale, scores)
    if headers:
        write_dicom(folder / DICOM, volume, headers)
    if unknown := assumed(job.scan):
        log.info("%s: %s", case.name, "; ".join(unknown))
    if job.report:
        std = None if spread is None else spread.std
        page = prediction_page(metrics, name, volume, direct, case.truth, std, scale, job.config)
        write_page(folder / REPORT, page)
    write_results(folder, volume, metrics, figure, job.config)
    if job.course is not None:
        job.course.finish(title, name, image, case.truth, place, scale)
    return metrics


def _direct(runner: Runner, plan: Plan, case: Case) -> tuple[str, Tensor] | None:
    """Name and image of the direct inversion of a measurement; none where that is the method itself."""
    method, name = ("fbp", "FBP") if runner.task.modality == "ct" else ("zero_filled", "zero-filled")
    if runner.task.operator is not None:  # of which no direct inversion is known
        method, name = "cgls", "least squares"
    operator = case.operator(runner.takes_complex(plan))
    steps = None
    if unfiltered(operator):
        method, name, steps = "sirt", "SIRT, 50 steps", 50
    if plan.method == method:
        return None
    modality, slabs = runner.task.modality, case.host_slabs
    return name, run_method(case.y, operator, None, method, modality=modality, steps=steps, host_slabs=slabs).image


def _dicom_headers(job: Job) -> list[Any]:
    """Those of the series that is to be written, before the work that they could be too late for."""
    if job.write != "dicom" or not isinstance(job.scan, Volume):
        return []
    settings = ", ".join(f"{name} {value}" for name, value in job.runner.settings.items())
    task = " ".join(filter(None, (job.runner.task.name, settings and f"({settings})")))
    return dicom_headers(
        job.scan,
        f"lightning_mbir {__version__}: {job.plan.method}, from a measurement simulated from the source images, {task}",
    )


def _identity(job: Job) -> dict[str, Any]:
    """What the files of a result depend on: beside what the voxels do, where they lie, and what is made of samples."""
    runner, scan, plan = job.runner, job.scan, job.plan
    grid = scan.grid if isinstance(scan, Volume) else None
    place = {"affine": scan.affine, "grid": grid and {"shape": grid.shape, "affine": grid.affine}}
    spread = None
    if plan.samples > 1:
        spread = {"factor": known_correction(runner, scan, plan).factor, "off_by": job.off_by}
    return {**runner.identity(scan, plan, job.volume), "place": plain_data(place), "spread": spread}


def _provenance(job: Job, identity: dict[str, Any]) -> dict[str, Any]:
    """Where a result comes from, beside what ``Runner.metrics`` says."""
    file = {} if job.source is None else {"file_sha256": file_sha256(job.source)}
    names = ("method_sha256", "options", "steps", "prior", "second_prior", "network", "precision")
    return {
        "version": __version__,
        "revision": git_revision(),
        "device": device_name(job.runner.device),
        "input": {**identity["volume"], **file},
        **{name: identity[name] for name in names if name in identity},
    }


def _bytes(job: Job) -> int:
    """What the results of a volume take on the disk at least: they are compressed, but to no quarter."""
    scan, samples = job.scan, job.plan.samples
    if isinstance(scan, Measurement):
        return 0
    i, j, k = scan.data.shape if scan.grid is None else scan.grid.shape
    if scan.grid is None and job.slab.split:
        i = job.slab.depth
    return i * j * k * (1 if samples == 1 else samples + 3)
