"""What a method is given, checked before any work: its name, its options, and what else it needs."""

from __future__ import annotations

import math
from typing import Any

from lightning_mbir.errors import InputError
from lightning_mbir.methods.methods import METHODS, SCHEDULES, START
from lightning_mbir.physics.difference import AXES
from lightning_mbir.solvers.fbp import FILTERS
from lightning_mbir.solvers.l1_wavelet import Wavelets

NEEDS = {
    "second_prior": "a prior of coronal slices: give --second_prior, such as one of `fit --data.axis coronal`",
    "network": "a network that was trained for this measurement: give --network FILE",
    "gradients": "a prior with gradients (a method `vjp`), which this one has not",
    "coil_maps": "k-space of several coils, which this measurement is not",
}
"""What a method may need beside a measurement and a prior, and what a user is told who lacks it."""

CHOICES: dict[str, tuple[str, ...]] = {
    "schedule": tuple(SCHEDULES),
    "start": tuple(START),
    "consistency": ("noisy", "tweedie"),
    "filter": FILTERS,
}
"""Options that are one of several names."""

LEAST = {"cg_iterations": 1, "admm_iterations": 1, "levels": 1, "slice_batch": 1, "period": 2}
"""The least that numbers can be, where it is not 0."""

SHARES = ("dds eta", "dds correlation", "dds noise_share", "tpdm eta", "diffpir zeta", "score_slices relaxation")
"""Options from 0 to 1."""


def check_method(name: str, modality: str, options: dict[str, Any], steps: int | None) -> None:
    """Raise where there is no such method, it does not fit the modality, or an option is not its own."""
    fitting = [key for key, method in METHODS.items() if modality in method.modalities]
    if name not in METHODS:
        raise InputError(f"--method {name}: unknown; there are {', '.join(fitting)}")
    method = METHODS[name]
    if modality not in method.modalities:
        raise InputError(f"--method {name}: not for {modality}; there are {', '.join(fitting)}")
    unknown = sorted(options.keys() - method.options.keys())
    if unknown:
        known = ", ".join(method.options) or "none"
        raise InputError(f"{name} has no option {', '.join(unknown)}; it has {known}")
    for key, value in options.items():
        _check_option(name, key, value, method.options[key])
    levels = {**method.options, **options}
    if "sigma_max" in levels and not levels["sigma_max"] > levels["sigma_min"] > 0:
        high, low = levels["sigma_max"], levels["sigma_min"]
        raise InputError(f"{name}: noise levels from {high:g} to {low:g}; give sigma_max > sigma_min > 0")
    if steps is not None and steps < 1:
        raise InputError(f"--steps {steps}: give at least 1")
    if steps is not None and method.steps == 0:
        raise InputError(f"--steps {steps}: {name} has no steps; leave it out")


def check_needs(name: str, **present: bool) -> None:
    """Raise where something that a method needs is known to be missing.

    Args:
        name: of the method.
        **present: keys of ``NEEDS`` and whether they are there; those left out are not known yet.
    """
    for need in METHODS[name].needs:
        if not present.get(need, True):
            raise InputError(f"--method {name} needs {NEEDS[need]}")


def _check_option(method: str, key: str, value: Any, default: Any) -> None:
    """Raise where a value is of another kind, or none that can work."""
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise InputError(f"{method}: {key} is {value!r}; give true or false")
        return
    if key == "axes":
        if not isinstance(value, str | list | tuple) or not value or any(axis not in list(AXES) for axis in value):
            raise InputError(f"{method}: axes are {value!r}; give some of z, y, x, such as {default}")
        return
    if isinstance(default, str):
        if not isinstance(value, str) or value not in CHOICES.get(key, (value,)):
            known = " or ".join(CHOICES.get(key, ("a name",)))
            raise InputError(f"{method}: {key} is {value!r}; give {known}")
        if key == "wavelet":
            Wavelets(value, 1, (-1,))
        return
    kinds = (int,) if isinstance(default, int) else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise InputError(f"{method}: {key} is {value!r}; give {kind}, such as {default}")
    least = LEAST.get(key, 0)
    if value < least:
        raise InputError(f"{method}: {key} is {value}; give at least {least}")
    if key == "levels" and value > 30:
        raise InputError(f"{method}: levels is {value}; give at most 30")
    if key == "rho" and value == 0:
        raise InputError(f"{method}: rho is 0; give a positive number")
    if f"{method} {key}" in SHARES and value > 1:
        raise InputError(f"{method}: {key} is {value}, a share; give 0 to 1")
