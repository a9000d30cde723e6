"""The methods that ``reconstruct`` knows, by name, with their default options.

Every method works on a problem in the prior's unit with an operator of unit norm, so that one setting of rho
and lambda serves all geometries.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from lightning_mbir.methods.fbp_unet import FBPUNet, direct_inversion
from lightning_mbir.physics import ConeBeam, LinearOperator
from lightning_mbir.samplers import (
    Callback,
    Denoiser,
    KeyedNoise,
    SamplerState,
    dds,
    diffpir,
    diffusion_mbir,
    dps,
    geometric_sigmas,
    karras_sigmas,
    keyed_generator,
    mcg,
    score_slices,
    tpdm,
)
from lightning_mbir.solvers import admm_tv, cgls, fbp, fdk, l1_wavelet, sirt, zero_filled


@dataclass(frozen=True)
class Problem:
    """What a method gets: ``y = A x`` in the prior's unit.

    Attributes:
        y: measurement, divided by the norm of the operator; with weights, times their roots.
        operator: ``A / ||A||``; with weights, ``W^(1/2) A`` instead of ``A``.
        physical: ``A`` itself, for what needs its geometry.
        measured: measurement of ``A`` itself, neither divided nor weighted.
        denoise: the prior, for methods that use one.
        second: a prior of coronal slices, for methods that need ``second_prior``.
        network: a trained network, for methods that need ``network``.
        noise: keyed noise.
        report: takes progress after each noise level or iteration.
        noise_std: of the noise in ``A^H y``: of its real part, or for complex volumes of both together; 0 where it is
            not known.
    """

    y: Tensor
    operator: LinearOperator
    physical: LinearOperator
    measured: Tensor
    denoise: Denoiser | None
    noise: KeyedNoise
    report: Callback
    second: Denoiser | None = None
    network: FBPUNet | None = None
    noise_std: float = 0.0


@dataclass(frozen=True)
class Method:
    """A method with its default options; ``steps`` is its number of levels or iterations, 0 where none.

    ``weighted`` tells whether it fits the measurement, so that statistical weights mean something to it. ``needs``
    names what else it cannot do without, of ``NEEDS`` in ``method_checks``.
    """

    run: Callable[..., Tensor]
    options: dict[str, Any]
    steps: int = 0
    needs_prior: bool = False
    modalities: tuple[str, ...] = ("ct", "mri")
    weighted: bool = True
    needs: tuple[str, ...] = ()

    @property
    def random(self) -> bool:
        """Whether its result is a sample of the posterior, so that several tell a spread."""
        return self.needs_prior


SCHEDULES = {"karras": karras_sigmas, "geometric": geometric_sigmas}


def run_dds(
    p: Problem,
    *,
    steps: int,
    sigma_max: float,
    sigma_min: float,
    schedule: str,
    start: str,
    correlation: float,
    sigma_y: float,
    noise_share: float,
    **options: Any,
) -> Tensor:
    """Decomposed diffusion sampling; ``steps`` network evaluations.

    Where the noise is known and there is a ``sigma_y``, ``noise_share`` of its standard deviation comes on top, in
    quadrature: half was best at 15 and 25 dB and did no harm at 35 (docs/mri.md), since fresh noise at every level
    averages it.
    """
    if sigma_y > 0:
        sigma_y = math.hypot(sigma_y, noise_share * p.noise_std)
    assert p.denoise is not None
    sigmas = SCHEDULES[schedule](steps, sigma_max, sigma_min)
    init = START[start](p)
    noise = replace(p.noise, correlation=correlation)
    return dds(
        p.denoise, p.operator, p.y, sigmas, noise=noise, sigma_y=sigma_y, init=init, callback=p.report, **options
    )


def run_sampler(
    sampler: Callable[..., Tensor],
    schedule: Callable[[int, float, float], Tensor],
    p: Problem,
    *,
    steps: int,
    sigma_max: float,
    sigma_min: float,
    **options: Any,
) -> Tensor:
    """Any other diffusion sampler, on ``steps`` noise levels of a schedule."""
    if p.second is not None:
        options["second"] = p.second
    sigmas = schedule(steps, sigma_max, sigma_min)
    return sampler(p.denoise, p.operator, p.y, sigmas, noise=p.noise, callback=p.report, **options)


def run_admm_tv(p: Problem, *, steps: int, rho: float, lam: float, **options: Any) -> Tensor:
    """Total variation without a prior; ``steps`` outer iterations."""

    def report(k: int, x: Tensor) -> None:
        p.report(SamplerState(k, steps, 0.0, x, 0))

    options["axes"] = tuple(options["axes"])
    return admm_tv(p.y, p.operator, rho=rho, lam=lam, iterations=steps, callback=report, **options)[0]


def run_fbp(p: Problem, *, filter: str) -> Tensor:
    """Filtered back-projection; that of Feldkamp, Davis and Kress for a cone beam."""
    if isinstance(p.physical, ConeBeam):
        return fdk(p.measured, p.physical, filter)
    return fbp(p.measured, p.physical, filter)  # type: ignore[arg-type]  # which checks it


def run_sirt(p: Problem, *, steps: int, **options: Any) -> Tensor:
    """``steps`` SIRT iterations, a few at a time for the sake of progress."""
    x: Tensor | None = None
    at_once = max(1, steps // 20)
    for done in range(0, steps, at_once):
        now = min(at_once, steps - done)
        x = sirt(p.y, p.operator, iterations=now, x0=x, **options)
        p.report(SamplerState(done + now, steps, 0.0, x, 0))
    assert x is not None
    return x


def run_zero_filled(p: Problem) -> Tensor:
    """``A^H y``."""
    return zero_filled(p.y, p.operator)


def run_cgls(p: Problem, *, steps: int, **options: Any) -> Tensor:
    """Least squares, with coil maps CG-SENSE; ``steps`` conjugate gradient steps at most."""

    def report(k: int, x: Tensor) -> None:
        p.report(SamplerState(k, steps, 0.0, x, 0))

    return cgls(p.y, p.operator, iterations=steps, callback=report, **options)


def run_l1_wavelet(p: Problem, *, steps: int, shifts: bool, **options: Any) -> Tensor:
    """Sparse wavelet coefficients without a prior; ``steps`` FISTA steps."""

    def report(k: int, x: Tensor) -> None:
        p.report(SamplerState(k, steps, 0.0, x, 0))

    options["axes"] = tuple(options["axes"])
    generator = keyed_generator("l1_wavelet", p.noise.seed) if shifts else None
    step = max(1.0, p.operator.norm()) ** -2  # statistical weights leave some rays more than the unit norm
    return l1_wavelet(p.y, p.operator, iterations=steps, step=step, generator=generator, callback=report, **options)


def run_fbp_unet(p: Problem, *, slice_batch: int) -> Tensor:
    """The direct inversion, corrected by a network that was trained for this measurement."""
    assert p.network is not None
    x = p.network(direct_inversion(p.measured, p.physical), slice_batch)
    p.report(SamplerState(1, 1, 0.0, x, 1))
    return x


def _start_from_inversion(p: Problem) -> Tensor:
    return run_zero_filled(p) if p.physical.range_complex else run_fbp(p, filter="ramp")


def _start_from_admm_tv(p: Problem) -> Tensor:
    quiet = replace(p, report=lambda state: None)
    return run_admm_tv(quiet, steps=50, **METHODS["admm_tv"].options)


START: dict[str, Callable[[Problem], Tensor | None]] = {
    "noise": lambda p: None,
    "direct": _start_from_inversion,
    "admm_tv": _start_from_admm_tv,
}
"""Volumes that noise of the highest level is added to."""

METHODS: dict[str, Method] = {
    "dds": Method(
        run_dds,
        {
            "sigma_max": 5.0,
            "sigma_min": 0.02,
            "rho": 0.1,
            "lam": 0.001,
            "sigma_y": 0.0,
            "noise_share": 0.5,
            "cg_iterations": 15,
            "eta": 0.85,
            "ddim": False,
            "schedule": "karras",
            "start": "noise",
            "correlation": 0.0,
        },
        steps=50,
        needs_prior=True,
    ),
    "diffusion_mbir": Method(
        partial(run_sampler, diffusion_mbir, geometric_sigmas),
        {
            "sigma_max": 378.0,
            "sigma_min": 0.01,
            "rho": 0.026,
            "lam": 1.04e-4,
            "cg_iterations": 1,
            "admm_iterations": 1,
            "sharing": True,
            "axes": "z",
            "consistency": "noisy",
            "snr": 0.16,
            "corrector_steps": 1,
            "final_sirt": True,
        },
        steps=2000,
        needs_prior=True,
    ),
    "admm_tv": Method(
        run_admm_tv,
        {"rho": 0.01, "lam": 3e-4, "cg_iterations": 8, "axes": "zyx", "isotropic": False},
        steps=150,
    ),
    "fbp": Method(run_fbp, {"filter": "ramp"}, modalities=("ct",), weighted=False),
    "sirt": Method(run_sirt, {"relaxation": 1.0, "nonnegative": True}, steps=200, modalities=("ct",)),
    "zero_filled": Method(run_zero_filled, {}, modalities=("mri",), weighted=False),
    "score_slices": Method(
        partial(run_sampler, score_slices, geometric_sigmas),
        {
            "sigma_max": 2.0,
            "sigma_min": 0.02,
            "relaxation": 1.0,
            "cg_iterations": 5,
            "snr": 0.3,
            "corrector_steps": 1,
            "consistency": "tweedie",
        },
        steps=50,
        needs_prior=True,
    ),
    "mcg": Method(
        partial(run_sampler, mcg, karras_sigmas),
        {"sigma_max": 2.0, "sigma_min": 0.02, "zeta": 3.0, "cg_iterations": 5},
        steps=50,
        needs_prior=True,
        needs=("gradients",),
    ),
    "dps": Method(
        partial(run_sampler, dps, karras_sigmas),
        {"sigma_max": 2.0, "sigma_min": 0.02, "zeta": 3.0},
        steps=100,
        needs_prior=True,
        needs=("gradients",),
    ),
    "diffpir": Method(
        partial(run_sampler, diffpir, karras_sigmas),
        {
            "sigma_max": 2.0,
            "sigma_min": 0.02,
            "lam": 7.0,
            "sigma_n": 0.001,
            "zeta": 1.0,
            "cg_iterations": 10,
            "tv": 0.0,
            "tv_rho": 0.01,
        },
        steps=50,
        needs_prior=True,
    ),
    "tpdm": Method(
        partial(run_sampler, tpdm, karras_sigmas),
        {
            "sigma_max": 2.0,
            "sigma_min": 0.02,
            "period": 2,
            "eta": 0.85,
            "ddim": False,
            "rho": 0.1,
            "lam": 0.0,
            "cg_iterations": 15,
        },
        steps=50,
        needs_prior=True,
        needs=("second_prior",),
    ),
    "cgls": Method(run_cgls, {"lam": 0.0, "tolerance": 0.0}, steps=20),
    "sense": Method(run_cgls, {"lam": 1e-3, "tolerance": 1e-5}, steps=50, modalities=("mri",), needs=("coil_maps",)),
    "l1_wavelet": Method(
        run_l1_wavelet,
        {"lam": 2e-3, "wavelet": "haar", "levels": 2, "axes": "yx", "shifts": True},
        steps=100,
        modalities=("mri",),
    ),
    "fbp_unet": Method(run_fbp_unet, {"slice_batch": 8}, weighted=False, needs=("network",)),
}
