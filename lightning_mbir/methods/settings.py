"""The tasks and their flags as plain data, so that a wrong one is told before anything is imported."""

from __future__ import annotations

from typing import Any, Literal

from lightning_mbir.errors import InputError, whole_number
from lightning_mbir.flags import MASKS, MOST_ACC, MOST_COILS, MOST_VIEWS
from lightning_mbir.methods.limits import LARGEST, plain

SETTINGS: dict[str, tuple[Literal["ct", "mri"], dict[str, Any]]] = {
    "sv_ct": ("ct", {"views": 8, "angle_range": 180.0, "photons": None}),
    "la_ct": ("ct", {"views": 90, "angle_range": 90.0, "photons": None}),
    "cs_mri": ("mri", {"acc": 8.0, "mask": "gaussian1d", "phase": False, "coils": None, "snr": None}),
}
"""Each task's modality, and its flags with their defaults: none for noise that is not simulated."""

WHOLE = ("views", "coils")
"""Flags that are whole numbers."""

AUTO = "auto"
"""In place of a method: the one that predicts best what was held out of the measurement."""


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
    given = {name: plain(value) for name, value in flags.items() if value is not None}
    for name, value in given.items():
        if name not in defaults:
            own = ", ".join(f"--{flag}" for flag in defaults)
            raise InputError(f"--{name} {value}: not for task {task}, which takes {own}")
    for name, value in given.items():
        if name in WHOLE:
            whole_number(f"--{name}", value)
        elif name not in ("mask", "phase") and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise InputError(f"--{name} {value!r}: give a number")
    chosen = {name: value for name, value in {**defaults, **given}.items() if value is not None}
    if "views" in chosen and not 1 <= chosen["views"] <= MOST_VIEWS:
        few = "at least 1 view" if chosen["views"] < 1 else f"at most {MOST_VIEWS} views"
        raise InputError(f"--views {chosen['views']}: give {few}")
    if "angle_range" in chosen and not 0 < chosen["angle_range"] <= 360:
        given_range = f"--angle_range {chosen['angle_range']:g}"
        raise InputError(f"{given_range}: give degrees above 0, up to 180 (360 of what was measured)")
    if "acc" in chosen and not 1 <= chosen["acc"] <= MOST_ACC:
        right = "at least 1 (8 means one sample in eight)" if not chosen["acc"] > 1 else f"at most {MOST_ACC:g}"
        raise InputError(f"--acc {chosen['acc']:g}: an acceleration is {right}")
    if "mask" in chosen and chosen["mask"] not in MASKS:
        raise InputError(f"--mask {chosen['mask']}: unknown; there are {', '.join(MASKS)}")
    if "coils" in chosen and not 1 <= chosen["coils"] <= MOST_COILS:
        few = "at least 1 receive coil" if chosen["coils"] < 1 else f"at most {MOST_COILS} receive coils"
        raise InputError(f"--coils {chosen['coils']}: give {few}")
    for name in ("photons", "snr"):
        value = chosen.get(name)
        right = "decibels, such as 30" if name == "snr" else "a positive number a ray, such as 1e5, up to 1e15"
        if value is not None and not (-300 <= value <= 300 if name == "snr" else 0 < value <= LARGEST):
            raise InputError(f"--{name} {value:g}: give {right}")
    return chosen
