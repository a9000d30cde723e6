"""Which of two priors finds slices more probable: against the densities of Gaussian priors."""

import math

import pytest
import torch
from torch import Tensor

from lightning_mbir.methods.evidence import log_evidence
from lightning_mbir.samplers import KeyedNoise

ALL = [10 ** (k / 8 - 3) for k in range(49)]
"""From a thousandth to a thousand: all of the integral."""


class Gaussian:
    """The exact denoiser of pixels ``N(mean, std^2)``."""

    def __init__(self, mean: float, std: float) -> None:
        self.mean, self.std = mean, std

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return self.mean + self.std**2 / (self.std**2 + sigma**2) * (x - self.mean)

    def log_density(self, x: Tensor) -> float:
        """Of a pixel, on average."""
        return float(-((x - self.mean) ** 2).mean() / (2 * self.std**2) - math.log(self.std * math.sqrt(2 * math.pi)))


@pytest.mark.parametrize(
    ("prior", "rival"),
    [
        (Gaussian(0.3, 0.2), Gaussian(0.3, 0.4)),
        (Gaussian(0.3, 0.2), Gaussian(0.5, 0.2)),
        (Gaussian(0.0, 0.5), Gaussian(0.2, 0.1)),
    ],
)
def test_it_is_the_difference_of_the_log_densities(prior: Gaussian, rival: Gaussian) -> None:
    x = 0.3 + 0.2 * torch.randn(16, 128, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = prior.log_density(x) - rival.log_density(x)
    assert abs(exact) > 0.1
    assert log_evidence(x, prior, rival, KeyedNoise(1), ALL) == pytest.approx(exact, rel=0.02)
    assert log_evidence(x, rival, prior, KeyedNoise(1), ALL) == pytest.approx(-exact, rel=0.02)


def test_the_same_prior_has_no_advantage_and_the_same_key_gives_the_same() -> None:
    x = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(0))
    prior, rival = Gaussian(0.5, 0.3), Gaussian(0.0, 1.0)
    assert log_evidence(x, prior, prior, KeyedNoise(0)) == 0
    found = [log_evidence(x, prior, rival, KeyedNoise(0, "v")) for _ in range(2)]
    assert found[0] == found[1] > 0
