"""Where on the detector the rotation axis is projected, found from the sinograms themselves."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lightning_mbir.data.measurements.angles import SAME, from_start, full_turn
from lightning_mbir.data.measurements.opposite_rays import Fan, center_of_opposite_rays
from lightning_mbir.errors import InputError

MARGIN = 4  # angular frequencies beside the double wedge that leak out of it through the end of the scan

ROWS = 8  # sinograms that the search looks at


ASIDE = 0.1
"""Share of the half of a detector by which it has to be off to count as moved aside."""


def find_rotation_center(sinograms: Tensor, angles: np.ndarray, fan: Fan | None = None) -> float:
    """The bin, as a fraction, that the rotation axis falls on.

    Where views are all around, and of a fan, lines are compared with those that come the other way: see
    ``center_of_opposite_rays``. Half a turn of parallel rays has none of these.

    There the start is the mean of the centre of mass of each view, which moves on a sine about it (the first
    Helgason-Ludwig condition). From there it is the centre for which the scan and its mirrored copy, half a turn later,
    make the best full turn: the one with the least energy outside the double wedge that the spectrum of a sinogram is
    confined to (Vo et al., "Reliable method for calculating the center of rotation in parallel-beam tomography", Optics
    Express 22(16), 2014).

    Args:
        sinograms: ``(Z, views, bins)`` line integrals of an object inside the field of view; in a full turn, inside
            what the longer side of the detector sees.
        angles: of the views in degrees, evenly spread over half a turn or more, in any order.
        fan: the distance of the source; none for parallel rays.

    Raises:
        InputError: fewer than 8 views, or views that do not cover half a turn evenly; of a fan, too few rays that are
            measured from both sides.
    """
    if fan is not None or (full_turn(angles) and len(angles) >= 8):
        return center_of_opposite_rays(sinograms[:: math.ceil(len(sinograms) / ROWS)].numpy(), angles, fan)
    places = from_start(angles)
    order = np.argsort(places, kind="stable")
    order = order[places[order] < 180 - SAME]
    angles = places[order]
    steps = np.diff(angles)
    if len(angles) < 8 or np.ptp(steps) > 0.1 * steps.mean() or abs(steps.sum() + steps.mean() - 180) > steps.mean():
        raise InputError(
            "the rotation centre can be searched where 8 views or more cover 180 degrees evenly; give it with "
            "--data.rotation_center (in bins, counted from 0)"
        )
    views = sinograms[:: math.ceil(len(sinograms) / ROWS), order].double()
    start = _mean_centre_of_mass(views, np.deg2rad(angles))
    bins = views.shape[-1]
    reach = max(4, round(0.04 * bins))
    center, step = start, 1.0
    for half in (reach, 10, 10):  # whole bins, tenths, hundredths
        candidates = center + step * np.arange(-half, half + 1)
        center = float(min(candidates, key=lambda c: _energy_outside(views, float(c))))
        step /= 10
    return center


def seen_bins(bins: int, center: float, turn: bool) -> tuple[float, tuple[str, ...]]:
    """How wide, in bins, what a detector sees is, and a note where that is more than itself.

    Args:
        bins: of the detector.
        center: the bin of the axis.
        turn: whether views are all around. A detector that was moved aside then sees twice its longer side.
    """
    longer = max(center + 0.5, bins - 0.5 - center)
    if not turn or longer - bins / 2 <= ASIDE * bins / 2:
        return float(bins), ()
    return 2 * longer, (
        f"the detector is off the axis: slices reach as far as its longer side, over {2 * longer:.0f} bins",
    )


def _mean_centre_of_mass(views: Tensor, angles: np.ndarray) -> float:
    """The constant of the sine that the centre of mass of the views moves on."""
    bins = views.shape[-1]
    mass = views.sum(-1)
    centre = ((views * torch.arange(bins, dtype=views.dtype)).sum(-1) / mass).mean(0).numpy()
    sine = np.stack([np.ones_like(angles), np.cos(angles), np.sin(angles)], 1)
    value = float(np.linalg.lstsq(sine, centre, rcond=None)[0][0])
    return value if 0.25 * bins < value < 0.75 * bins else (bins - 1) / 2


def _energy_outside(views: Tensor, center: float) -> float:
    """Mean amplitude of the full turn's spectrum outside its double wedge."""
    bins = views.shape[-1]
    half_turn = views.shape[-2]
    # View theta + 180 at bin s is view theta at bin 2 center - s: flipped, and moved by a fraction of a bin.
    shift = 2 * center - (bins - 1)
    frequency = torch.fft.rfftfreq(2 * bins, dtype=views.dtype)
    spectrum = torch.fft.rfft(views.flip(-1), 2 * bins) * torch.exp(-2j * math.pi * shift * frequency)
    mirrored = torch.fft.irfft(spectrum, 2 * bins)[..., :bins]
    turn = torch.fft.fft2(torch.cat((views, mirrored), -2)).abs()
    around = torch.fft.fftfreq(2 * half_turn, 1 / (2 * half_turn), dtype=views.dtype)[:, None].abs()
    along = torch.fft.fftfreq(bins, dtype=views.dtype)[None].abs()
    outside = (around > math.pi * bins * along + MARGIN) & (along < 0.25)
    return float(turn[..., outside].mean())
