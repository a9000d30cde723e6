"""From a measurement to a volume in one call, with the options that are given or those that the measurement chooses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_mbir.checkpointing import UNKEPT, Checkpoint
from lightning_mbir.data.units import Modality
from lightning_mbir.host_slabs import HostSlabs
from lightning_mbir.kinds import check_kinds
from lightning_mbir.methods.candidates import GENERIC, Budget, Candidate, Choice, auto_candidates, candidates_of
from lightning_mbir.methods.catalog import check_method
from lightning_mbir.methods.method import Method
from lightning_mbir.methods.numbers import as_measured, check_given, tell_uncentred
from lightning_mbir.methods.priors import Prior, as_prior
from lightning_mbir.methods.run import Reconstruction, modality_of, run_method
from lightning_mbir.methods.settings import AUTO
from lightning_mbir.methods.tasks import Task, options_of, tuned_for
from lightning_mbir.methods.tuning import tune as choose
from lightning_mbir.physics import LinearOperator
from lightning_mbir.samplers import Callback


def reconstruct(
    y: Tensor,
    operator: LinearOperator,
    prior: Prior | str | Path | None = None,
    method: str | Method | Callable[..., Tensor] = "dds",
    *,
    task: str | Task | None = None,
    modality: Modality | None = None,
    steps: int | None = None,
    tune: bool | Budget = False,
    seed: int = 0,
    volume: int | str = 0,
    sample: int = 0,
    weights: Tensor | None = None,
    noise_std: float = 0.0,
    spacing: tuple[float, float, float] | None = None,
    calibrated: bool = True,
    second_prior: Prior | str | Path | None = None,
    network: str | Path | None = None,
    callback: Callback | None = None,
    checkpoint: Checkpoint = UNKEPT,
    scale: float | None = None,
    host_slabs: HostSlabs | None = None,
    **options: Any,
) -> Reconstruction:
    """Reconstruct a volume from a measurement, with the options that are given or those that the measurement chooses.

    Args:
        y: measurement in physical unit: ``(Z, *range_shape)`` of an operator on slices, ``range_shape`` of one on
            volumes (``separable`` false).
        operator: ``A``, in physical unit; it may have any norm.
        prior: a denoiser ``(x, sigma) -> x0`` with its ``unit``, or what ``load_prior`` takes; by default the
            bundled one of the modality. Methods without a prior do not look at it.
        method: a name in ``METHODS``, a class path (``package.module.name``), or a function of a ``Problem``; or
            ``auto``: what predicts best what is held out of the measurement.
        task: name of what it is like (``sv_ct``, ``la_ct``, ``cs_mri``), or one of ``TASKS``: its tuned options then
            come before the method's own, as on the command line: with ``noise_std`` or ``weights`` those for noise, and
            of views those for so many.
        modality: ``"ct"`` or ``"mri"``; by default ``"mri"`` where the measurement is complex, else ``"ct"``.
        steps: noise levels or iterations.
        tune: whether options of the method are searched, by how well they predict what is held out of the measurement;
            a ``Budget`` says how much that may cost, and ``auto`` has one anyway. What is given is not searched.
        seed, volume, sample: key of the noise; the same key gives the same volume.
        weights: inverse variances of ``y``, ``(Z, *range_shape)`` or ``range_shape``, which the data term is weighted
            by; ``residual`` stays unweighted.
        noise_std: standard deviation of the noise of ``y``, of a complex one in each part, with weights where they are
            what they are on average over the energy of ``y``; 0 where it is not known.
        spacing: size ``(z, y, x)`` of a voxel in mm, which priors and networks of neighbouring slices need.
        calibrated: CT: whether attenuation is in 1/mm, so that the prior's unit is known; otherwise it is estimated.
        second_prior: a prior of coronal slices, in the unit of ``prior``; of methods that need one.
        network: file of a trained network; of methods that need one.
        callback: called after each level or iteration with a ``SamplerState``.
        checkpoint: keeps the state between them, and goes on from one that is there.
        scale: what ``measured_scale`` gave for a measurement that this one is a part of; else that of ``y``.
        host_slabs: where the work is done, where measurement, operator and result are in host memory and volumes are
            to stay there; priors have to be on that device. By default the work is done where ``y`` is.
        **options: of the method; their defaults are in its signature, and in its help. None with ``auto``.

    Returns:
        the reconstruction; where something was chosen, with ``tuning``: what was tried, what was chosen, and why.

    Raises:
        InputError: unknown method, option or task, a task of the other modality, a measurement, weights, a
            ``noise_std`` or ``spacing`` that cannot be, something that the method needs and that is missing, options
            with which it diverges; of a choice, too little measured to hold any of it out.
    """
    check_given(y, operator, weights)
    check_kinds(reconstruct, locals(), but=("method", "steps"))
    tell_uncentred(y, operator)
    modality = modality or modality_of(operator)
    arguments: dict[str, Any] = {
        "seed": seed,
        "volume": volume,
        "sample": sample,
        "weights": weights,
        "noise_std": noise_std,
        "spacing": spacing,
        "calibrated": calibrated,
        "second_prior": second_prior,
        "network": network,
        "scale": scale,
        "host_slabs": host_slabs,
    }
    kept: dict[str, Any] = {"modality": modality, "callback": callback, "checkpoint": checkpoint}
    tuned = tuned_for(task, operator, modality, noisy=noise_std > 0 or weights is not None)
    given = options if steps is None else {**options, "steps": steps}
    if tune is False and method != AUTO:
        return run_method(y, operator, prior, method, **kept, **arguments, **{**options_of(method, tuned), **given})
    y = as_measured(y, operator, volume)
    generic = not operator.domain_complex and prior != GENERIC
    if method == AUTO:
        candidates = auto_candidates(modality, options, tuned, generic)
    else:
        chosen = check_method(method, modality, options, steps)
        candidates = candidates_of(chosen.name, {**options_of(method, tuned), **given}, tuple(given), tuned)
    device = y.device if host_slabs is None else host_slabs.device
    priors: dict[str | None, Prior | str | Path | None] = {None: prior}
    budget, rival = tune if isinstance(tune, Budget) else Budget(), GENERIC if generic else None
    choice = Choice(candidates, budget, insists=tune is not False, rival=rival)
    for name in (None, *choice.priors) if any(candidate.chosen.needs_prior for candidate in candidates) else ():
        priors[name] = as_prior(priors.get(name, name), modality, operator.domain_complex, device)
    tuning = choose(y, operator, choice, priors.__getitem__, modality=modality, **arguments)
    best: Candidate = tuning.candidate
    result = run_method(
        y,
        operator,
        priors[best.prior] if best.chosen.needs_prior else None,
        best.method,
        **kept,
        **{**arguments, **best.settings},
    )
    return replace(result, tuning=tuning)
