"""The tasks and their flags as plain data, so that a wrong one is told before anything is imported."""

from __future__ import annotations

import math
from typing import Any, Literal

from lightning_mbir.errors import InputError
from lightning_mbir.flags import MASKS

SETTINGS: dict[str, tuple[Literal["ct", "mri"], dict[str, Any]]] = {
    "sv_ct": ("ct", {"views": 8, "angle_range": 180.0, "photons": None}),
    "la_ct": ("ct", {"views": 90, "angle_range": 90.0, "photons": None}),
    "cs_mri": ("mri", {"acc": 8.0, "mask": "gaussian1d", "phase": False, "coils": None, "snr": None}),
}
"""Each task's modality, and its flags with their defaults: none for noise that is not simulated."""


def check_task(name: str) -> None:
    """Raise ``InputError`` where there is no such task."""
    if name not in SETTINGS:
        raise InputError(f"--task {name}: unknown; there are {', '.join(SETTINGS)}")


def checked_settings(task: str, **flags: Any) -> dict[str, Any]:
    """The flags that were given, checked, over the defaults; without those that stay none.

    Raises:
        InputError: a flag of another task, or a value that cannot be.
    """
    defaults = SETTINGS[task][1]
    given = {name: value for name, value in flags.items() if value is not None}
    for name, value in given.items():
        if name not in defaults:
            own = ", ".join(f"--{flag}" for flag in defaults)
            raise InputError(f"--{name} {value}: not for task {task}, which takes {own}")
    chosen = {name: value for name, value in {**defaults, **given}.items() if value is not None}
    if "views" in chosen and chosen["views"] < 1:
        raise InputError(f"--views {chosen['views']}: give at least 1 view")
    if "angle_range" in chosen and not 0 < chosen["angle_range"] <= 360:
        given_range = f"--angle_range {chosen['angle_range']:g}"
        raise InputError(f"{given_range}: give degrees above 0, up to 180 (360 of what was measured)")
    if "acc" in chosen and not (math.isfinite(chosen["acc"]) and chosen["acc"] >= 1):
        raise InputError(f"--acc {chosen['acc']:g}: an acceleration is at least 1 (8 means one sample in eight)")
    if "mask" in chosen and chosen["mask"] not in MASKS:
        raise InputError(f"--mask {chosen['mask']}: unknown; there are {', '.join(MASKS)}")
    if "coils" in chosen and chosen["coils"] < 1:
        raise InputError(f"--coils {chosen['coils']}: give at least 1 receive coil")
    for name in ("photons", "snr"):
        value = chosen.get(name)
        if value is not None and not (math.isfinite(value) and (name == "snr" or value > 0)):
            right = "decibels, such as 30" if name == "snr" else "a positive number a ray, such as 1e5"
            raise InputError(f"--{name} {value:g}: give {right}")
    return chosen
