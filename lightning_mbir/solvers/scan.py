"""What each view and each ray of a scan stands for in a filtered back-projection."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lightning_mbir.data.measurements.angles import full_turn


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


def displaced(
    angles: Sequence[float], width: float, offset: float, radius: float, distance: Callable[[float], float]
) -> bool:
    """Whether a detector was moved aside to see more: in a full turn, with the axis on it, its shorter side does not
    see the circle inscribed in the image.

    Args:
        angles: degrees.
        width, offset: of the detector, in mm on it.
        radius: of the circle in mm.
        distance: from the axis to the ray of a detector coordinate, both in mm.
    """
    short = width / 2 - abs(offset)
    return offset != 0 and short > 0 and distance(short) < radius * (1 - 1e-6) and full_turn(angles)


def widened(spacing: float, offset: float) -> tuple[int, int, float]:
    """Bins to add before and after a detector off centre so that the axis projects to its middle, to within half a bin,
    and the offset that is left. What is filtered reaches beyond the shorter side, where pixels read it."""
    more = math.ceil(2 * abs(offset) / spacing)
    before, after = (0, more) if offset > 0 else (more, 0)
    return before, after, offset + (before - after) / 2 * spacing


def detector_shares(positions: Float[Tensor, " bins"]) -> Float[Tensor, " bins"]:
    """Share of each bin of a detector off centre in a full turn, which meets the line at ``s`` again at ``-s``.

    Over the overlap, where both are on the detector, it rises from 0 at the end of the shorter side to 1; lines beyond
    are met once (Wang, "X-ray micro-CT with a displaced detector array", Medical Physics 29(7), 2002).

    Args:
        positions: ``(bins,)`` on the detector, at even distances, 0 where the axis projects to.
    """
    step = float(positions[1] - positions[0])
    below, above = step / 2 - float(positions[0]), float(positions[-1]) + step / 2
    along = positions if above > below else -positions
    return (1 + torch.sin(math.pi / 2 * (along / min(below, above)).clamp(-1, 1))) / 2


def _usual(step: Tensor) -> float:
    """The median step; views that several turns have in common count once."""
    return float(step[step > 1e-6].median())
