"""What ``sigma_y`` of dds does: the measurement weighed against the prior."""

import itertools
from typing import Any

import pytest
import torch

from lightning_mbir.errors import InputError
from lightning_mbir.samplers import KeyedNoise, dds, karras_sigmas
from tests.samplers.test_samplers import DEVIATION, HALF, MEAN, NOTHING, SHAPE, Correlated, N, Pixels, denoise


@pytest.mark.parametrize("cg_iterations", [2, 20])
def test_dds_weighs_the_measurement_against_the_prior_by_sigma_y(cg_iterations: int) -> None:
    """One level without total variation: each pixel that is measured is the mean of both by their variances."""
    y = HALF(torch.rand(*SHAPE, generator=torch.Generator().manual_seed(0)))
    sigma, sigma_y = 0.3, 0.15
    sigmas, noise = torch.tensor([sigma]), KeyedNoise(3)
    options: dict[str, Any] = {"noise": noise, "lam": 0.0, "cg_iterations": cg_iterations}
    x = dds(denoise, HALF, y, sigmas, sigma_y=sigma_y, **options)
    denoised = denoise(sigma * noise(0, SHAPE), sigma)
    mean = (y / sigma_y**2 + denoised / sigma**2) / (1 / sigma_y**2 + 1 / sigma**2)
    torch.testing.assert_close(x, torch.where(HALF.mask > 0, mean, denoised), rtol=0, atol=1e-5)


def test_dds_refuses_a_negative_sigma_y() -> None:
    with pytest.raises(InputError, match=r"sigma_y is -0\.1; give at least 0"):
        dds(denoise, HALF, HALF(torch.zeros(SHAPE)), torch.tensor([1.0]), noise=KeyedNoise(0), sigma_y=-0.1)


def test_dds_with_a_sigma_y_does_not_depend_on_how_far_its_steps_are_solved() -> None:
    """Total variation too: without, more conjugate gradient steps leave less of what the prior gave."""
    y = HALF(MEAN + DEVIATION * torch.randn(20, N, N, generator=torch.Generator().manual_seed(0)))
    sigmas = karras_sigmas(10, 1.0, 0.02)

    def apart(**options: float) -> float:
        few, many = (
            dds(denoise, HALF, y, sigmas, noise=KeyedNoise(0), cg_iterations=n, **options)  # type: ignore[arg-type]
            for n in (15, 60)
        )
        return float((few - many).abs().max())

    assert apart(rho=1.0, lam=0.01, sigma_y=0.05) < 1e-3
    assert apart(rho=0.1, lam=1e-3) > 10 * apart(rho=1.0, lam=0.01, sigma_y=0.05)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_any_two_slices_of_the_noise_have_the_correlation_that_was_asked_for(
    correlation: float, dtype: torch.dtype
) -> None:
    n = KeyedNoise(1, correlation=correlation)(3, (6, 128, 128), dtype=dtype).flatten(1)
    covariance = (n @ n.mH / n.shape[1]).real
    expected = torch.full((6, 6), correlation).fill_diagonal_(1.0)
    torch.testing.assert_close(covariance, expected, rtol=0, atol=0.04)  # 3.6 deviations of sqrt(2) / 128


def test_noise_scale_narrows_samples_around_the_same_mean() -> None:
    """Without data a level is linear in its noise, so samples spread as much less as the noise is less."""
    sigmas, slices = karras_sigmas(40, 20.0, 0.005), torch.zeros(SHAPE)
    full, less = (
        dds(denoise, NOTHING, slices, sigmas, noise=KeyedNoise(2), lam=0.0, eta=1.0, noise_scale=scale)
        for scale in (1.0, 0.5)
    )
    error = (less.mean(0) - MEAN) / (DEVIATION / SHAPE[0] ** 0.5)
    assert float(error.abs().max()) < 4.5  # standard errors
    torch.testing.assert_close(less - MEAN, 0.5 * (full - MEAN), rtol=1e-4, atol=1e-5)


def test_momentum_goes_on_from_the_last_level() -> None:
    """Against the recursion written out, with the exact denoiser and one conjugate gradient step a level."""
    y = HALF(MEAN + DEVIATION * torch.randn(20, N, N, generator=torch.Generator().manual_seed(0)))
    sigmas, noise, momentum, eta = karras_sigmas(6, 1.0, 0.02), KeyedNoise(4), 0.7, 0.5
    found = dds(denoise, HALF, y, sigmas, noise=noise, lam=0.0, cg_iterations=1, eta=eta, momentum=momentum)
    levels = [*sigmas.tolist(), 0.0]
    x, results = levels[0] * noise(0, y.shape), list[torch.Tensor]()
    for i, (sigma, following) in enumerate(itertools.pairwise(levels)):
        denoised = denoise(x, sigma)
        results.append(torch.where(HALF.mask > 0, y, denoised))  # the projection, which one step is
        ahead = results[-1] + momentum * (results[-1] - results[-2] if i else 0)
        x = ahead + following * ((1 - eta**2) ** 0.5 * (x - denoised) / sigma + eta * noise(i + 1, y.shape))
    torch.testing.assert_close(found, results[-1], rtol=1e-5, atol=1e-5)


def test_a_warm_start_goes_on_from_what_the_last_level_has_changed() -> None:
    """Against the recursion written out; one step of conjugate gradients does not solve what pixels weigh unequally."""
    weights = torch.linspace(0.2, 1.0, N * N).reshape(N, N)
    operator = Pixels(weights)
    y = operator(MEAN + DEVIATION * torch.randn(4, N, N, generator=torch.Generator().manual_seed(0)))
    sigmas, noise, share, eta = karras_sigmas(5, 1.0, 0.02), KeyedNoise(4), 0.8, 0.5
    found = dds(denoise, operator, y, sigmas, noise=noise, lam=0.0, cg_iterations=1, eta=eta, warm_start=share)
    levels = [*sigmas.tolist(), 0.0]
    x, changed, x0 = levels[0] * noise(0, y.shape), torch.zeros(y.shape), torch.empty(0)
    for i, (sigma, following) in enumerate(itertools.pairwise(levels)):
        denoised = denoise(x, sigma)
        start = denoised + share * changed
        r = weights * (y - weights * start)
        x0 = start + r * r.square().sum() / (weights * r).square().sum()
        changed = x0 - denoised
        x = x0 + following * ((1 - eta**2) ** 0.5 * (x - denoised) / sigma + eta * noise(i + 1, y.shape))
    torch.testing.assert_close(found, x0, rtol=1e-4, atol=1e-5)


def test_every_second_level_sees_its_slices_mirrored() -> None:
    """A denoiser with an error on one side has it on either side by turns; one without sides changes nothing."""
    y = HALF(MEAN + DEVIATION * torch.randn(4, N, N, generator=torch.Generator().manual_seed(0)))
    error, sigmas, calls = torch.linspace(0, 0.1, N), karras_sigmas(5, 1.0, 0.02), list[torch.Tensor]()

    def one_sided(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return 0.9 * x + error

    def by_turns(x: torch.Tensor, sigma: float) -> torch.Tensor:
        calls.append(x)
        return 0.9 * x + (error.flip(-1) if len(calls) % 2 == 0 else error)

    def run(denoiser: Any, mirror: bool) -> torch.Tensor:
        return dds(denoiser, HALF, y, sigmas, noise=KeyedNoise(4), mirror=mirror, momentum=0.3)

    assert torch.equal(run(one_sided, True), run(by_turns, False))
    assert not torch.equal(run(one_sided, True), run(one_sided, False))
    assert torch.equal(run(lambda x, _: 0.9 * x, True), run(lambda x, _: 0.9 * x, False))


def test_momentum_takes_away_what_few_levels_miss_and_noise_scale_what_it_adds() -> None:
    """Correlated pixels, a quarter of them measured: the mean of samples is nearer to that of the posterior with
    momentum; their spread is larger, and with less noise both are nearer."""
    half = Pixels((torch.arange(16).reshape(4, 4) % 4 == 0).float())
    distance = (torch.arange(16)[:, None] - torch.arange(16)[None]).abs()
    covariance = 0.09 * torch.exp(-distance / 6.0)
    prior = Correlated(covariance)
    truth = (torch.randn(64, 16, generator=torch.Generator().manual_seed(3)) @ prior.root).reshape(64, 4, 4)
    m = half.mask.flatten().bool()
    mean = truth.reshape(64, 16)[:, m] @ torch.linalg.solve(covariance[m][:, m], covariance[m][:, ~m])

    def apart(silent: bool, **options: float) -> float:
        noise: Any = (lambda step, shape, **_: torch.zeros(shape)) if silent else KeyedNoise(0)
        x = dds(prior, half, half(truth), karras_sigmas(8, 0.3, 0.02), noise=noise, lam=0.0, eta=0.75, **options)  # type: ignore[arg-type]
        return float((x.reshape(64, 16)[:, ~m] - mean).square().mean().sqrt())

    # All is linear in the noise: without any there is the mean of samples.
    assert apart(True, momentum=0.5) < 0.7 * apart(True)  # 0.107 against 0.165
    assert apart(False) < apart(False, momentum=0.5)  # 0.223 against 0.235
    assert apart(False, momentum=0.5, noise_scale=0.7) < 0.75 * apart(False)  # 0.158


@pytest.mark.parametrize(
    ("option", "value"), [("momentum", -0.1), ("momentum", 1.5), ("noise_scale", 2.0), ("warm_start", -1.0)]
)
def test_shares_beyond_one_are_refused(option: str, value: float) -> None:
    options: dict[str, Any] = {option: value}
    with pytest.raises(InputError, match=f"{option} is {value:g}; give 0 to 1"):
        dds(denoise, HALF, HALF(torch.zeros(SHAPE)), torch.tensor([1.0]), noise=KeyedNoise(0), **options)
