"""From a measurement to a volume in one call, with the options that are given or those that the measurement chooses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_mbir.checkpointing import UNKEPT
from lightning_mbir.data.units import Modality
from lightning_mbir.methods.candidates import GENERIC, Budget, Candidate, Choice, auto_candidates, candidates_of
from lightning_mbir.methods.catalog import check_method
from lightning_mbir.methods.method import Method
from lightning_mbir.methods.numbers import as_measured
from lightning_mbir.methods.priors import Prior, as_prior
from lightning_mbir.methods.run import Reconstruction, modality_of, run_method
from lightning_mbir.methods.settings import AUTO
from lightning_mbir.methods.tuning import tune as choose
from lightning_mbir.physics import LinearOperator


def reconstruct(
    y: Tensor,
    operator: LinearOperator,
    prior: Prior | str | Path | None = None,
    method: str | Method | Callable[..., Tensor] = "dds",
    *,
    modality: Modality | None = None,
    steps: int | None = None,
    tune: bool | Budget = False,
    **arguments: Any,
) -> Reconstruction:
    """Reconstruct a volume, with all of ``run_method`` and a choice by the measurement itself.

    Args:
        y, operator, prior: see ``run_method``.
        method: see there; or ``auto``: what predicts best what is held out of the measurement.
        modality: ``"ct"`` or ``"mri"``; by default ``"mri"`` where the measurement is complex, else ``"ct"``.
        steps: noise levels or iterations.
        tune: whether options of the method are searched, by how well they predict what is held out of the measurement;
            a ``Budget`` says how much that may cost, and ``auto`` has one anyway. What is given is not searched.
        **arguments: further ones of ``run_method``, options of the method among them; with ``auto``, no options.

    Returns:
        the reconstruction; where something was chosen, with ``tuning``: what was tried, what was chosen, and why.

    Raises:
        InputError: see ``run_method`` and ``tune``.
    """
    modality = modality or modality_of(operator)
    if tune is False and method != AUTO:
        return run_method(y, operator, prior, method, modality=modality, steps=steps, **arguments)
    own = {key: arguments.pop(key) for key in list(arguments) if key not in SHARED}
    y = as_measured(y, operator, arguments.get("volume", 0))

    def defaults(_: str) -> dict[str, Any]:
        return {}

    if method == AUTO:
        candidates = auto_candidates(modality, own, defaults, generic=not operator.domain_complex and prior != GENERIC)
    else:
        chosen = check_method(method, modality, own, steps)
        settings = own if steps is None else {**own, "steps": steps}
        candidates = candidates_of(chosen.name, settings, tuple(settings), defaults)
    priors: dict[str | None, Prior | str | Path | None] = {None: prior}
    for candidate in candidates:
        if candidate.chosen.needs_prior:
            given = priors.get(candidate.prior, candidate.prior)
            priors[candidate.prior] = as_prior(given, modality, operator.domain_complex, y.device)
    choice = Choice(candidates, tune if isinstance(tune, Budget) else Budget(), insists=tune is not False)
    callback, checkpoint = arguments.pop("callback", None), arguments.pop("checkpoint", UNKEPT)
    tuning = choose(y, operator, choice, priors.__getitem__, modality=modality, **arguments)
    best: Candidate = tuning.candidate
    result = run_method(
        y,
        operator,
        priors[best.prior] if best.chosen.needs_prior else None,
        best.method,
        modality=modality,
        callback=callback,
        checkpoint=checkpoint,
        **{**arguments, **best.settings},
    )
    return replace(result, tuning=tuning)


SHARED = frozenset(run_method.__kwdefaults__ or {})
"""Arguments that are of every method; all others are options."""
