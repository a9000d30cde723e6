"""Samplers: ``sampler(denoise, operator, y, sigmas, *, noise, callback=None, ...) -> volume``."""

from lightning_mbir.samplers.dds import dds
from lightning_mbir.samplers.diffpir import diffpir
from lightning_mbir.samplers.diffusion_mbir import diffusion_mbir
from lightning_mbir.samplers.dps import dps
from lightning_mbir.samplers.mcg import mcg
from lightning_mbir.samplers.noise import KeyedNoise, keyed_generator
from lightning_mbir.samplers.pula import pula
from lightning_mbir.samplers.schedules import geometric_sigmas, karras_sigmas
from lightning_mbir.samplers.score_slices import score_slices
from lightning_mbir.samplers.state import Callback, Denoiser, DifferentiableDenoiser, SamplerState
from lightning_mbir.samplers.tpdm import tpdm

__all__ = [
    "Callback",
    "Denoiser",
    "DifferentiableDenoiser",
    "KeyedNoise",
    "SamplerState",
    "dds",
    "diffpir",
    "diffusion_mbir",
    "dps",
    "geometric_sigmas",
    "karras_sigmas",
    "keyed_generator",
    "mcg",
    "pula",
    "score_slices",
    "tpdm",
]
