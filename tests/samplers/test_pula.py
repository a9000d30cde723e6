"""Preconditioned Langevin dynamics against posteriors in closed form, with noise of the measurement."""

import pytest
import torch
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.physics import LinearOperator, RealDomain
from lightning_mbir.samplers import KeyedNoise, geometric_sigmas, pula
from tests.samplers.test_samplers import DEVIATION, HALF, MEAN, Correlated, N, denoise


class Dense(LinearOperator):
    """A matrix on slices of 4 x 4 pixels."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)
        self.domain_shape, self.range_shape = (4, 4), (len(matrix),)
        self.range_complex = self.domain_complex = matrix.is_complex()

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), 16).to(self.matrix.dtype) @ self.matrix.mT

    def adjoint(self, y: Tensor) -> Tensor:
        return (y @ self.matrix.conj()).reshape(len(y), 4, 4)


@pytest.mark.parametrize("gamma", [0.5, 1.0])
@pytest.mark.parametrize("sigma_y", [0.02, 0.2])
def test_noisy_pixels_have_the_deviation_of_their_posterior(gamma: float, sigma_y: float) -> None:
    """Measured or not, within 5 %."""
    n = 400
    generator = torch.Generator().manual_seed(0)
    y = HALF(MEAN + DEVIATION * torch.randn(1, N, N, generator=generator) + sigma_y * torch.randn(1, N, N))
    sigmas = geometric_sigmas(300, 20.0, 0.005)
    x = pula(denoise, HALF, y.expand(n, -1, -1), sigmas, noise=KeyedNoise(1), sigma_y=sigma_y, gamma=gamma)
    precision = DEVIATION**-2 + HALF.mask / sigma_y**2
    mean = (MEAN / DEVIATION**2 + HALF.mask * y[0] / sigma_y**2) / precision
    for wanted in (HALF.mask > 0, HALF.mask == 0):
        ratio = (x.var(0)[wanted] * precision[wanted]).mean().sqrt()
        assert float(ratio) == pytest.approx(1, abs=0.05)
        error = (x.mean(0) - mean)[wanted] * (n * precision[wanted]).sqrt()
        assert float(error.square().mean().sqrt()) < 1.3  # standard errors of the mean, with what the levels leave


@pytest.mark.parametrize("kind", ["real", "complex", "real volume, complex measurement"])
def test_any_operator_has_the_covariance_of_its_posterior(kind: str) -> None:
    """A matrix of few rows, correlated pixels and noise: mean and covariance against a dense solve."""
    generator = torch.Generator().manual_seed(2)
    dtype = torch.float32 if kind == "real" else torch.complex64
    matrix = torch.randn(6, 16, dtype=dtype, generator=generator)
    matrix = matrix / torch.linalg.matrix_norm(matrix, 2)
    operator: LinearOperator = Dense(matrix)
    if kind.startswith("real volume"):
        operator = RealDomain(operator)
    distance = (torch.arange(16)[:, None] - torch.arange(16)[None]).abs()
    covariance, n, s = 0.09 * torch.exp(-distance / 6.0), 1500, 0.05
    truth = torch.randn(1, 4, 4, dtype=torch.complex64 if kind == "complex" else torch.float32, generator=generator)
    y = operator(0.3 * truth)
    sigmas, settings = geometric_sigmas(300, 5.0, 0.01), {"sigma_y": s, "cg_iterations": 16}
    exact = Correlated(covariance)

    def prior(x: Tensor, sigma: float) -> Tensor:
        return torch.complex(exact(x.real, sigma), exact(x.imag, sigma)) if x.is_complex() else exact(x, sigma)

    x = pula(prior, operator, y.expand(n, -1), sigmas, noise=KeyedNoise(3), **settings)  # type: ignore[arg-type]
    inverse = torch.linalg.inv(covariance)
    gram = (matrix.mH @ matrix) if kind == "complex" else (matrix.mH @ matrix).real
    posterior = torch.linalg.inv(inverse.to(gram.dtype) + gram / s**2)
    back = operator.adjoint(y).reshape(16)
    mean = posterior @ back.to(posterior.dtype) / s**2
    samples = x.reshape(n, 16)
    assert float((samples.mean(0) - mean).norm() / mean.norm()) < 0.15
    rest = samples - samples.mean(0)
    found = rest.mT @ rest.conj() / (n - 1)
    assert float((found - posterior).norm() / posterior.norm()) < 0.2
    assert float((found.diagonal().real.sum() / posterior.diagonal().real.sum()).sqrt()) == pytest.approx(1, abs=0.06)


def test_what_makes_no_step_is_refused() -> None:
    y, sigmas = HALF(torch.zeros(2, N, N)), geometric_sigmas(3, 1.0, 0.1)
    with pytest.raises(InputError, match=r"sigma_y is 0; give a positive number"):
        pula(denoise, HALF, y, sigmas, noise=KeyedNoise(), sigma_y=0.0)
    for gamma in (0.0, 1.5):
        with pytest.raises(InputError, match=f"gamma is {gamma:g}; give a number above 0, up to 1"):
            pula(denoise, HALF, y, sigmas, noise=KeyedNoise(), sigma_y=0.1, gamma=gamma)
