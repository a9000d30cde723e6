"""What makes the spread of samples an uncertainty: a factor for each task that was found on held-out patients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lightning_mbir.methods.catalog import METHODS
from lightning_mbir.methods.tasks import Task
from lightning_mbir.packaged import packaged

NOISE = ("photons", "snr")
"""Settings of a task that make noise."""


@dataclass(frozen=True)
class Correction:
    """What the standard deviation of samples is multiplied by, and why.

    Attributes:
        factor: 1 where none is known.
        line: what a user is told of it.
        found: what it was found with, plain data; none where none is known.
    """

    factor: float
    line: str
    found: dict[str, Any] | None = None


def spread_file() -> Path:
    """Where ``benchmarks/calibration.py`` keeps the factors that it found, by task and ``clean`` or ``noisy``."""
    return packaged("configs") / "tuned" / "spread.yaml"


def correction(
    task: Task,
    settings: dict[str, Any],
    plan: dict[str, Any],
    prior: dict[str, Any] | None,
    *,
    measured: bool = False,
    image_size: int | None = None,
) -> Correction:
    """The factor of a task, where all that it depends on is what it was found with.

    The strength of the noise, the size of the slices and the number of samples may differ, which the line says.

    Args:
        task: of the measurement.
        settings: of the task.
        plan: ``Plan.identity``: method, options, steps and samples.
        prior: its ``name`` and ``sha256``.
        measured: whether the measurement was really made.
        image_size: pixels along a side of the slices.
    """
    found = _factors().get(task.name, {}).get("clean" if set(NOISE).isdisjoint(settings) else "noisy")
    why = None
    if measured:
        why = "a factor is known of simulated measurements alone"
    elif task.operator is not None:
        why = f"none is known for {task.operator.path}"
    elif found is None:
        why = "none has been found for this task"
    elif (other := _differs(found, settings, plan, prior)) is not None:
        why = f"a factor is known {other} alone"
    if why is not None or found is None:
        return Correction(1.0, f"spread as the samples have it, which is no error bar: {why}")
    known = {**_noise(found["settings"]), "samples": found["samples"], "image_size": found["image_size"]}
    given = {**_noise(settings), "samples": plan["samples"], "image_size": image_size}
    beside = ", ".join(f"{name} {_plain(value)}" for name, value in known.items() if given[name] not in (value, None))
    line = (
        f"spread of the samples times {found['factor']:g}, found on {found['patient']}, whom the prior had not seen"
        + (f" (with {beside})" if beside else "")
        + "; divide by that for their own"
    )
    return Correction(found["factor"], line, found)


def _differs(
    found: dict[str, Any], settings: dict[str, Any], plan: dict[str, Any], prior: dict[str, Any] | None
) -> str | None:
    """With what else a factor was found, where that is not what is run."""
    wanted = {key: value for key, value in found["settings"].items() if key not in NOISE}
    for key in sorted({*wanted, *settings} - set(NOISE)):
        if wanted.get(key) != settings.get(key):
            return f"for {key} {_plain(wanted.get(key))}"
    if found["method"] != plan["method"]:
        return f"for {found['method']}"
    if found["steps"] != plan["steps"]:  # before the options, which may be others for fewer
        return f"with {found['steps']} steps"
    # An option that the method has got since leaves by its default all as it was.
    options = {**METHODS[found["method"]].options, **found["options"]}
    for key in sorted({*options, *plan["options"]}):
        if options.get(key) != plan["options"].get(key):
            return f"with {key} {_plain(options.get(key))}"
    if prior is None or found["prior"] != {key: prior.get(key) for key in ("name", "sha256")}:
        return f"for the prior {found['prior']['name']} of {found['prior']['sha256'][:12]}"
    return None


def _noise(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: settings[key] for key in NOISE if key in settings}


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


@cache
def _factors() -> dict[str, dict[str, dict[str, Any]]]:
    path = spread_file()
    return yaml.safe_load(path.read_text()) or {} if path.is_file() else {}
