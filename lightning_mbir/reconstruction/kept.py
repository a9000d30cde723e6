"""What a run that was stopped has left of a volume: settings that were tried, samples, the state of a method."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_mbir.checkpointing import StateFolder
from lightning_mbir.data.volumes.writing import write_volume
from lightning_mbir.files import unfinished, write_whole, writing
from lightning_mbir.methods.run import Reconstruction
from lightning_mbir.methods.samples import Running
from lightning_mbir.methods.trials import Trial
from lightning_mbir.reconstruction.case import Case
from lightning_mbir.reconstruction.job import Job, placed
from lightning_mbir.reconstruction.provenance import digest
from lightning_mbir.reconstruction.writer import KEPT, STATE, TRIED
from lightning_mbir.slabs import gathered

log = logging.getLogger(__name__)


def tried(path: Path, key: str) -> list[Trial]:
    """The trials that a run of the same settings has made before it was stopped."""
    try:
        kept = json.loads(path.read_text())
        if kept["key"] != key:
            return []
        return [Trial.read(trial) for trial in kept["trials"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def state_folder(job: Job, identity: dict[str, Any], folder: Path) -> StateFolder:
    """What keeps the state of the method that is run, which is that of a single one of the samples."""
    plan = job.plan
    run = {"options": {**plan.chosen.options, **plan.options}, "steps": plan.steps}
    own = {**identity, "samples": None, "spread": None, "method": plan.method, "named_prior": plan.prior, **run}
    return StateFolder(folder, own, digest(own), job.minutes, job.scan.name, log.info)


def told_left(job: Job, identity: dict[str, Any]) -> str:
    """What an interrupted run has left of a volume, and so what the same command will do."""
    new = unfinished(job.folder)
    kept = any((new / state).is_file() for state in (STATE, TRIED))
    if kept or (job.plan.choice is None and state_folder(job, identity, new / KEPT).kept):
        return "what is finished is kept, and the same command goes on"
    return f"nothing of {job.scan.name} was kept yet, so that the same command begins it again"


def kept_samples(
    job: Job, identity: dict[str, Any], case: Case, folder: Path
) -> tuple[Running, Callable[[int, Reconstruction], None]]:
    """The samples that were taken with the same settings, in ``folder``, and what writes another.

    They are of a run that was killed, or of results with fewer samples, which are copied. Mean and spread are kept
    beside the samples rather than read from these: files hold magnitudes, in HU where CT, from which a complex mean
    cannot be had, nor the very bits of a run that was not interrupted.
    """
    runner, most, first = job.runner, job.plan.samples, job.slab.first
    key, state = digest({**identity, "samples": None, "spread": None}), Path(STATE).name

    def kept(place: Path) -> Running:
        known = Running.load(place / state, key, most, case.y.device) if first else Running()
        return known if all((place / _sample(k)).is_file() for k in range(known.count)) else Running()

    running, before = kept(folder), job.folder / "samples"
    earlier = Running() if job.overwrite else kept(before)
    if first and (max(running.count, earlier.count) == 0 or earlier.count > running.count):
        shutil.rmtree(folder, ignore_errors=True)  # of other settings, or fewer
    with writing(job.folder):
        if first:
            folder.mkdir(exist_ok=True)
        if earlier.count > running.count:
            running = earlier
            for name in (*map(_sample, range(running.count)), state):
                write_whole(folder / name, (before / name).read_bytes())

    if job.slab.split:
        running = running.dealt(case.y.device)
    truth = None if case.truth is None else gathered(case.truth)

    def each(k: int, result: Reconstruction) -> None:
        image, work = gathered(result.image), {"nfe": result.nfe, "seconds": round(result.seconds, 3)}
        scores = runner.scores(replace(case, truth=truth), image) if first else {}
        running.scores.append({"sample": k, **work, "residual": result.residual, **scores})
        whole = running.gathered() if job.slab.split else running
        if first:
            write_volume(folder / _sample(k), placed(job.scan, image, case))
            whole.save(folder / state, key)

    return running, each


def _sample(k: int) -> str:
    return f"sample_{k:02d}.nii.gz"
