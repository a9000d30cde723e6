"""Noise against its theory, and weights against a dense solve."""

import math

import pytest
import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics import (
    FourierSampling,
    MultiCoilFourier,
    ParallelBeam,
    Weighted,
    complex_gaussian,
    make_mask,
    poisson_counts,
)
from lightning_mbir.solvers import conjugate_gradient
from tests.physics.test_operators import dense

DRAWS = 40_000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("electronic", [0.0, 20.0])
@pytest.mark.parametrize("integral", [0.0, 2.0, 4.0])
def test_counts_have_the_mean_and_the_variance_of_theory(integral: float, electronic: float) -> None:
    photons = 1e5
    sinogram = torch.full((DRAWS,), integral, dtype=torch.float64)
    noisy = poisson_counts(sinogram, photons, electronic, generator())
    counts = photons * torch.exp(-noisy.y)
    mean = photons * math.exp(-integral)
    variance = mean + electronic**2
    # Five standard errors of a mean, and of a variance (that of a normal variable).
    assert float(counts.mean()) == pytest.approx(mean, abs=5 * math.sqrt(variance / DRAWS))
    assert float(counts.var()) == pytest.approx(variance, rel=5 * math.sqrt(2 / DRAWS))
    # The logarithm has the variance that the weights say, to second order in 1 / mean.
    assert float(noisy.y.var()) == pytest.approx(variance / mean**2, rel=5 * math.sqrt(2 / DRAWS) + 3 / mean)
    assert float(noisy.weights.mean()) == pytest.approx(mean**2 / variance, rel=0.01)
    standard = (noisy.y - integral) * noisy.weights.sqrt()
    assert float(standard.std()) == pytest.approx(1, rel=0.02)
    assert abs(float(standard.mean())) < 0.05


def test_rays_without_counts_stay_finite_and_weigh_nothing() -> None:
    sinogram = torch.tensor([0.0, 3.0, 40.0])
    noisy = poisson_counts(sinogram, 1000.0, generator=generator())
    assert bool(torch.isfinite(noisy.y).all())
    assert noisy.y[2] == pytest.approx(math.log(1000)) and noisy.weights[2] == 0
    assert bool((noisy.weights[:2] > 0).all())
    dark = poisson_counts(torch.full((1000,), 30.0), 1000.0, electronic_noise=5.0, generator=generator())
    assert bool((dark.weights >= 0).all()) and bool((dark.weights == 0).any())
    assert float(dark.y.max()) <= math.log(1000) + 1e-6


def test_noise_follows_its_generator_and_keeps_type_and_shape() -> None:
    sinogram = torch.rand(2, 3, 4)
    one, same, other = (poisson_counts(sinogram, 1e4, 3.0, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.y, same.y) and torch.equal(one.weights, same.weights)
    assert not torch.equal(one.y, other.y)
    assert one.y.shape == one.weights.shape == sinogram.shape and one.y.dtype == one.weights.dtype == torch.float32
    kspace = torch.randn(2, 3, 4, dtype=torch.complex64, generator=generator())
    assert torch.equal(complex_gaussian(kspace, 20, generator(1)), complex_gaussian(kspace, 20, generator(1)))
    assert complex_gaussian(kspace, 20, generator(1)).dtype == torch.complex64


@pytest.mark.parametrize("snr", [-3.0, 10.0, 40.0])
def test_k_space_noise_has_the_snr_on_the_samples_and_is_nowhere_else(snr: float) -> None:
    op = FourierSampling(make_mask("gaussian2d", (64, 64), 3)).to(torch.float64)
    kspace = op(torch.rand(12, 64, 64, dtype=torch.float64, generator=generator()))
    noise = complex_gaussian(kspace, snr, generator(1)) - kspace
    sampled = kspace != 0
    assert bool((noise[~sampled] == 0).all())
    n, power = noise[sampled], float(kspace[sampled].abs().square().mean())
    error = 5 / math.sqrt(len(n))
    assert float(n.abs().square().mean()) == pytest.approx(power / 10 ** (snr / 10), rel=error)
    assert float(n.real.var() / n.imag.var()) == pytest.approx(1, rel=2 * error)
    assert float((n.real * n.imag).mean() / n.real.var()) == pytest.approx(0, abs=error)
    assert float(n.mean().abs() / n.abs().mean()) == pytest.approx(0, abs=error)


def test_noise_that_cannot_be_is_refused() -> None:
    y, k = torch.rand(4), torch.ones(4, dtype=torch.complex64)
    with pytest.raises(InputError, match="--photons 0"):
        poisson_counts(y, 0.0)
    with pytest.raises(InputError, match="electronic_noise -1"):
        poisson_counts(y, 1e4, -1.0)
    with pytest.raises(InputError, match="line integrals"):
        poisson_counts(y * float("nan"), 1e4)
    with pytest.raises(InputError, match="no photon"):
        poisson_counts(y + 100, 1e4)
    with pytest.raises(InputError, match="--snr inf"):
        complex_gaussian(k, float("inf"))
    with pytest.raises(InputError, match="finite complex"):
        complex_gaussian(y, 20)
    with pytest.raises(InputError, match="k-space is zero"):
        complex_gaussian(0 * k, 20)


def weighted_problem(by_slice: bool) -> tuple[ParallelBeam, Tensor, Tensor]:
    op = ParallelBeam(6, [i * 15.0 for i in range(12)]).to(torch.float64)
    y = torch.rand(2, *op.range_shape, dtype=torch.float64, generator=generator())
    weights = torch.rand(y.shape if by_slice else op.range_shape, dtype=torch.float64, generator=generator(1)) + 0.01
    return op, y, weights


@pytest.mark.parametrize("by_slice", [False, True])
def test_cg_on_the_weighted_operator_is_weighted_least_squares(by_slice: bool) -> None:
    op, y, weights = weighted_problem(by_slice)
    weighted = Weighted(op, weights)
    assert weighted.separable != by_slice
    x = conjugate_gradient(weighted.normal, weighted.adjoint(weighted.scale(y)), max_iterations=300, tolerance=1e-14)
    matrix = dense(op)
    for k in range(2):
        w = (weights[k] if by_slice else weights).flatten()
        exact = torch.linalg.solve(matrix.T @ (w[:, None] * matrix), matrix.T @ (w * y[k].flatten()))
        torch.testing.assert_close(x[k].flatten(), exact, rtol=1e-6, atol=1e-8)


def test_weights_that_cannot_be_are_refused() -> None:
    op, _, weights = weighted_problem(by_slice=True)
    for wrong, words in (
        (weights[..., 1:], "give \\(12, 9\\), or \\(Z, 12, 9\\)"),
        (weights[None], "as measured"),
        (-weights, "negative"),
        (weights / 0, "infinite"),
        (0 * weights, "all zero"),
    ):
        with pytest.raises(InputError, match=words):
            Weighted(op, wrong)
    with pytest.raises(InputError, match="measures"):
        Weighted(op, weights).scale(torch.zeros(5, 12, 9))


def test_slices_of_a_weighted_operator_stay_uncoupled() -> None:
    """With a slice that weighs nothing, and with weights of coils whose maps differ from slice to slice."""
    op, _, weights = weighted_problem(by_slice=True)
    weights[0] = 0
    weighted = Weighted(op, weights)
    nothing, one = weighted.of_slice(0), weighted.of_slice(1)
    assert nothing is not None and one is not None
    x = torch.rand(len(weights), *op.domain_shape, dtype=torch.float64)
    assert not nothing(x[0]).any() and weighted.norm() > 0
    torch.testing.assert_close(one(x[1]), weighted(x)[1])
    coils = MultiCoilFourier(torch.ones(8, 8), torch.randn(3, 2, 8, 8, dtype=torch.complex64))
    by_coil = Weighted(coils, torch.rand(coils.range_shape) + 0.1)
    part = by_coil.of_slice(2)
    assert part is not None
    volume = torch.randn(3, 8, 8, dtype=torch.complex64)
    torch.testing.assert_close(part(volume[2]), by_coil(volume)[2])
