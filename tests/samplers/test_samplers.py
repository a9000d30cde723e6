"""Samplers with the exact denoiser of a Gaussian prior, for which the truth is known in closed form."""

import pytest
import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics import LinearOperator
from lightning_mbir.samplers import (
    KeyedNoise,
    SamplerState,
    dds,
    diffusion_mbir,
    geometric_sigmas,
    karras_sigmas,
)

N = 16  # small slices would not do: the published Langevin step is exact up to the order of 1 / pixels
SHAPE = (150, N, N)  # 150 slices: as many samples of a 2D prior
MEAN = torch.linspace(0.2, 0.8, N * N).reshape(N, N)
DEVIATION = torch.linspace(0.1, 0.4, N * N).reshape(N, N)


class Pixels(LinearOperator):
    """Measures the pixels where ``mask`` is one (none of them: no data at all)."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.domain_shape = self.range_shape = (mask.shape[0], mask.shape[1])
        self.range_complex = True  # not line integrals, so that no SIRT step follows

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask

    def adjoint(self, y: Tensor) -> Tensor:
        return y * self.mask


NOTHING = Pixels(torch.zeros(N, N))
HALF = Pixels((torch.arange(N * N).reshape(N, N) % 2).float())


def denoise(x: Tensor, sigma: float) -> Tensor:
    """Posterior mean for pixels that are independent and Gaussian."""
    gain = DEVIATION**2 / (DEVIATION**2 + sigma**2)
    return MEAN + gain * (x - MEAN)


def sample(name: str, operator: LinearOperator, y: Tensor, seed: int = 0, **options: object) -> Tensor:
    noise = KeyedNoise(seed)
    if name == "dds":
        settings: dict[str, object] = {"lam": 0.0, "ddim": True, **options}
        return dds(denoise, operator, y, karras_sigmas(120, 20.0, 0.005), noise=noise, **settings)  # type: ignore[arg-type]
    # Small Langevin steps: the error of the corrector is of the order of its step.
    settings = {"lam": 0.0, "snr": 0.05, **options}
    sigmas = geometric_sigmas(300, 20.0, 0.005)
    return diffusion_mbir(denoise, operator, y, sigmas, noise=noise, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["dds", "diffusion_mbir"])
def test_without_data_samples_are_the_prior(name: str) -> None:
    x = sample(name, NOTHING, torch.zeros(SHAPE))
    n = SHAPE[0]
    mean_error = (x.mean(0) - MEAN) / (DEVIATION / n**0.5)
    assert float(mean_error.abs().max()) < 4.5  # standard errors
    ratio = x.std(0) / DEVIATION
    # Discrete steps cost some per cent of the deviation; the standard error of one pixel's is 5.8 %.
    assert float((ratio.mean() - 1).abs()) < 0.04 and float((ratio - 1).abs().max()) < 0.3
    correlation = torch.corrcoef(x.reshape(n, -1).T) - torch.eye(N * N)
    assert float(correlation.square().mean().sqrt()) < 1.1 / n**0.5


@pytest.mark.parametrize("name", ["dds", "diffusion_mbir"])
def test_with_half_the_pixels_samples_are_the_posterior(name: str) -> None:
    """Independent pixels: the posterior is the data where there are any, and the prior elsewhere."""
    truth = MEAN + DEVIATION * torch.randn(SHAPE, generator=torch.Generator().manual_seed(9))
    x = sample(name, HALF, HALF(truth), cg_iterations=3)
    measured = HALF.mask.bool()
    torch.testing.assert_close(x[:, measured], truth[:, measured], rtol=0, atol=2e-3)
    rest = x[:, ~measured]
    mean_error = (rest.mean(0) - MEAN[~measured]) / (DEVIATION[~measured] / SHAPE[0] ** 0.5)
    assert float(mean_error.abs().max()) < 4.5
    ratio = rest.std(0) / DEVIATION[~measured]
    assert float((ratio.mean() - 1).abs()) < 0.04 and float((ratio - 1).abs().max()) < 0.3


def test_correlated_pixels_are_pulled_along() -> None:
    """Where pixels are correlated, those that are not measured move towards their posterior mean."""
    half = Pixels((torch.arange(16).reshape(4, 4) % 2).float())
    distance = (torch.arange(16)[:, None] - torch.arange(16)[None]).abs()
    covariance = 0.09 * torch.exp(-distance / 6.0)
    values, vectors = torch.linalg.eigh(covariance)

    def correlated(x: Tensor, sigma: float) -> Tensor:
        gain = vectors @ torch.diag(values / (values + sigma**2)) @ vectors.T
        return (x.reshape(-1, 16) @ gain).reshape(x.shape)

    root = vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T
    truth = (torch.randn(64, 16, generator=torch.Generator().manual_seed(3)) @ root).reshape(64, 4, 4)
    m = half.mask.flatten().bool()
    weights = torch.linalg.solve(covariance[m][:, m], covariance[m][:, ~m])
    posterior_mean = truth.reshape(64, 16)[:, m] @ weights
    runs = [
        dds(correlated, half, half(truth), karras_sigmas(50, 5.0, 0.01), noise=KeyedNoise(s), lam=0.0)
        for s in range(12)
    ]
    mean = torch.stack(runs).mean(0).reshape(64, 16)[:, ~m]
    assert float((mean - posterior_mean).norm()) < 0.35 * float(posterior_mean.norm())


@pytest.mark.parametrize("name", ["dds", "diffusion_mbir"])
def test_a_slice_does_not_know_its_neighbours_without_tv(name: str) -> None:
    """Per-slice Langevin steps and keyed noise: the first slices are the same however many follow."""
    y = torch.zeros(8, N, N)
    many = sample(name, NOTHING, y)
    few = sample(name, NOTHING, y[:3])
    torch.testing.assert_close(many[:3], few, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["dds", "diffusion_mbir"])
def test_slice_batches_and_seeds(name: str) -> None:
    y = HALF(torch.rand(6, N, N, generator=torch.Generator().manual_seed(1)))
    whole = sample(name, HALF, y)
    assert torch.equal(whole, sample(name, HALF, y))
    assert not torch.equal(whole, sample(name, HALF, y, seed=1))
    calls = []

    def in_batches(x: Tensor, sigma: float) -> Tensor:
        calls.append(sigma)
        return torch.cat([denoise(part, sigma) for part in x.split(4)])

    sigmas = geometric_sigmas(20, 5.0, 0.01)
    run = dds if name == "dds" else diffusion_mbir
    one = run(denoise, HALF, y, sigmas, noise=KeyedNoise(0))
    assert torch.equal(run(in_batches, HALF, y, sigmas, noise=KeyedNoise(0)), one)
    assert len(calls) == (20 if name == "dds" else 39)


def test_total_variation_couples_slices() -> None:
    y = torch.zeros(40, N, N)
    free, coupled = (sample("dds", NOTHING, y, rho=0.1, lam=lam) for lam in (0.0, 0.02))
    assert float(coupled.diff(dim=0).abs().mean()) < 0.5 * float(free.diff(dim=0).abs().mean())


def test_states_tell_the_progress() -> None:
    states: list[SamplerState] = []
    y = torch.zeros(2, N, N)
    x = diffusion_mbir(denoise, HALF, y, geometric_sigmas(5, 2.0, 0.1), noise=KeyedNoise(), callback=states.append)
    assert [s.step for s in states] == [1, 2, 3, 4, 5] and states[-1].n_steps == 5
    assert states[-1].nfe == 9 and states[0].sigma == pytest.approx(2.0)
    assert x.shape == states[-1].volume.shape


def test_dds_works_on_complex_volumes() -> None:
    y = HALF(torch.randn(5, N, N, dtype=torch.complex64, generator=torch.Generator().manual_seed(2)))
    x = dds(denoise, HALF, y, karras_sigmas(20, 5.0, 0.01), noise=KeyedNoise(), lam=0.0)
    assert x.dtype == torch.complex64
    torch.testing.assert_close(HALF(x), y, rtol=0, atol=2e-3)


def test_noise_is_keyed_by_slice() -> None:
    noise = KeyedNoise(seed=5, volume="v", sample=1)
    whole = noise(3, (6, 8, 8))
    assert torch.equal(noise(3, (2, 8, 8), slices=[4, 1]), whole[[4, 1]])
    assert torch.equal(whole, KeyedNoise(5, "v", 1)(3, (6, 8, 8)))
    others = [noise(4, (6, 8, 8)), noise(3, (6, 8, 8), stream=1), KeyedNoise(6, "v", 1)(3, (6, 8, 8))]
    others += [KeyedNoise(5, "w", 1)(3, (6, 8, 8)), KeyedNoise(5, "v", 2)(3, (6, 8, 8)), whole.roll(1, 0)]
    for other in others:
        assert abs(float(torch.corrcoef(torch.stack((whole.flatten(), other.flatten())))[0, 1])) < 0.25
    big = noise(0, (50, 32, 32))
    assert abs(float(big.mean())) < 0.02 and float(big.std()) == pytest.approx(1, abs=0.02)


def test_schedules_fall_from_end_to_end() -> None:
    for sigmas in (geometric_sigmas(9, 10.0, 0.1), karras_sigmas(9, 10.0, 0.1)):
        assert float(sigmas[0]) == pytest.approx(10.0) and float(sigmas[-1]) == pytest.approx(0.1)
        assert bool((sigmas.diff() < 0).all())
    ratios = geometric_sigmas(9, 10.0, 0.1)[1:] / geometric_sigmas(9, 10.0, 0.1)[:-1]
    torch.testing.assert_close(ratios, ratios[:1].expand(8))
    with pytest.raises(InputError, match="steps"):
        karras_sigmas(0, 1.0, 0.1)
    with pytest.raises(InputError, match="sigma_max"):
        geometric_sigmas(3, 0.1, 1.0)
