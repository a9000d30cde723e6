"""From a measurement to a volume in one call."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_mbir.data.units import CT_SCALE
from lightning_mbir.errors import InputError
from lightning_mbir.physics import LinearOperator
from lightning_mbir.prior import SliceDenoiser, Unit, load_prior
from lightning_mbir.reconstruction.methods import METHODS, Problem, check_method
from lightning_mbir.reconstruction.units import mri_scale
from lightning_mbir.samplers import Callback, KeyedNoise, SamplerState


@dataclass(frozen=True)
class Reconstruction:
    """A reconstructed volume and what it took.

    Attributes:
        volume: ``(Z, Y, X)`` in physical unit (CT: 1/mm; MRI: that of the measurement).
        method: name of the method.
        nfe: network evaluations, each of the whole volume.
        seconds: wall time.
        residual: ``||A x - y|| / ||y||``.
    """

    volume: Tensor
    method: str
    nfe: int
    seconds: float
    residual: float


@torch.no_grad()
def reconstruct(
    y: Tensor,
    operator: LinearOperator,
    prior: SliceDenoiser | str | Path | None = None,
    method: str = "dds",
    *,
    seed: int = 0,
    volume: int | str = 0,
    sample: int = 0,
    steps: int | None = None,
    callback: Callback | None = None,
    **options: Any,
) -> Reconstruction:
    """Reconstruct a volume.

    Args:
        y: measurement ``(Z, *range_shape)`` in physical unit.
        operator: ``A``, in physical unit; it may have any norm.
        prior: a denoiser, or what ``load_prior`` takes; by default the bundled one of the modality.
        method: a name in ``METHODS``.
        seed, volume, sample: key of the noise; the same key gives the same volume.
        steps: noise levels or iterations.
        callback: called after each of them.
        **options: of the method; its defaults are in ``METHODS``.

    Raises:
        InputError: unknown method or option, a measurement of another shape or not finite, a prior that is missing
            or was trained on something else.
    """
    modality = "mri" if operator.range_complex else "ct"
    check_method(method, modality, options, steps)
    operator.check_range(y)
    if y.ndim != len(operator.range_shape) + 1:
        raise InputError(f"the measurement is {tuple(y.shape)}; give (Z, {', '.join(map(str, operator.range_shape))})")
    if not bool(torch.isfinite(torch.view_as_real(y) if y.is_complex() else y).all()):
        raise InputError("the measurement has NaN or infinite values; correct them first")
    chosen = METHODS[method]
    if chosen.needs_prior and not isinstance(prior, SliceDenoiser):
        prior = load_prior(modality if prior is None else prior).to(y.device)
    if chosen.needs_prior and operator.domain_complex:
        raise InputError(f"{method} needs real volumes, since the prior is of magnitudes; wrap the operator in RealDomain")

    started = time.perf_counter()
    unit = prior.unit if isinstance(prior, SliceDenoiser) else Unit(CT_SCALE if modality == "ct" else 1.0)
    if modality == "mri":
        unit = Unit(unit.scale * mri_scale(y, operator), unit.offset)
    if unit.offset:
        constant = torch.full((1, *operator.domain_shape), unit.offset, dtype=operator.dtype, device=y.device)
        y_unit = (y - operator(constant)) / unit.scale
    else:
        y_unit = y / unit.scale
    norm = operator.norm()
    nfe = 0

    def report(state: SamplerState) -> None:
        nonlocal nfe
        nfe = state.nfe
        if callback is not None:
            callback(state)

    denoise = prior if isinstance(prior, SliceDenoiser) and chosen.needs_prior else None
    problem = Problem(y_unit / norm, operator / norm, operator, denoise, KeyedNoise(seed, volume, sample), report)
    settings = {**chosen.options, **options}
    if chosen.steps:
        settings["steps"] = chosen.steps if steps is None else steps
    x = chosen.run(problem, **settings) * unit.scale + unit.offset
    seconds = time.perf_counter() - started
    size = float(torch.linalg.vector_norm(y))
    residual = float(torch.linalg.vector_norm(operator(x) - y)) / size if size > 0 else 0.0
    return Reconstruction(x, method, nfe, seconds, residual)
