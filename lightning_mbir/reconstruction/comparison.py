"""The comparison of methods on one measurement a volume: each row in its own file, and none worked out twice."""

from __future__ import annotations

import io
import json
import logging
import zipfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
from torch import Tensor

from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.errors import InputError
from lightning_mbir.files import remove_stale, write_whole, writing
from lightning_mbir.methods.plans import Plan
from lightning_mbir.methods.samples import PosteriorSamples
from lightning_mbir.prior.networks.running import is_out_of_memory
from lightning_mbir.reconstruction.case import Case
from lightning_mbir.reconstruction.memory import PeakMemory
from lightning_mbir.reconstruction.pages import comparison_page
from lightning_mbir.reconstruction.provenance import device_name, digest, git_revision
from lightning_mbir.reconstruction.runner import Runner
from lightning_mbir.reconstruction.spread import known_correction, spread_of
from lightning_mbir.reconstruction.writer import write_figure
from lightning_mbir.report.embedded import of_steps, steps_file
from lightning_mbir.report.figures import comparison_figure
from lightning_mbir.report.metrics import PLANES, decibels
from lightning_mbir.report.page import write_page
from lightning_mbir.report.scale import Scale, picture_window
from lightning_mbir.report.sheet import Place, Planes, middle_planes
from lightning_mbir.report.tables import Row, finite, measured_text, method_text, to_json

log = logging.getLogger(__name__)

COMPARISON = "comparison"
"""The folder of a task's tables."""


def compare_volume(
    runner: Runner,
    scan: Volume,
    plans: list[Plan],
    folder: Path,
    title: str,
    overwrite: bool = False,
    report: bool = True,
    config: str | None = None,
) -> list[Row]:
    """The rows of all methods on one volume, in their order, ``comparison_<volume>.png`` and ``report_<volume>.html``.

    Args:
        runner: what runs the methods.
        scan: with the true volume.
        plans: the methods.
        folder: of the comparison; rows lie in its folder ``rows``.
        title: what stands before the progress bars.
        overwrite: whether rows are worked out again that are there.
        report: whether volumes are kept in ``rows``, in steps of 1/1024 of the window, and a page of them is written.
        config: of the run, to be told in the page.
    """
    scale = Scale.of(runner.task.modality, picture_window(scan.data, runner.task.modality))
    case = cache(partial(runner.case, scan, plans))  # nothing is measured where all is known
    notes = {"device": device_name(runner.device), "revision": git_revision()}
    for written in (folder, folder / "rows"):
        remove_stale(written)
    results: list[tuple[Row, Planes | None]] = []
    pack = (lambda image: steps_file(image, scan.affine, scale)[0]) if report else None
    for plan in plans:
        work = partial(_figures, runner, scan, case, plan, title)
        identity = runner.identity(scan, plan)
        if plan.samples > 1:
            identity["spread_factor"] = known_correction(runner, scan, plan).factor
        row, planes, known = scored(folder / "rows", identity, work, notes, overwrite, pack)
        results.append((row, planes))
        told = f"failed: {row['error']}" if "error" in row else f"PSNR {decibels(row['volume_psnr'])}"
        print(f"{scan.name} {plan.method}: {told}{', scored before' if known else ''}", flush=True)
    rows = [row for row, _ in results]
    heading = measured_text(scan.name, runner.task.name, runner.settings)
    methods = "; ".join(method_text(row) for row in rows)
    place = Place.of(scan.data, scan.affine, scan.sided)
    figure = comparison_figure(f"{heading}; {methods}", scan.data, results, place, scale)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_figure(folder / f"comparison_{scan.name}.png", figure)
    if report:
        volumes = _kept_volumes(folder / "rows", rows, scale)
        write_page(folder / f"report_{scan.name}.html", comparison_page(heading, rows, volumes, scan, scale, config))
    return rows


def _kept_volumes(folder: Path, rows: list[Row], scale: Scale) -> dict[str, Callable[[], Tensor]]:
    """What reads the volumes of rows again, by method; those that are not there are told."""
    found: dict[str, Callable[[], Tensor]] = {}
    for row in rows:
        path = folder / f"{_stem(row, row['key'])}.nii.gz"
        if path.is_file():
            found[row["method"]] = partial(_read_volume, path, scale)
        elif "error" not in row:
            log.warning(
                "%s %s: scored before, without its volume, which the report then lacks; --overwrite true does it again",
                row["volume"]["name"],
                row["method"],
            )
    return found


def _read_volume(path: Path, scale: Scale) -> Tensor:
    try:
        return of_steps(path.read_bytes(), scale)
    except ValueError as error:
        raise InputError(f"{path}: {error}; delete it, or give --overwrite true") from error


def _figures(runner: Runner, scan: Volume, case: Callable[[], Case], plan: Plan, title: str) -> tuple[Row, Tensor]:
    """What is told of one method on one volume, and the image."""
    given = case()
    given.passing(runner.takes_complex(plan)).norm()  # once for all methods, so none of their time
    with PeakMemory(given.device) as memory:
        plan, tuning = runner.choose(given, plan, title)
        result = runner.run(given, plan, title)
    figures: Row = {
        "nfe": result.nfe,
        "seconds": round(result.seconds, 3),
        "peak_mib": None if memory.bytes is None else round(memory.bytes / 2**20, 1),
        "residual": result.residual,
        **runner.scores(given, result.image),
    }
    if tuning is not None:
        figures["chosen_because"] = tuning.lines
    if isinstance(result, PosteriorSamples):
        figures |= spread_of(runner, scan, given, plan, result, None).metrics
    return figures, result.image


def scored(
    folder: Path,
    identity: Row,
    work: Callable[[], tuple[Row, Tensor]],
    notes: Row,
    overwrite: bool = False,
    pack: Callable[[Tensor], bytes] | None = None,
) -> tuple[Row, Planes | None, bool]:
    """The row of ``identity``: read where it was scored before, else worked out and written.

    Args:
        folder: where rows lie.
        identity: all that the figures depend on, with ``volume`` (its ``name``) and ``method``.
        work: gives the figures and the image ``(Z, Y, X)``; an ``InputError`` or a lack of memory becomes a row with
            its reason as ``error``, which is not kept, so that it is tried again.
        notes: what else goes into a new row.
        overwrite: whether it is worked out again where it is there.
        pack: makes the bytes of a ``.nii.gz`` of the image, where that is kept too.

    Returns:
        the row, the middle planes (none of a failure), and whether they had been there.
    """
    key = digest(identity)
    stem = _stem(identity, key)
    known = None if overwrite else _read(folder, stem, key)
    if known is not None:
        return *known, True
    row = {"key": key, **identity, **notes}
    try:
        figures, image = work()
    except (InputError, RuntimeError, MemoryError) as error:
        if not isinstance(error, InputError) and not is_out_of_memory(error):
            raise
        lacking = "" if isinstance(error, InputError) else "out of memory: "
        return {**row, "error": f"{lacking}{' '.join(str(error).split())}"}, None, False
    row = finite(row | figures)  # as it will be read again
    planes = middle_planes(image)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **planes)  # type: ignore[arg-type]
    write_whole(folder / f"{stem}.npz", buffer.getvalue())
    if pack is not None:
        write_whole(folder / f"{stem}.nii.gz", pack(image))
    write_whole(folder / f"{stem}.json", to_json(row))  # last: where it lies, all does
    return row, planes, False


def _stem(identity: Row, key: str) -> str:
    return f"{identity['volume']['name']}_{identity['method']}_{key[:16]}"


def _read(folder: Path, stem: str, key: str) -> tuple[Row, Planes] | None:
    try:
        row = json.loads((folder / f"{stem}.json").read_text())
        with np.load(folder / f"{stem}.npz", allow_pickle=False) as file:
            planes = {plane: file[plane] for plane in PLANES}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return (row, planes) if row.get("key") == key else None
