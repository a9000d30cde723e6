"""Samplers: ``sampler(denoise, operator, y, sigmas, *, noise, callback=None, ...) -> volume``."""

from lightning_mbir.samplers.dds import dds
from lightning_mbir.samplers.diffusion_mbir import diffusion_mbir
from lightning_mbir.samplers.noise import KeyedNoise, keyed_generator
from lightning_mbir.samplers.schedules import geometric_sigmas, karras_sigmas
from lightning_mbir.samplers.state import Callback, Denoiser, SamplerState

__all__ = [
    "Callback",
    "Denoiser",
    "KeyedNoise",
    "SamplerState",
    "dds",
    "diffusion_mbir",
    "geometric_sigmas",
    "karras_sigmas",
    "keyed_generator",
]
