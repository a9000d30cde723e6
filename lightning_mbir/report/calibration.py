"""Whether the spread of posterior samples tells the error of their mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

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
        predicted, error: the reliability diagram: root-mean-square predicted deviation and error in bins of equal
            counts, from small to large. Voxels are put in order by the deviation in their neighbourhood of 3 x 3 x 3:
            that of a voxel alone is rough, and its chance would pass for a badly calibrated spread.
    """

    ratio: float
    within: tuple[float, float]
    expected: tuple[float, float]
    predicted: list[float]
    error: list[float]

    @property
    def figures(self) -> dict[str, Any]:
        """The numbers that go into ``metrics.json``."""
        return {
            "ratio": self.ratio,
            "within_1_std": self.within[0],
            "within_2_std": self.within[1],
            "expected_within_1_std": self.expected[0],
            "expected_within_2_std": self.expected[1],
        }


def calibrate(
    mean: Float[Tensor, "z y x"], std: Float[Tensor, "z y x"], truth: Float[Tensor, "z y x"], samples: int
) -> Calibration:
    """Compare the error of the mean of samples with their spread, over all voxels.

    Args:
        mean, std, truth: ``(Z, Y, X)`` in one unit.
        samples: of how many samples mean and standard deviation are.
    """
    import scipy.stats

    error = (mean - truth).abs().flatten()
    factor = math.sqrt(1 + 1 / samples)
    predicted = (std * factor).flatten()
    shares = [float((error <= k * predicted).float().mean()) for k in (1, 2)]
    expected = [float(2 * scipy.stats.t.cdf(k, samples - 1) - 1) for k in (1, 2)]
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
        ratio, (shares[0], shares[1]), (expected[0], expected[1]), [p for p, _ in rms], [e for _, e in rms]
    )
