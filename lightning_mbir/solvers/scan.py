"""What each view and each ray of a scan stands for in a filtered back-projection."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def view_weights(angles: Sequence[float], period: float) -> Float[Tensor, " views"]:
    """Angle in radians that each view stands for: half the way to its neighbours, modulo ``period`` degrees.

    A gap wider than three times the median step is missing data (limited angle), for which the views beside it do
    not stand in.
    """
    values = torch.tensor(angles, dtype=torch.float64) % period
    order = values.argsort()
    ordered = values[order]
    step = torch.diff(ordered, append=ordered[:1] + period)
    usual = _usual(step)
    step = torch.where(step > 3 * usual, usual, step) if len(step) > 2 else step
    weight = (step + step.roll(1)) / 2
    return torch.deg2rad(torch.empty_like(weight).index_copy_(0, order, weight))


def redundancy_weights(angles: Sequence[float], fan: Float[Tensor, " bins"]) -> Float[Tensor, "views bins"]:
    """Share of each ray ``(views, bins)`` among the measurements of the same line in a fan beam's scan.

    The line at fan angle ``gamma`` of the view at ``theta`` is met again at ``-gamma`` from ``theta + 180 - 2 gamma``.
    Half each in a full scan. Otherwise views count less towards the ends of the scan, over 10 degrees, and shares are
    in proportion (Noo et al., "Image reconstruction from fan-beam projections on less than a short scan", Physics in
    Medicine and Biology 47, 2002); a line that is met once has all the weight.

    Args:
        angles: degrees.
        fan: ``(bins,)`` angles of the rays from the central one, in radians.
    """
    values = torch.tensor(angles, dtype=torch.float64) % 360
    ordered = values.sort().values
    step = torch.diff(ordered, append=ordered[:1] + 360)
    usual, widest = _usual(step), int(step.argmax())
    if float(step[widest]) <= 3 * usual or len(values) < 3:
        return torch.full((len(values), len(fan)), 0.5, dtype=torch.float64)
    # Half a step beyond the first and the last view, so that these count a little.
    start = float(ordered[(widest + 1) % len(ordered)]) - usual / 2
    length = 360 - float(step[widest]) + usual
    taper = min(10.0, length / 4)

    def importance(theta: Tensor) -> Tensor:
        inside = (theta - start) % 360
        edge = torch.minimum(inside, length - inside).clamp(0, taper)
        return torch.sin(math.pi / 2 * edge / taper) ** 2

    own = importance(values)[:, None]
    other = importance(values[:, None] + 180 - 2 * torch.rad2deg(fan))
    return own / (own + other)


def _usual(step: Tensor) -> float:
    """The median step; views that several turns have in common count once."""
    return float(step[step > 1e-6].median())
