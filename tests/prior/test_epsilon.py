"""A network of noise gives the posterior mean that it would give as one of ours."""

import pytest
import torch
from torch import Tensor, nn

from lightning_mbir.errors import InputError
from lightning_mbir.prior import EpsilonNetwork, SliceDenoiser, Unit
from lightning_mbir.prior.epsilon import Predicts

ABAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
MEAN, DEVIATION = -0.4, 0.3  # of clean slices in [-1, 1]


class GaussianVP(nn.Module):
    """The best prediction for pixels ``N(MEAN, DEVIATION^2)`` from ``x_t``, in closed form, between steps too."""

    def __init__(self, predicts: Predicts) -> None:
        super().__init__()
        self.predicts = predicts

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        ratio = (((1 - ABAR) / ABAR).sqrt()).log()
        below = t.long().clamp(max=len(ABAR) - 2)
        level = torch.lerp(ratio[below], ratio[below + 1], t.double() - below).exp().view(-1, 1, 1, 1)
        kept = (1 + level**2).rsqrt()
        clean = MEAN + DEVIATION**2 / (DEVIATION**2 + level**2) * (x / kept - MEAN)
        noise = (x - kept * clean) / (1 - kept**2).sqrt()
        return {"x0": clean, "epsilon": noise, "v": kept * noise - (1 - kept**2).sqrt() * clean}[self.predicts]


@pytest.mark.parametrize("predicts", ["epsilon", "v", "x0"])
@pytest.mark.parametrize("sigma", [0.03, 0.4, 7.0])
def test_it_is_the_posterior_mean(predicts: Predicts, sigma: float) -> None:
    """Of slices in [0, 1], where the Gaussian has half the deviation."""
    network = EpsilonNetwork(GaussianVP(predicts), ABAR, predicts=predicts, stride=1).double()
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    mean, deviation = (MEAN + 1) / 2, DEVIATION / 2
    wanted = mean + deviation**2 / (deviation**2 + sigma**2) * (x - mean)
    torch.testing.assert_close(network(x, torch.full((3,), sigma)), wanted, rtol=2e-3, atol=2e-3)


def test_steps_are_those_of_the_noise() -> None:
    network = EpsilonNetwork(GaussianVP("epsilon"), ABAR)
    levels = ((1 - ABAR) / ABAR).sqrt().float()
    torch.testing.assert_close(network.step(levels[[0, 10, 999]]), torch.tensor([0.0, 10, 999]), atol=1e-2, rtol=1e-4)
    assert float(network.step(levels[10:12].mean()[None])) == pytest.approx(10.5, abs=0.1)
    assert network.step(torch.tensor([1e9])).item() == 999  # beyond the last it stays there
    whole = EpsilonNetwork(GaussianVP("epsilon"), ABAR, whole_steps=True)
    assert whole.step(levels[[3, 700]]).tolist() == [3, 700] and whole.step(levels[:1]).dtype == torch.long


def test_an_answer_with_a_sample_is_taken_for_that() -> None:
    class Output:
        def __init__(self, sample: Tensor) -> None:
            self.sample = sample

    class Wrapped(GaussianVP):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return Output(super().forward(x, t))  # type: ignore[return-value]

    x, sigma = torch.randn(2, 1, 4, 4), torch.full((2,), 0.5)
    plain, wrapped = (EpsilonNetwork(kind("epsilon"), ABAR)(x, sigma) for kind in (GaussianVP, Wrapped))
    assert torch.equal(plain, wrapped)


def test_it_makes_a_prior() -> None:
    prior = SliceDenoiser(EpsilonNetwork(GaussianVP("epsilon"), ABAR, stride=4), Unit.of("ct"), "ct", slice_batch=2)
    x = torch.randn(5, 10, 9)
    assert prior(x, 0.3).shape == x.shape and not prior.complex


@pytest.mark.parametrize("wrong", [torch.linspace(0.1, 0.9, 5), torch.tensor([0.9]), torch.tensor([0.5, 0.0])])
def test_what_is_no_schedule_is_refused(wrong: Tensor) -> None:
    with pytest.raises(InputError, match="alphas_cumprod must fall"):
        EpsilonNetwork(GaussianVP("epsilon"), wrong)
    with pytest.raises(InputError, match="epsilon or v or x0"):
        EpsilonNetwork(GaussianVP("epsilon"), ABAR, predicts="score")  # type: ignore[arg-type]
