"""The comparison of methods on one measurement a volume: each row in its own file, and none worked out twice."""

from __future__ import annotations

import io
import json
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
from lightning_mbir.reconstruction.provenance import device_name, digest, git_revision
from lightning_mbir.reconstruction.runner import Runner
from lightning_mbir.reconstruction.spread import known_correction, spread_of
from lightning_mbir.reconstruction.writer import write_figure
from lightning_mbir.report.figures import Scale, comparison_figure
from lightning_mbir.report.metrics import PLANES, decibels
from lightning_mbir.report.montage import Planes, middle_planes
from lightning_mbir.report.tables import Row, finite, settings_text, to_json


def compare_volume(
    runner: Runner, scan: Volume, plans: list[Plan], folder: Path, title: str, overwrite: bool = False
) -> list[Row]:
    """The rows of all methods on one volume, in their order, and ``comparison_<volume>.png``.

    Args:
        runner: what runs the methods.
        scan: with the true volume, on the device to work on.
        plans: the methods.
        folder: of the comparison; rows lie in its folder ``rows``.
        title: what stands before the progress bars.
        overwrite: whether rows are worked out again that are there.
    """
    case = cache(partial(runner.case, scan))  # nothing is measured where all is known
    notes = {"device": device_name(scan.data.device), "revision": git_revision()}
    for written in (folder, folder / "rows"):
        remove_stale(written)
    results: list[tuple[Row, Planes | None]] = []
    for plan in plans:
        work = partial(_figures, runner, scan, case, plan, title)
        identity = runner.identity(scan, plan)
        if plan.samples > 1:
            identity["spread_factor"] = known_correction(runner, scan, plan).factor
        row, planes, known = scored(folder / "rows", identity, work, notes, overwrite)
        results.append((row, planes))
        told = f"failed: {row['error']}" if "error" in row else f"PSNR {decibels(row['volume_psnr'])}"
        print(f"{scan.name} {plan.method}: {told}{', scored before' if known else ''}", flush=True)
    scale = Scale.of(runner.task.modality, runner.window(scan.data))
    heading = f"{scan.name}: {runner.task.name}, {settings_text(runner.settings)}"
    figure = comparison_figure(heading, scan.data, results, scan.spacing, scale)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_figure(folder / f"comparison_{scan.name}.png", figure)
    return [row for row, _ in results]


def _figures(runner: Runner, scan: Volume, case: Callable[[], Case], plan: Plan, title: str) -> tuple[Row, Tensor]:
    """What is told of one method on one volume, and the image."""
    given = case()
    given.operator(runner.takes_complex(plan)).norm()  # once for all methods, so none of their time
    with PeakMemory(given.y.device) as memory:
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
    folder: Path, identity: Row, work: Callable[[], tuple[Row, Tensor]], notes: Row, overwrite: bool = False
) -> tuple[Row, Planes | None, bool]:
    """The row of ``identity``: read where it was scored before, else worked out and written.

    Args:
        folder: where rows lie.
        identity: all that the figures depend on, with ``volume`` (its ``name``) and ``method``.
        work: gives the figures and the image ``(Z, Y, X)``; an ``InputError`` or a lack of memory becomes a row with
            its reason as ``error``, which is not kept, so that it is tried again.
        notes: what else goes into a new row.
        overwrite: whether it is worked out again where it is there.

    Returns:
        the row, the middle planes (none of a failure), and whether they had been there.
    """
    key = digest(identity)
    stem = f"{identity['volume']['name']}_{identity['method']}_{key[:16]}"
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
    write_whole(folder / f"{stem}.json", to_json(row))  # last: where it lies, all does
    return row, planes, False


def _read(folder: Path, stem: str, key: str) -> tuple[Row, Planes] | None:
    try:
        row = json.loads((folder / f"{stem}.json").read_text())
        with np.load(folder / f"{stem}.npz", allow_pickle=False) as file:
            planes = {plane: file[plane] for plane in PLANES}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return (row, planes) if row.get("key") == key else None
