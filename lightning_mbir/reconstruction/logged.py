"""What TensorBoard is told of volumes and of comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from lightning_mbir.board import Plain, write_settings, writer_of
from lightning_mbir.reconstruction.course import Course, Point, write_point
from lightning_mbir.reconstruction.provenance import digest
from lightning_mbir.reconstruction.record import gathered
from lightning_mbir.report.metrics import PLANES
from lightning_mbir.report.tables import Row

COLUMNS: dict[str, Plain] = {
    "task": "", "method": "", "volume": "", "measured": "", "views": 0, "angle_range": 0.0, "acc": 0.0, "mask": "",
    "phase": "", "coils": 0, "photons": 0.0, "snr": 0.0, "seed": 0, "steps": 0, "samples": 0, "options": "",
    "prior": "", "second_prior": "", "precision": "", "image_size": 0,
}  # fmt: skip
"""What may stand in the table of settings, whatever the task."""
FIRST = ("acc", "method", "steps", "views", "volume")
"""Those that it shows first."""
NAMES = ("volume_psnr", "volume_ssim", "nrmse", "lpips", "residual", "misfit", "seconds", "nfe")
SCORES = (*NAMES[:3], *(f"{plane}/{name}" for plane in PLANES for name in ("psnr", "ssim")), *NAMES[3:])
"""The scores in it."""


@dataclass(frozen=True)
class Logged:
    """What TensorBoard is told of one volume; no picture of one that was finished before.

    Attributes:
        index: number of the volume.
        metrics: its figures.
        picture: ``(height, width, 3)`` of bytes.
        run: its own run of TensorBoard, a folder in that of the logger.
        points: how it formed, where that is not written yet.
    """

    index: int
    metrics: dict[str, Any]
    picture: np.ndarray | None
    run: str = ""
    points: list[Point] = field(default_factory=list)


class VolumeBoard:
    """The volumes of a run in TensorBoard, where that is logged into: the first process writes as it goes, and at the
    end what the others have done.

    Args:
        loggers: of the trainer.
        task: its name.
        stage: ``predict`` or ``test``, of which Lightning logs the means.
        rank, ranks: number of this process, and how many there are.
    """

    def __init__(
        self, loggers: Sequence[Any] = (), task: str = "", stage: str = "predict", rank: int = 0, ranks: int = 1
    ) -> None:
        self.writer, self.task, self.rank, self.ranks = writer_of(loggers), task, rank, ranks
        self.tag = f"{task}/volumes" if stage == "test" else task
        self.logged: list[Logged] = []

    def course(self) -> Course | None:
        """What follows a volume as it forms; none without TensorBoard."""
        if self.writer is None:
            return None
        return Course(Path(self.writer.log_dir) if self.rank == 0 else None)

    def add(self, index: int, metrics: dict[str, Any], course: Course | None) -> None:
        """Take in a volume that is done.

        Args:
            index: its number.
            metrics: its figures.
            course: what ``course`` gave for it.
        """
        if course is None:
            return
        logged = Logged(index, metrics, course.picture, course.run, course.points)
        if self.rank == 0:
            log_volume(self.writer, self.tag, logged)
        else:
            self.logged.append(logged)

    def write_gathered(self) -> None:
        """Write what the other processes have done; all come here."""
        logged = [one for rank in gathered(self.logged, self.ranks) for one in rank]
        self.logged.clear()
        for one in sorted(logged, key=lambda one: one.index) if self.rank == 0 else ():
            log_volume(self.writer, self.tag, one)

    def tell_table(self, rows: list[Row], table: str, folder: Path, compares: bool) -> None:
        """Tell the table of a test, on the screen and here, in the first process.

        Args:
            rows: of all volumes, those of failures too.
            table: in Markdown.
            folder: of the table, and of the figures of a comparison.
            compares: whether it is one, with a run a method.
        """
        print(f"\n{table}\n\n-> {folder}", flush=True)
        if self.writer is None:
            return
        self.writer.add_text(f"{self.task}/{'comparison' if compares else 'scores'}", table, 0)
        if compares:
            for name, picture in pictures_of(folder, rows).items():
                self.writer.add_image(f"{self.task}/comparison/{name}", picture, 0, dataformats="HWC")
            log_methods(self.writer, self.task, rows)
        self.writer.flush()


def scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """The figures of one volume, ``plane/name`` where they are of a plane."""
    scalars = {f"{plane}/{name}": value for plane in PLANES for name, value in metrics.get(plane, {}).items()}
    scalars |= {name: metrics[name] for name in NAMES if name in metrics}
    spread = metrics.get("calibration", {})
    scalars |= {f"calibration/{name}": spread[name] for name in ("ratio", "within_90", "crps") if name in spread}
    return {name: float(value) for name, value in scalars.items() if value is not None}


def mean_scalars(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Of each method the means over the volumes that have them; none of rows that failed."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for name, value in scalars(row).items() if "error" not in row else ():
            found.setdefault(row["method"], {}).setdefault(name, []).append(value)
    return {method: {name: fmean(values) for name, values in own.items()} for method, own in found.items()}


def run_name(task: str, volume: str, method: str, key: str) -> str:
    """The run of a result: one of the same settings goes on in the same."""
    return f"{task}/{volume}/{method.rpartition('.')[2]}-{key[:8]}"


def log_volume(writer: Any, tag: str, logged: Logged) -> None:
    """The figures of a volume over its number, and in a run of its own its settings, scores, course and pictures.

    Args:
        writer: the ``SummaryWriter`` of the run.
        tag: what stands before the names of figures.
        logged: what is told.
    """
    found = scalars(logged.metrics)
    for name, value in found.items():
        writer.add_scalar(f"{tag}/{name}", value, logged.index)
    writer.flush()
    if logged.picture is None:
        return
    with opened(writer, logged.run) as own:
        for point in logged.points:
            write_point(own, point)
        own.add_image("result", logged.picture, 0, dataformats="HWC")
        _write_scores(own, logged.metrics, {"volume": logged.metrics["volume"]}, found)


def log_methods(writer: Any, task: str, rows: list[Row]) -> None:
    """A run a method, with its figures over the volumes and their means beside its settings.

    Args:
        writer: the ``SummaryWriter`` of the run.
        task: its name.
        rows: of all volumes, those of failures too.
    """
    names = list(dict.fromkeys(row["volume"]["name"] for row in rows))
    for method, means in mean_scalars(rows).items():
        good = [row for row in rows if row["method"] == method and "error" not in row]
        same = ("task", "settings", "seed", "method", "options", "steps", "samples", "prior", "precision", "version")
        key = digest({name: good[0].get(name) for name in same})
        with opened(writer, run_name(task, "comparison", method, key)) as own:
            for row in good:
                for name, value in scalars(row).items():
                    own.add_scalar(f"volumes/{name}", value, names.index(row["volume"]["name"]))
            _write_scores(own, good[0], {"volume": f"mean of {len(good)}"} if len(good) > 1 else {}, means)


def pictures_of(folder: Path, rows: list[Row]) -> dict[str, np.ndarray]:
    """The figures of a comparison, by volume, as they were written into its folder."""
    from matplotlib.image import imread

    found = {}
    for name in dict.fromkeys(row["volume"]["name"] for row in rows):
        path = folder / f"comparison_{name}.png"
        if path.is_file():
            found[name] = (255 * imread(path)[..., :3]).round().astype(np.uint8)
    return found


def opened(writer: Any, run: str) -> Any:
    """A ``SummaryWriter`` of a run beside that of the logger, to be closed."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(Path(writer.log_dir) / run))


def _write_scores(own: Any, metrics: dict[str, Any], named: dict[str, str], found: dict[str, float]) -> None:
    """Settings for the tab HParams, with the last value of each score."""
    for name, value in found.items():
        own.add_scalar(f"score/{name}", value, 0)
    write_settings(own, {**settings(metrics), **named}, [f"score/{name}" for name in SCORES], FIRST, COLUMNS)


def settings(metrics: dict[str, Any]) -> dict[str, Any]:
    """What the table of settings says of one result: the columns that it has."""
    given = dict(metrics["settings"])
    size, volume, samples = metrics.get("image_size"), metrics["volume"], metrics.get("samples")
    options = ", ".join(f"{name} {value}" for name, value in (metrics.get("options") or {}).items())
    found = {name: metrics.get(name) for name in ("task", "method", "seed", "steps", "precision")}
    found |= {
        "measured": given.pop("measured", None) is not None,
        "volume": volume["name"] if isinstance(volume, dict) else volume,
        "samples": len(samples) if isinstance(samples, list) else samples or 1,
        "options": options or None,
        "image_size": size[-1] if size else None,
    }
    found |= {name: prior["name"] for name in ("prior", "second_prior") if (prior := metrics.get(name))}
    found |= given
    return {name: found[name] for name in COLUMNS if found.get(name) is not None}
