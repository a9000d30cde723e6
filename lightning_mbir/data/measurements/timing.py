"""When each sample of k-space was taken, counted from the one at zero frequency."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_mbir.data.measurements.readouts import Readouts
from lightning_mbir.errors import InputError

ASK = (
    "give --data.readout_time, the seconds of a readout (1 over the bandwidth of a pixel), and of echo-planar lines "
    "--data.echo_spacing"
)


def grid_times(
    path: Path, shape: tuple[int, int], readout_time: float | None, echo_spacing: float | None = None
) -> Tensor:
    """Seconds ``(Y, X)`` of samples that are read out along y and phase-encoded along x, 0 in the middle.

    Args:
        path: of k-space, for messages.
        shape: ``(Y, X)``.
        readout_time: seconds of a readout; 0 where its samples count as taken at once.
        echo_spacing: of lines that are taken one after the other, seconds from a column to the next, below 0 where the
            last column is the first one; none where each has an excitation of its own.

    Raises:
        InputError: neither of the two.
    """
    if readout_time is None and echo_spacing is None:
        raise InputError(f"{path}: does not tell when its samples were taken; {ASK}")
    rows, columns = shape
    along = (torch.arange(rows) - rows // 2) * ((readout_time or 0.0) / rows)
    across = (torch.arange(columns) - columns // 2) * (echo_spacing or 0.0)
    return along[:, None] + across


def scan_times(image: Readouts, lines: np.ndarray, rows: int, told: tuple[float | None, float | None]) -> Tensor | None:
    """Seconds ``(rows, lines)`` of a scanner's samples, readouts along the first axis.

    Args:
        image: with the lines of an image.
        lines: which of its readouts these are, ``(n,)`` bool.
        rows: points of a readout that are kept.
        told: seconds of a readout, where the header does not have them, and from an echo-planar line to the next one
            that was taken.

    Returns:
        none where neither the header nor ``told`` has what it takes.

    Raises:
        InputError: what the header has as well, lines of several bandwidths, lines that are read both ways, a spacing
            of lines that are no echo train or are taken in another order than that of their numbers.
    """
    readout_time, spacing = told
    dwells = image.dwell[lines]
    if spacing is not None and not image.echo_planar:
        raise InputError(f"--data.echo_spacing {spacing:g}: the lines of {image.path} are no echo train; leave it out")
    if dwells.min() > 0:
        if readout_time is not None:
            raise InputError(f"--data.readout_time {readout_time:g}: {image.path} tells its own; leave it out")
        if not np.allclose(dwells, dwells[0], rtol=1e-3):
            raise InputError(f"{image.path}: its lines have several bandwidths, so that no one map of times is right")
        readout_time = 1e-6 * float(dwells[0]) * image.grid.samples
    if readout_time is None or (image.echo_planar and spacing is None):
        return None
    grid = image.grid
    numbers = image.counters["line"][lines] - grid.center_line + grid.lines // 2
    ways = [set(image.reverse[lines][numbers == number].tolist()) for number in range(grid.lines)]
    if any(len(way) > 1 for way in ways):
        raise InputError(f"{image.path}: lines that are read both ways have no time of their own; leave the map out")
    sign = torch.tensor([-1.0 if way == {True} else 1.0 for way in ways])
    within = (torch.arange(rows) - rows // 2) * (readout_time / rows)
    across = (torch.arange(grid.lines) - grid.lines // 2) * ((spacing or 0.0) / _step(image, lines))
    return within[:, None] * sign + across


def _step(image: Readouts, lines: np.ndarray) -> int:
    """From the number of a line to that of the next one taken of the same slice; 1 where there is no echo train."""
    if not image.echo_planar:
        return 1
    first = np.flatnonzero(lines)[0]
    same = lines & (image.counters["slice"] == image.counters["slice"][first])
    same &= image.counters["average"] == image.counters["average"][first]
    steps = np.unique(np.diff(image.counters["line"][same]))
    if len(steps) != 1 or steps[0] == 0:
        raise InputError(
            f"{image.path}: the lines of a slice are not taken in one train, evenly; give `times` beside b0 in the "
            ".npz or .h5 file of --data.field_map"
        )
    return int(steps[0])
