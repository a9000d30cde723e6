"""The tables of a comparison: ``results.json``, ``results.csv`` and ``results.md``."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning_mbir.files import write_whole
from lightning_mbir.report.metrics import PLANES

Row = dict[str, Any]
"""What a method was given, what came out, and where: plain data."""

UNITS = {"angle_range": " degrees", "snr": " dB"}
"""Of settings of a task, where they have one."""

SPREAD = (("error / spread", "ratio", "{:.2f}"), ("within 90 %", "within_90", "{:.3f}"), ("CRPS", "crps", "{:.5f}"))
"""Of posterior samples: title, key and format of what tells whether their spread is an uncertainty."""


SCORED = "PSNR in dB. Planes: means over the slices that are not air. Volume: every voxel, SSIM in windows of 11^3. "
SPREAD_TOLD = (
    " Samples: error / spread is 1 and within 90 % is 0.9 where their spread is an uncertainty; CRPS as a share of the "
    "data range. All of the spread as `predict` writes it, times the factor that is known of a task."
)


def write_tables(folder: Path, rows: list[Row]) -> str:
    """``results.json``, ``results.csv`` and ``results.md`` of these rows; returns the Markdown of the means."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "results.json", to_json(rows))
    write_whole(folder / "results.csv", _csv(rows).encode())
    means = mean_table(rows)
    write_whole(folder / "results.md", markdown(rows, means).encode())
    return means


def markdown(rows: list[Row], means: str) -> str:
    """The tables with what they are of."""
    first = rows[0]
    priors = {f"`{row['prior']['name']}` (SHA-256 `{row['prior']['sha256']}`)" for row in rows if row["prior"]}
    devices, revisions = ({row[name] for row in rows if row[name]} for name in ("device", "revision"))
    facts = [
        f"# {first['task']}: {settings_text(first['settings'])}",
        f"Prior: {', '.join(sorted(priors)) or 'none'}. Seed {first['seed']}. Device: {', '.join(sorted(devices))}. "
        f"lightning_mbir {first['version']}" + "".join(f", revision {name}" for name in sorted(revisions)) + ".",
        (SCORED if any("volume_psnr" in row for row in rows) else "A measurement has no truth to score against. ")
        + "Memory: beyond what was held at the start."
        + (SPREAD_TOLD if any("calibration" in row for row in rows) else ""),
    ]
    names = list(dict.fromkeys(row["volume"]["name"] for row in rows))
    if len(names) > 1:
        facts += [f"## Mean over {len(names)} volumes", means]
    for name in names:
        own = [row for row in rows if row["volume"]["name"] == name]
        shape = " x ".join(str(n) for n in own[0]["volume"].get("shape", ()))  # none of a measurement
        facts += [
            f"## {name}" + (f" ({shape} voxels)" if shape else ""),
            _table([_cells(row["method"], [row]) for row in own]),
        ]
    facts += ["## Options", "\n".join(_options(row) for row in rows if row["volume"]["name"] == names[0])]
    return "\n\n".join(facts) + "\n"


def settings_text(settings: dict[str, Any]) -> str:
    """Settings of a task for people, such as ``views 8, angle_range 180 degrees``."""
    return ", ".join(
        (f"{name} {value:g}" if isinstance(value, float) else f"{name} {str(value).lower()}") + UNITS.get(name, "")
        for name, value in settings.items()
    )


def measured_text(volume: str, task: str, settings: dict[str, Any]) -> str:
    """A measurement for people, such as ``chest: sv_ct, views 8, angle_range 180 degrees``."""
    told = settings_text({name: value for name, value in settings.items() if name != "measured"})
    measured = "measured" if "measured" in settings else ""
    return f"{volume}: {', '.join(filter(None, (task, measured, told)))}"


def method_text(row: Row) -> str:
    """A method for people, such as ``dds, 50 steps, 8 samples, prior ct``."""
    samples = row.get("samples")
    count = len(samples) if isinstance(samples, list) else samples or 1
    return ", ".join(
        [
            row["method"],
            *([f"{row['steps']} steps"] if row.get("steps") else []),
            *([f"{count} samples"] if count > 1 else []),
            *([f"prior {Path(row['prior']['name']).name}"] if row.get("prior") else []),
        ]
    )


def mean_table(rows: list[Row]) -> str:
    """A line a method: means over the volumes that it did not fail on."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    return _table([_cells(method, [row for row in rows if row["method"] == method]) for method in methods])


def _cells(method: str, rows: list[Row]) -> dict[str, str]:
    good = [row for row in rows if "error" not in row]
    if not good:
        return {"method": method, "volume": f"failed: {rows[0]['error']}".replace("|", "/")}
    some = f" ({len(good)} of {len(rows)} volumes)" if len(good) < len(rows) else ""

    def mean(pattern: str, *path: str) -> str:
        values = [value for row in good if (value := _at(row, path)) is not None]
        return pattern.format(statistics.fmean(values)) if values else ""

    cells = {"method": method + some}
    for place in ("volume", *PLANES):
        psnr = ("volume_psnr",) if place == "volume" else (place, "psnr")
        ssim = ("volume_ssim",) if place == "volume" else (place, "ssim")
        cells[place] = " / ".join(filter(None, (mean("{:.2f}", *psnr), mean("{:.3f}", *ssim))))
    cells["NRMSE"] = mean("{:.4f}", "nrmse")
    cells["LPIPS"] = mean("{:.4f}", "lpips")
    for title, name, pattern in SPREAD:
        cells[title] = mean(pattern, "calibration", name)
    cells["spread times"] = mean("{:.3g}", "spread", "factor")
    cells["residual"] = mean("{:.2e}", "residual")
    cells["NFE"] = mean("{:.0f}", "nfe")
    cells["seconds"] = mean("{:.1f}", "seconds")
    cells["peak MiB"] = mean("{:.0f}", "peak_mib")
    return cells


def _table(lines: list[dict[str, str]]) -> str:
    """Markdown; columns that are empty throughout are left out."""
    names = dict.fromkeys(name for line in lines for name in line)
    columns = [name for name in names if any(line.get(name) for line in lines)]
    titles = [f"{name} PSNR / SSIM" if name in ("volume", *PLANES) else name for name in columns]
    body = [[line.get(name, "") for name in columns] for line in lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [titles, ["---"] * len(columns), *body])


def _options(row: Row) -> str:
    parts = [f"{name} {value}" for name, value in row["options"].items()]
    parts = [f"{name} {row[name]}" for name in ("steps", "samples") if (row[name] or 1) > 1] + parts
    return f"- {row['method']}: {', '.join(parts) or 'none'}"


def _csv(rows: list[Row]) -> str:
    """A line a row; nested figures as ``axial.psnr``, what belongs to a method alone as JSON."""
    flat = [dict(_flat(row)) for row in rows]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return buffer.getvalue()


def _flat(row: Row, prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, dict) and name != "options":
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", json.dumps(value) if isinstance(value, dict | list) else value


def _at(row: Row, path: Iterable[str]) -> float | None:
    value: Any = row
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def to_json(value: Any) -> bytes:
    """Plain data as a file of JSON, which knows neither NaN nor infinities: they become null."""
    return (json.dumps(finite(value), indent=2, allow_nan=False) + "\n").encode()


def finite(value: Any) -> Any:
    """Plain data with None for what is no finite number, and lists for tuples, as JSON gives them back."""
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
