"""How the further diffusion samplers are run on a problem; ``methods.py`` has their default options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from lightning_mbir.samplers import (
    DifferentiableDenoiser,
    diffpir,
    dps,
    geometric_sigmas,
    karras_sigmas,
    mcg,
    score_slices,
    tpdm,
)

if TYPE_CHECKING:
    from lightning_mbir.reconstruction.methods import Problem


def run_score_slices(p: Problem, *, steps: int, sigma_max: float, sigma_min: float, **options: Any) -> Tensor:
    """Predictor-corrector sampling slice by slice; ``2 steps - 1`` network evaluations."""
    assert p.denoise is not None
    sigmas = geometric_sigmas(steps, sigma_max, sigma_min)
    return score_slices(p.denoise, p.operator, p.y, sigmas, noise=p.noise, callback=p.report, **options)


def run_mcg(p: Problem, *, steps: int, sigma_max: float, sigma_min: float, **options: Any) -> Tensor:
    """Manifold constrained gradients; ``2 steps`` network evaluations, half of them with a way back."""
    denoise = cast(DifferentiableDenoiser, p.denoise)  # ``needs`` says so
    sigmas = karras_sigmas(steps, sigma_max, sigma_min)
    return mcg(denoise, p.operator, p.y, sigmas, noise=p.noise, callback=p.report, **options)


def run_dps(p: Problem, *, steps: int, sigma_max: float, sigma_min: float, **options: Any) -> Tensor:
    """Diffusion posterior sampling; ``2 steps`` network evaluations, half of them with a way back."""
    denoise = cast(DifferentiableDenoiser, p.denoise)
    sigmas = karras_sigmas(steps, sigma_max, sigma_min)
    return dps(denoise, p.operator, p.y, sigmas, noise=p.noise, callback=p.report, **options)


def run_diffpir(p: Problem, *, steps: int, sigma_max: float, sigma_min: float, **options: Any) -> Tensor:
    """Denoising diffusion for plug-and-play restoration; ``steps`` network evaluations."""
    assert p.denoise is not None
    sigmas = karras_sigmas(steps, sigma_max, sigma_min)
    return diffpir(p.denoise, p.operator, p.y, sigmas, noise=p.noise, callback=p.report, **options)


def run_tpdm(p: Problem, *, steps: int, sigma_max: float, sigma_min: float, **options: Any) -> Tensor:
    """Two perpendicular priors; ``steps`` network evaluations, of the one or the other."""
    assert p.denoise is not None and p.second is not None
    sigmas = karras_sigmas(steps, sigma_max, sigma_min)
    return tpdm(p.denoise, p.operator, p.y, sigmas, second=p.second, noise=p.noise, callback=p.report, **options)
