"""One method scored on one volume, of which nothing but its figures is kept."""

from __future__ import annotations

from lightning_mbir.data.measurements.measurement import Measurement
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.methods.plans import Plan
from lightning_mbir.methods.samples import PosteriorSamples
from lightning_mbir.reconstruction.course import Course
from lightning_mbir.reconstruction.logged import run_name
from lightning_mbir.reconstruction.memory import PeakMemory
from lightning_mbir.reconstruction.provenance import device_name, digest, git_revision
from lightning_mbir.reconstruction.record import gathered
from lightning_mbir.reconstruction.runner import Runner
from lightning_mbir.reconstruction.spread import spread_of
from lightning_mbir.report.scale import Scale, picture_window
from lightning_mbir.report.sheet import Place
from lightning_mbir.report.tables import Row, finite, measured_text, method_text

SCORES = "scores"
"""The folder of a task's scores, in it one of each method."""


def score_volume(runner: Runner, scan: Volume | Measurement, plan: Plan, title: str, course: Course | None) -> Row:
    """The row of a method on a volume, as a comparison has it, with all of ``Runner.metrics``.

    Args:
        runner: what runs the method.
        scan: the volume, or a measurement.
        plan: the method.
        title: what stands before the progress bar.
        course: has the result drawn, for TensorBoard.
    """
    case, identity = runner.case(scan, [plan]), runner.identity(scan, plan)
    case.passing(runner.takes_complex(plan)).norm()  # known before, so none of the method's time
    with PeakMemory(case.device) as memory:
        plan, tuning = runner.choose(case, plan, title)
        result = runner.run(case, plan, title)
    key = digest(identity)
    row: Row = {
        **runner.metrics(scan, case, plan, result),
        "key": key,
        **identity,
        "device": device_name(case.device),
        "revision": git_revision(),
        "peak_mib": None if memory.bytes is None else round(memory.bytes / 2**20, 1),
        **runner.scores(case, result.image),
    }
    if isinstance(scan, Measurement):
        row["settings"] = {"measured": case.notes, **runner.given}
    if tuning is not None:
        options = tuning.candidate.full
        row |= {"steps": options.pop("steps", None), "options": options, "chosen_because": tuning.lines}
    if isinstance(result, PosteriorSamples):
        row |= spread_of(runner, scan, case, plan, result, None).metrics
    if course is not None:
        course.run = run_name(row["task"], case.name, row["method"], key)
        shown, modality = result.image if case.truth is None else case.truth, runner.task.modality
        scale = Scale.of(modality, picture_window(shown, modality, case.calibrated), case.calibrated)
        place = Place.of(shown, scan.affine, scan.sided)
        told = f"{measured_text(case.name, row['task'], row['settings'])}; {method_text(row)}"
        course.finish(told, plan.method.rpartition(".")[2], result.image, case.truth, place, scale)
    return finite(row)


def gathered_rows(own: list[tuple[int, Row]], ranks: int) -> list[Row]:
    """The rows of all processes, each with the number of its volume, in the order of these; all come here."""
    pairs = [pair for rank in gathered(own, ranks) for pair in rank]
    return [row for _, row in sorted(pairs, key=lambda pair: pair[0])]
