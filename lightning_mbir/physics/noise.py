"""Noise of measurements, simulated and estimated: photon counts of CT, receiver noise of MRI."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Complex128, Float, Num
from scipy.special import gammaincinv
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.kinds import check_kinds


@dataclass(frozen=True)
class NoisySinogram:
    """Line integrals with noise.

    Attributes:
        y: ``ln(photons / counts)``, of the sinogram's shape and type.
        weights: inverse variances of ``y``, likewise; 0 for rays without counts.
    """

    y: Float[Tensor, "*shape"]
    weights: Float[Tensor, "*shape"]


@torch.no_grad()
def poisson_counts(
    sinogram: Tensor, photons: float, electronic_noise: float = 0.0, generator: torch.Generator | None = None
) -> NoisySinogram:
    """Line integrals as a detector that counts photons would give them.

    A ray counts ``N = Poisson(photons exp(-sinogram)) + Normal(0, electronic_noise^2)``, and ``y = ln(photons / N)``.
    To second order ``y`` has the variance ``(N + electronic_noise^2) / N^2`` (Thibault et al., "A recursive filter for
    noise reduction in statistical iterative tomographic imaging", SPIE 6065, 2006), whose inverse is its weight in
    least squares; without electronic noise that is ``N`` (Sauer and Bouman, "A local update strategy for iterative
    reconstruction from projections", IEEE TSP 41, 1993).

    Counts below 1 have no usable logarithm: they are taken as 1 in ``y``, so that it stays finite, and weigh what they
    are, which is nothing at 0 or below.

    Args:
        sinogram: line integrals of any shape, without unit; values below 0 count as more photons than were sent.
        photons: sent along each ray.
        electronic_noise: standard deviation in photons.
        generator: on the CPU, where the noise is drawn, in double precision.

    Raises:
        InputError: photons that are not positive, noise below 0, a sinogram that is not finite or not real, or one that
            lets no photon through.
    """
    check_kinds(poisson_counts, locals())
    if not (math.isfinite(photons) and photons > 0):
        raise InputError(f"--photons {photons:g}: give a positive number of photons a ray, such as 1e5")
    if not (math.isfinite(electronic_noise) and electronic_noise >= 0):
        raise InputError(f"electronic_noise {electronic_noise:g}: give a standard deviation in photons, at least 0")
    if sinogram.is_complex() or not bool(torch.isfinite(sinogram).all()):
        raise InputError("the sinogram has complex, NaN or infinite values; give line integrals")
    expected = photons * torch.exp(-sinogram.to("cpu", torch.float64))
    counts = torch.poisson(expected, generator=generator)
    if electronic_noise:
        counts += electronic_noise * torch.randn(counts.shape, dtype=counts.dtype, generator=generator)
    y = torch.log(photons / counts.clamp_min(1))
    seen = counts.clamp_min(0)
    weights = torch.where(seen > 0, seen**2 / (seen + electronic_noise**2).clamp_min(1e-300), 0)
    if not bool(weights.any()):
        raise InputError(f"--photons {photons:g}: no photon reached the detector; give more")
    return NoisySinogram(y.to(sinogram), weights.to(sinogram))


@torch.no_grad()
def complex_gaussian(
    kspace: Num[Tensor, "*shape"], snr_db: float, generator: torch.Generator | None = None
) -> Complex[Tensor, "*shape"]:
    """k-space with white complex Gaussian noise of :func:`noise_sigma` on the sampled points, which are those not 0.

    Args:
        kspace: complex, of any shape.
        snr_db: in decibels.
        generator: on the CPU, where the noise is drawn, in double precision.

    Raises:
        InputError: see :func:`noise_sigma`.
    """
    check_kinds(complex_gaussian, locals())
    sigma = noise_sigma(kspace, snr_db)
    noise = torch.randn(kspace.shape, dtype=torch.complex128, generator=generator)  # variance 1
    return kspace + (sigma * noise).to(kspace) * (kspace != 0)


def noise_sigma(kspace: Tensor, snr_db: float) -> float:
    """The noise that k-space has at an SNR: ``sigma`` of ``snr_db = 10 log10(P / sigma^2)``.

    ``P`` is the mean power of the sampled points (those that are not 0) of the whole array, and ``sigma^2 = E |n|^2``,
    half of it in each part. All points have the same ``sigma``: that of the receiver.

    Args:
        kspace: complex, of any shape, with zeros where nothing was sampled.
        snr_db: in decibels.

    Raises:
        InputError: an SNR that is not finite; k-space that is real, not finite, or zero.
    """
    check_kinds(noise_sigma, locals())
    if not math.isfinite(snr_db):
        raise InputError(f"--snr {snr_db:g}: give decibels, such as 30")
    if not kspace.is_complex() or not bool(torch.isfinite(torch.view_as_real(kspace)).all()):
        raise InputError("k-space has real, NaN or infinite values; give finite complex ones")
    sampled = kspace != 0
    if not bool(sampled.any()):
        raise InputError("k-space is zero; there is no signal to set noise in relation to")
    power = float(kspace[sampled].abs().double().square().mean())
    return math.sqrt(power / 10 ** (snr_db / 10))


CORNER = 1.1
"""Distance from the centre of k-space, in half its sides, beyond which there is noise alone."""
ENOUGH = 200
"""Values that a noise is estimated from at least."""
EACH = 20
"""Samples for each coil at least, that a covariance is estimated from."""
MOST = 50_000
"""Samples at most: its elements are then known to half a per cent."""
TURNS = 100
"""Of the fixed-point iteration at most; ten do for noise alone."""
BORDER = 3
"""Bins at the ends of an object that tell its shape rather than noise."""
NORMAL = 0.6745
"""Median of the magnitude of a normal variable of deviation 1."""


@torch.no_grad()
def kspace_noise(kspace: Complex[Tensor, "*shape"]) -> float:
    """Standard deviation of the noise in each part of k-space, from its corners; 0 where too little is sampled there.

    The median of the magnitudes of real and imaginary parts farther than ``CORNER`` from the centre, the square root of
    the mean square over the coils where there are several. What signal is left there makes it too large.

    Args:
        kspace: centred, ``(..., Y, X)`` or ``(..., coils, Y, X)``, with zeros where nothing was sampled.
    """
    corner = _corners(kspace)
    values = torch.view_as_real(corner)[corner != 0].flatten()
    if len(values) < ENOUGH:
        return 0.0
    return float(values.abs().double().median()) / NORMAL


@torch.no_grad()
def kspace_covariance(kspace: Complex[Tensor, "*slices coils y x"]) -> Complex128[Tensor, "coils coils"]:
    """``E[n n^H]`` of the noise of coils, from the corners of k-space; on the CPU.

    Tyler's M-estimator (Tyler, "A distribution-free M-estimator of multivariate scatter", Annals of Statistics 15,
    1987, equation 1.1), ``C <- coils / samples sum x x^H / (x^H C^-1 x)``, with the scale at which the median of
    ``x^H C^-1 x`` is that of noise, a gamma variable. Samples count by their direction alone, so that signal which is
    left in some of them hardly moves it, as it would a mean of squares.

    Args:
        kspace: centred, with zeros where nothing was sampled.

    Raises:
        InputError: fewer than ``EACH`` samples in the corners for each coil, or coils that are sums of others.
    """
    coils = kspace.shape[-3]
    samples = _corners(kspace).movedim(-2, 0).flatten(1)
    samples = samples[:, (samples != 0).all(0)]
    samples = samples[:, :: 1 + samples.shape[1] // MOST].to("cpu", torch.complex128)
    count = samples.shape[1]
    if count < EACH * coils:
        raise InputError(
            f"the corners of k-space have {count} samples for {coils} coils; an estimate of the noise that they share "
            f"takes {EACH} for each, so leave --data.whiten corners out"
        )
    found, weighed = torch.eye(coils, dtype=torch.complex128), torch.ones(count, dtype=torch.float64)
    for _ in range(TURNS):
        parts = samples / weighed.sqrt()
        found, before = coils / count * parts @ parts.mH, found
        factor, failed = torch.linalg.cholesky_ex(found)
        if failed or not bool(torch.isfinite(factor).all()):
            raise InputError(f"the noise of the {coils} coils has no covariance; leave --data.whiten corners out")
        weighed = torch.linalg.solve_triangular(factor, samples, upper=False).abs().square().sum(0)
        scale = float(weighed.median()) / float(gammaincinv(coils, 0.5))
        weighed, found = weighed / scale, found * scale
        if float((found - before).abs().max()) < 1e-6 * float(found.abs().max()):
            break
    return found


def _corners(kspace: Tensor) -> Tensor:
    """What is farther than ``CORNER`` from the centre of k-space, ``(..., samples)``."""
    y, x = (((torch.arange(n, device=kspace.device) - n // 2) / (n / 2)).square() for n in kspace.shape[-2:])
    return kspace[..., (y[:, None] + x).sqrt() > CORNER]


@torch.no_grad()
def projection_noise(projections: Float[Tensor, "*shape"]) -> float:
    """Standard deviation of the noise of line integrals, from the differences of neighbouring bins.

    The median of ``|y[i - 1] - 2 y[i] + y[i + 1]|`` where rays pass through the object, as far as these are
    independent; edges hardly move a median. What lies within ``BORDER`` bins of the object's ends in a view is left
    out, so that an object of a few bins, which is all edge, has no noise that would be its own shape; 0 then. Bins that
    share light or were interpolated have more noise than it says.

    Args:
        projections: ``(..., bins)``.
    """
    inside = projections > 0.05 * projections.max()
    started, open_still = inside.cumsum(-1) > 0, inside.flip(-1).cumsum(-1).flip(-1) > 0
    within = torch.zeros_like(inside)
    if inside.shape[-1] > 2 * BORDER:
        within[..., BORDER:-BORDER] = started[..., : -2 * BORDER] & open_still[..., 2 * BORDER :]
    second = projections[..., :-2] - 2 * projections[..., 1:-1] + projections[..., 2:]
    values = second[inside[..., :-2] & inside[..., 2:] & within[..., 1:-1]].abs().double()
    if len(values) < ENOUGH:
        return 0.0
    return float(values.median()) / NORMAL / math.sqrt(6)
