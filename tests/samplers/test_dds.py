"""What ``sigma_y`` of dds does: the measurement weighed against the prior."""

from typing import Any

import pytest
import torch

from lightning_mbir.errors import InputError
from lightning_mbir.samplers import KeyedNoise, dds, karras_sigmas
from tests.samplers.test_samplers import DEVIATION, HALF, MEAN, SHAPE, N, denoise


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
