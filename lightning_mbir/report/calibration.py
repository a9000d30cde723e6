"""Whether the spread of posterior samples tells the error of their mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lightning_mbir.errors import InputError
from lightning_mbir.kinds import check_kinds
from lightning_mbir.report.metrics import check_alike

BINS = 20


@dataclass(frozen=True)
class Calibration:
    """Whether the spread of samples tells the error of their mean.

    The truth differs from the mean of ``K`` samples by ``(1 + 1/K) sigma^2`` where it is a sample like the others, so
    every predicted deviation has the factor ``sqrt(1 + 1/K)``.

    Attributes:
        ratio: root-mean-square error over root-mean-square predicted deviation: 1 if calibrated, above if the samples
            are too much alike.
        within: shares of the voxels whose error is below 1 and 2 predicted deviations.
        expected: what they would be of Gaussian posteriors, with deviations estimated from ``K`` samples (Student's t).
        within_90: share of the voxels whose error is inside the interval that 90 % of such posteriors would be in.
        crps: continuous ranked probability score (Gneiting and Raftery 2007) of a Gaussian with the predicted
            deviation, mean over the voxels in the volume's unit: the lower the better, both of a mean that is near and
            of a spread that tells how near; without any spread it is the mean absolute error.
        predicted, error: the reliability diagram: root-mean-square predicted deviation and error in bins of equal
            counts, from small to large. Voxels are put in order by the deviation in their neighbourhood of 3 x 3 x 3:
            that of a voxel alone is rough, and its chance would pass for a badly calibrated spread.
    """

    ratio: float
    within: tuple[float, float]
    expected: tuple[float, float]
    within_90: float
    crps: float
    predicted: list[float]
    error: list[float]

    def figures(self, data_range: float) -> dict[str, Any]:
        """The numbers that go into ``metrics.json``, with the CRPS as a share of the data range."""
        return {
            "ratio": self.ratio,
            "within_1_std": self.within[0],
            "within_2_std": self.within[1],
            "expected_within_1_std": self.expected[0],
            "expected_within_2_std": self.expected[1],
            "within_90": self.within_90,
            "crps": self.crps / data_range,
        }


def calibrate(
    mean: Float[Tensor, "z y x"], std: Float[Tensor, "z y x"], truth: Float[Tensor, "z y x"], samples: int
) -> Calibration:
    """Compare the error of the mean of samples with their spread, over all voxels.

    Args:
        mean, std, truth: ``(Z, Y, X)`` in one unit.
        samples: of how many samples mean and standard deviation are.

    Raises:
        InputError: volumes of several shapes, or fewer than two samples.
    """
    check_kinds(calibrate, locals())
    check_alike("calibrate", mean=mean, std=std, truth=truth)
    if samples < 2:
        raise InputError(f"calibrate: samples is {samples}; a deviation is of 2 or more")
    import scipy.stats

    error = (mean - truth).abs().flatten()
    factor = math.sqrt(1 + 1 / samples)
    predicted = (std * factor).flatten()
    shares = [float((error <= k * predicted).float().mean()) for k in (1, 2)]
    expected = [float(2 * scipy.stats.t.cdf(k, samples - 1) - 1) for k in (1, 2)]
    within_90 = float((error <= float(scipy.stats.t.ppf(0.95, samples - 1)) * predicted).float().mean())
    variance = (std * factor).square()[None, None]
    # Padded here: torch takes no volume that is thinner than its window, whatever the padding.
    total, count = (F.avg_pool3d(F.pad(x, (1,) * 6), 3, stride=1) for x in (variance, torch.ones_like(variance)))
    local = (total / count).flatten()
    order = torch.argsort(local)
    rms = [
        (float(local[part].mean().sqrt()), float(error[part].square().mean().sqrt()))
        for part in torch.tensor_split(order, BINS)
        if len(part)
    ]
    ratio = float(error.square().mean().sqrt() / predicted.square().mean().sqrt().clamp_min(1e-30))
    return Calibration(
        ratio=ratio,
        within=(shares[0], shares[1]),
        expected=(expected[0], expected[1]),
        within_90=within_90,
        crps=float(_crps(error.double(), predicted.double()).mean()),
        predicted=[p for p, _ in rms],
        error=[e for _, e in rms],
    )


def _crps(error: Tensor, deviation: Tensor) -> Tensor:
    """Of a Gaussian; ``error`` is the distance of the truth from its mean."""
    deviation = deviation.clamp_min(1e-30)
    z = error / deviation
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return deviation * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))


def probability_off(std: Float[Tensor, "z y x"], amount: float, samples: int) -> Float[Tensor, "z y x"]:
    """Probability that the mean of samples is off by more than an amount, voxel by voxel.

    Of a Gaussian error with the deviation that the samples predict, ``sqrt(1 + 1/K)`` times theirs. As that is itself
    estimated from ``K`` of them, the error over it has Student's t distribution with ``K - 1`` degrees of freedom.

    Args:
        std: ``(Z, Y, X)``, standard deviation of the samples.
        amount: above 0, in the unit of ``std``.
        samples: of how many samples it is.
    """
    from scipy.special import stdtr

    deviation = std.double() * math.sqrt(1 + 1 / samples)
    below = stdtr(samples - 1, (-amount / deviation.clamp_min(1e-30)).cpu().numpy())
    return torch.from_numpy(2 * below).to(std)
