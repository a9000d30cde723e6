"""Scores of a spread against what they are defined as."""

import math

import pytest
import scipy.integrate
import scipy.stats
import torch

from lightning_mbir.report.calibration import _crps, calibrate, probability_off


@pytest.mark.parametrize(("error", "deviation"), [(0.0, 1.0), (0.7, 0.5), (3.0, 0.2), (0.1, 2.0)])
def test_crps_is_its_integral(error: float, deviation: float) -> None:
    """The squared distance of the distribution from a step at the truth, integrated."""
    below, _ = scipy.integrate.quad(lambda x: scipy.stats.norm.cdf(x, 0, deviation) ** 2, -30, error)
    above, _ = scipy.integrate.quad(lambda x: scipy.stats.norm.sf(x, 0, deviation) ** 2, error, 30)
    found = float(_crps(torch.tensor([error]).double(), torch.tensor([deviation]).double()))
    assert found == pytest.approx(below + above, rel=1e-6)


def test_without_a_spread_crps_is_the_absolute_error() -> None:
    truth = torch.randn(4, 8, 8)
    known = calibrate(torch.zeros(4, 8, 8), torch.zeros(4, 8, 8), truth, 4)
    assert known.crps == pytest.approx(float(truth.abs().mean()), rel=1e-5)
    assert known.figures(2.0)["crps"] == pytest.approx(known.crps / 2)


@pytest.mark.parametrize("samples", [2, 4, 16])
def test_ninety_percent_are_within_the_interval_of_ninety(samples: int) -> None:
    sigma = torch.rand(24, 32, 32) + 0.02
    draws = torch.randn(samples + 1, 24, 32, 32) * sigma
    mean, std, truth = draws[1:].mean(0), draws[1:].std(0), draws[0]
    right = calibrate(mean, std, truth, samples)
    assert right.within_90 == pytest.approx(0.9, abs=0.01)
    assert (
        calibrate(mean, std / 3, truth, samples).within_90
        < 0.75
        < 0.95
        < calibrate(mean, 3 * std, truth, samples).within_90
    )
    best = min((0.5, 1.0, 2.0), key=lambda factor: calibrate(mean, factor * std, truth, samples).crps)
    assert samples == 2 or best == 1.0  # of two samples a deviation is too rough to tell


@pytest.mark.parametrize("samples", [2, 5, 16])
def test_as_many_are_off_as_the_probabilities_say(samples: int) -> None:
    sigma = torch.rand(24, 32, 32) + 0.02
    draws = torch.randn(samples + 1, 24, 32, 32) * sigma
    error = (draws[1:].mean(0) - draws[0]).abs()
    std = draws[1:].std(0)
    ratio = error / (std * math.sqrt(1 + 1 / samples))
    off = probability_off(std, 0.5, samples)
    assert off.dtype == std.dtype and float(off.min()) >= 0 and float(off.max()) <= 1
    exact = 2 * scipy.stats.t.sf(0.5 / (std * math.sqrt(1 + 1 / samples)).numpy(), samples - 1)
    torch.testing.assert_close(off.double(), torch.from_numpy(exact).double(), rtol=1e-4, atol=1e-7)
    for share in (0.05, 0.5):  # an amount that is each voxel's own, so that all have one probability
        amount = float(scipy.stats.t.isf(share / 2, samples - 1))
        assert float((ratio > amount).float().mean()) == pytest.approx(share, abs=0.02)


def test_without_a_spread_nothing_is_off() -> None:
    assert float(probability_off(torch.zeros(2, 3, 3), 0.1, 4).max()) == 0
