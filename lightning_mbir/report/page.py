"""``report.html``: one file with volumes, numbers and where they come from, to be looked at in any browser."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from lightning_mbir.data.units import Modality
from lightning_mbir.files import write_whole
from lightning_mbir.report.embedded import Embedded, embed, factors, reduced, reduced_affine, told
from lightning_mbir.report.scale import Scale
from lightning_mbir.report.sheet import Place
from lightning_mbir.version import __version__

ASSETS = Path(__file__).parent / "assets"
PERCENTILES = ((0.0, 99.5), (1.0, 99.0), (5.0, 95.0))
"""Windows that are offered for MRI, beside that of the pictures."""
HU_WINDOWS = (("lung", -1350.0, 150.0), ("soft tissue", -160.0, 240.0), ("bone", -500.0, 1500.0))
"""Windows that are offered for CT: levels of -600, 40 and 500, widths of 1500, 400 and 2000."""

VARIES = ("seconds", "peak MiB", "revision")
"""What the same run tells in another way the next time: cells of the class ``varies``."""

Table = list[dict[str, str | float | None]]


@dataclass(frozen=True)
class Shown:
    """A volume of a page.

    Attributes:
        name: above its panel.
        volume: gives ``(Z, Y, X)`` in physical unit; asked for once, so that no two are held.
        kind: ``grey``, or ``spread`` of standard deviations.
        error: whether its error has a panel of its own.
    """

    name: str
    volume: Callable[[], Tensor]
    kind: Literal["grey", "spread"] = "grey"
    error: bool = False


@dataclass(frozen=True)
class Page:
    """What a page shows.

    Attributes:
        title: what was measured.
        lead: how it was reconstructed.
        volumes: of one shape, in their order; with a truth the first is the truth, of which all others have errors.
        truth: whether there is one.
        affine: ``(4, 4)`` from ``(x, y, z)`` to RAS mm.
        scale: unit, and the window at the start.
        modality: which windows are offered.
        sided: whether left and right are known.
        numbers: lines of a table, by column; the first column names them.
        provenance: plain data, shown by name.
        command: what runs it again.
        config: its configuration, and the name of the file that it is saved as.
        notes: what else is to be said, a line each.
        warnings: what must not be overlooked.
        sortable: whether lines of ``numbers`` can be sorted.
    """

    title: str
    lead: str
    volumes: Sequence[Shown]
    truth: bool
    affine: np.ndarray
    scale: Scale
    modality: Modality
    sided: bool
    numbers: Table
    provenance: dict[str, Any]
    command: str
    config: tuple[str, str] | None = None
    notes: Sequence[str] = ()
    warnings: Sequence[str] = field(default=())
    sortable: bool = False


def write_page(path: Path, page: Page) -> None:
    """Write a page, whole or not at all."""
    write_whole(path, page_text(page).encode())


def page_text(page: Page) -> str:
    """The page as HTML, with all that it needs."""
    first = page.volumes[0].volume()
    shape = (first.shape[0], first.shape[1], first.shape[2])
    sides = factors(shape, len(page.volumes))
    affine = reduced_affine(page.affine, sides)
    texts: list[Embedded] = []
    presets: list[tuple[str, float, float]] = [("as pictures", *page.scale.window)]
    spread = page.scale.error_peak
    for k, shown in enumerate(page.volumes):
        data = reduced(first if k == 0 else shown.volume(), sides)
        if k == 0:
            grid, place = data.shape, Place.of(data, affine, page.sided)
            presets += _presets(page, data)
        if shown.kind == "spread":
            spread = max(float(np.quantile(data.numpy(), 0.995)) * page.scale.factor, 1e-12)
        texts.append(embed(data, affine, page.scale, shown.kind == "spread"))
    data_of = {
        "shape": list(grid)[::-1],
        "spacing": list(place.spacing)[::-1],
        "affine": affine.tolist(),
        "unit": page.scale.unit,
        "window": page.scale.window,
        "presets": presets,
        "peak": page.scale.error_peak,
        "spread": spread,
        "sided": page.sided,
        "panels": _panels(page),
    }
    notes = [*page.notes, *told(page.scale, sides, sum(text.clipped for text in texts), shape)]
    ends = ["the patient's left to right", "back to front"] if page.sided else ["x", "y"]
    marks = "R is the patient's right, A the front." if page.sided else "The file does not tell left from right."
    volumes = (f'<script type="text/plain" id="v{k}">{text.text}</script>' for k, text in enumerate(texts))
    return _filled(
        {
            "title": escape(page.title),
            "lead": escape(page.lead),
            "style": _asset("report.css"),
            "script": _asset("report.js"),
            "warnings": "\n".join(f'<p class="warning">{escape(line)}</p>' for line in page.warnings),
            "marks": marks,
            "x_axis": ends[0],
            "y_axis": ends[1],
            "numbers": _table(page.numbers, page.sortable),
            "notes": "\n".join(f'<p class="small">{escape(line)}</p>' for line in notes),
            "command": escape(page.command),
            "config": _config(page.config),
            "provenance": _provenance(page.provenance),
            "version": escape(__version__),
            # No text of the data can end the script that it stands in.
            "data": json.dumps(data_of, allow_nan=False).replace("<", "\\u003c"),
            "volumes": "\n".join(volumes),
            "niivue": _niivue(),
        }
    )


def _filled(parts: dict[str, str]) -> str:
    """The page with its parts, each put in once: what stands in a part is not looked at again."""
    return re.sub(r"@(\w+)@", lambda found: parts[found[1]], _asset("report.html"))


@cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


@cache
def _niivue() -> str:
    return base64.b64encode((ASSETS / "niivue.umd.js.gz").read_bytes()).decode()


def _panels(page: Page) -> list[dict[str, str]]:
    """One a volume, and one for each error that is asked for."""
    panels = []
    for k, shown in enumerate(page.volumes):
        of = {"of": f"v{k}", "name": shown.name}
        has_error = page.truth and k > 0 and shown.kind == "grey"
        panels.append({**of, "kind": shown.kind, **({"minus": "v0"} if has_error else {})})
        if has_error and shown.error:
            panels.append({**of, "name": f"error of {shown.name}", "kind": "error", "minus": "v0"})
    return panels


def _presets(page: Page, data: Tensor) -> list[tuple[str, float, float]]:
    if page.scale.unit == "HU":
        return list(HU_WINDOWS)
    ends = np.percentile(page.scale.shown(data.numpy()), sorted({p for pair in PERCENTILES for p in pair}))
    at = dict(zip(sorted({p for pair in PERCENTILES for p in pair}), map(float, ends), strict=True))
    named = ((f"{low:g} to {high:g} %", at[low], at[high]) for low, high in PERCENTILES)
    return [(name, low, high) for name, low, high in named if low < high]


def _table(lines: Table, sortable: bool) -> str:
    """Columns that are empty throughout are left out."""
    names = list(dict.fromkeys(name for line in lines for name, value in line.items() if value not in (None, "")))
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr>{''.join(_cell(line.get(name), name in VARIES or line.get(names[0]) in VARIES) for name in names)}</tr>"
        for line in lines
    )
    kind = ' class="sortable"' if sortable else ""
    return f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: str | float | None, varies: bool = False) -> str:
    kind = ' class="varies"' if varies else ""
    if isinstance(value, float | int) and math.isfinite(value):
        return f'<td{kind} data-value="{value!r}">{_number(value)}</td>'
    return f"<td{kind}>{escape('' if value is None else str(value))}</td>"


def _number(value: float) -> str:
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e6):
        return str(int(value))
    return f"{value:.2e}" if abs(value) < 1e-2 else f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"


def _config(config: tuple[str, str] | None) -> str:
    if config is None:
        return ""
    text, name = config
    return (
        f"<details><summary>{escape(name)}</summary><pre id=config>{escape(text)}</pre>"
        f'<button type="button" id="save" data-name="{escape(name)}">save {escape(name)}</button></details>'
    )


def _provenance(data: dict[str, Any]) -> str:
    rows = (
        f"<tr><th>{escape(name)}</th>{_cell(_words(value), name in VARIES)}</tr>"
        for name, value in data.items()
        if value not in (None, {}, [])
    )
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>'


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_words(item)}" for name, item in value.items() if item not in (None, {}, []))
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
