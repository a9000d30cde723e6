"""What ``report.html`` shows of a prediction, of a comparison, and of results in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.errors import InputError
from lightning_mbir.kinds import check_kinds
from lightning_mbir.methods.run import Reconstruction
from lightning_mbir.methods.samples import PosteriorSamples
from lightning_mbir.report.metrics import PLANES
from lightning_mbir.report.page import Page, Shown, Table, write_page
from lightning_mbir.report.scale import Scale, picture_window
from lightning_mbir.report.tables import Row, measured_text, method_text
from lightning_mbir.version import __version__

FIGURES = {"nrmse": "NRMSE", "lpips": "LPIPS", "residual": "residual", "misfit": "residual over noise", "nfe": "NFE"}
FIGURES |= {"seconds": "seconds", "peak_mib": "peak MiB"}
"""What figures are called, beside those of planes."""
MEANING = "PSNR and SSIM of planes are means over the slices that are not air; residual is |A x - y| / |y|."
ORIGIN = (
    "version", "revision", "device", "seed", "settings", "image_size", "input", "method", "method_sha256", "options",
    "steps", "prior", "second_prior", "network", "precision", "noise_std", "acceleration", "key",
)  # fmt: skip
"""What of the metrics says where a result comes from."""


def prediction_page(
    metrics: dict[str, Any],
    name: str,
    volume: Volume,
    direct: tuple[str, Tensor] | None,
    truth: Tensor | None,
    std: Tensor | None,
    scale: Scale,
    config: str | None,
) -> Page:
    """The page of one result.

    Args:
        metrics: of ``metrics.json``.
        name: of the method.
        volume: the result.
        direct: name and volume of the direct inversion, where that is not the method itself.
        truth: the true volume.
        std: standard deviation of samples.
        scale: unit and window.
        config: what ``predict_config.yaml`` holds.
    """
    volumes = [] if truth is None else [_shown("ground truth", truth)]
    volumes += [] if direct is None else [_shown(*direct)]
    volumes.append(_shown(name, volume.data, error=True))
    if std is not None:
        volumes.append(Shown("deviation of samples", lambda: std, "spread"))
    warning = metrics.get("warning")
    chosen = metrics.get("chosen_because") or []
    saved = None if config is None else (config, "predict_config.yaml")
    return Page(
        title=measured_text(metrics["volume"], metrics["task"], metrics["settings"]),
        lead=method_text(metrics),
        volumes=volumes,
        truth=truth is not None,
        affine=volume.affine,
        scale=scale,
        modality=volume.modality,
        sided=volume.sided,
        numbers=_figures(metrics),
        provenance={name: metrics[name] for name in ORIGIN if name in metrics},
        command=_command("predict", saved),
        config=saved,
        notes=[*chosen, *([MEANING] if truth is not None else []), *volume.notes],
        warnings=[warning] if warning else [],
    )


def comparison_page(
    heading: str,
    rows: list[Row],
    volumes: dict[str, Callable[[], Tensor]],
    scan: Volume,
    scale: Scale,
    config: str | None,
) -> Page:
    """The page of several methods on one volume.

    Args:
        heading: what was measured.
        rows: of the table.
        volumes: what gives those that are there, by method.
        scan: the true volume.
        scale: unit and window.
        config: of the run.
    """
    lacking = [row["method"] for row in rows if row["method"] not in volumes and "error" not in row]
    told = f"Not shown, since scored before without their volumes: {', '.join(lacking)}." if lacking else None
    saved = None if config is None else (config, "test_config.yaml")
    first = rows[0]
    shared = {name: first[name] for name in ("version", "revision", "device", "seed", "settings", "volume")}
    each = {row["method"]: {name: row.get(name) for name in ("options", "steps", "prior", "key")} for row in rows}
    return Page(
        title=heading,
        lead="; ".join(method_text(row) for row in rows),
        volumes=[_shown("ground truth", scan.data), *(Shown(name, give) for name, give in volumes.items())],
        truth=True,
        affine=scan.affine,
        scale=scale,
        modality=scan.modality,
        sided=scan.sided,
        numbers=[{"method": row["method"], **_columns(row)} for row in rows],
        provenance={**shared, **each},
        command=_command("test", saved),
        config=saved,
        notes=[*filter(None, [told]), MEANING, "A click on the head of a column sorts by it.", *scan.notes],
        sortable=True,
    )


def write_report(
    path: str | Path,
    results: Mapping[str, Reconstruction | Tensor],
    volume: Volume,
    truth: bool = True,
    scores: Mapping[str, dict[str, Any]] | None = None,
) -> None:
    """Write a page to look at results in a browser: one file, which needs no network.

    Three linked planes of the truth and of each result with its error, window and level, a profile, the numbers and
    where they come from (docs/report.md).

    Args:
        path: the file, such as ``report.html``; what is there is replaced.
        results: by name, of ``reconstruct`` or ``reconstruct_samples``, or volumes ``(Z, Y, X)`` in physical unit.
        volume: where the voxels lie, of which modality they are, and what they are called.
        truth: whether ``volume.data`` is the true volume.
        scores: of ``image_metrics``, by the same names.

    Raises:
        InputError: no result, or one of another shape than the volume.
        WriteError: what the disk refused to take.
    """
    check_kinds(write_report, locals())
    images = {name: result.image if isinstance(result, Reconstruction) else result for name, result in results.items()}
    images = {name: image.abs() if image.is_complex() else image for name, image in images.items()}
    if not images:
        raise InputError("write_report: no result to show; give at least one")
    for name, image in images.items():
        if image.shape != volume.data.shape:
            raise InputError(
                f"write_report: {name} is {tuple(image.shape)}, the volume {tuple(volume.data.shape)}; give results of "
                "its shape"
            )
    window = picture_window(volume.data if truth else next(iter(images.values())), volume.modality, volume.calibrated)
    shown = [_shown("ground truth", volume.data)] if truth else []
    lines: Table = []
    for name, result in results.items():
        shown.append(_shown(name, images[name], error=len(results) == 1))
        facts: Row = dict((scores or {}).get(name, {}))
        if isinstance(result, Reconstruction):
            facts |= {"residual": result.residual, "nfe": result.nfe, "seconds": result.seconds}
        lines.append({"result": name, **_columns(facts)})
        if isinstance(result, PosteriorSamples):
            shown.append(Shown(f"deviation of {name}", lambda std=result.std: std, "spread"))  # type: ignore[misc]
    page = Page(
        title=volume.name,
        lead=", ".join(results),
        volumes=shown,
        truth=truth,
        affine=volume.affine,
        scale=Scale.of(volume.modality, window, volume.calibrated),
        modality=volume.modality,
        sided=volume.sided,
        numbers=lines,
        provenance={"version": __version__, "volume": volume.name},
        command="lightning_mbir.reconstruction.write_report wrote this page from results in Python, which made them.",
        notes=[MEANING, *volume.notes],
        sortable=True,
    )
    write_page(Path(path), page)


def _shown(name: str, data: Tensor, error: bool = False) -> Shown:
    return Shown(name, lambda: data, error=error)


def _command(subcommand: str, saved: tuple[str, str] | None) -> str:
    """What runs it again; where no command line has run it, what would have to be given is told below."""
    if saved is None:
        return "Run from Python; the settings are those below."
    return f"python -m lightning_mbir {subcommand} --config {saved[1]} --overwrite true"


def _figures(metrics: dict[str, Any]) -> Table:
    """A line a figure of one result."""
    lines: Table = []
    if "volume_psnr" in metrics:
        lines.append({"of": "volume", "PSNR (dB)": metrics["volume_psnr"], "SSIM": metrics.get("volume_ssim")})
    lines += [{"of": plane, **_scores(metrics[plane])} for plane in PLANES if plane in metrics]
    lines += [{"of": told, "value": metrics[name]} for name, told in FIGURES.items() if metrics.get(name) is not None]
    calibration = metrics.get("calibration") or {}
    lines += [{"of": f"calibration: {name.replace('_', ' ')}", "value": value} for name, value in calibration.items()]
    return lines


def _scores(score: dict[str, Any]) -> dict[str, str | float | None]:
    return {"PSNR (dB)": score.get("psnr"), "SSIM": score.get("ssim")}


def _columns(row: Row) -> dict[str, str | float | None]:
    """The figures of one result in one line."""
    cells: dict[str, str | float | None] = {"failed": row.get("error")}
    cells |= {"volume PSNR (dB)": row.get("volume_psnr"), "volume SSIM": row.get("volume_ssim")}
    for plane in PLANES:
        cells |= {f"{plane} {name}": value for name, value in _scores(row.get(plane, {})).items()}
    return cells | {told: row.get(name) for name, told in FIGURES.items()}
