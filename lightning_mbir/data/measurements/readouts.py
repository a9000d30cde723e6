"""What a scanner wrote, readout by readout, whatever the format of its file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lightning_mbir.errors import InputError

COUNTERS = ("line", "partition", "slice", "average", "echo", "phase", "repetition", "set")
SLACK = 0.01
"""Share of a readout that may lie on the ramps of its gradient."""
CHOSEN = ("echo", "repetition", "set", "phase")
"""Counters of images that are not one volume: one of each is reconstructed."""


@dataclass(frozen=True)
class Grid:
    """The grid of k-space as the file's header tells it.

    Attributes:
        samples: along the readout, oversampling included.
        lines: of the phase encoding.
        center_line: number of the line through zero frequency.
        field_of_view: of the samples and of the lines, in mm.
        kept: mm along the readout that are to be reconstructed.
        thickness: of a slice in mm.
        doubt: why the header is not believed, for a question to the user; empty where it is.
    """

    samples: int
    lines: int
    center_line: int
    field_of_view: tuple[float, float]
    kept: float
    thickness: float
    doubt: str = ""


@dataclass(frozen=True)
class Readouts:
    """All readouts of a measurement: what they are, and how their samples are read.

    Attributes:
        path: the file, for messages.
        grid: of its header.
        counters: ``(n,)`` each, by the names of ``COUNTERS``.
        imaging: ``(n,)`` bool: lines of the image. Likewise ``calibration`` (of parallel imaging alone), ``noise`` and
            ``reverse`` (read from the other end).
        samples, coils: ``(n,)``, the shape of each.
        center: ``(n,)``, the sample at zero frequency.
        unused: ``(n, 2)``, samples at the start and the end that are not to be used.
        dwell: ``(n,)``, duration of a sample in microseconds; 0 where it is not known.
        position: ``(n, 3)`` of the middle of the slice in mm, towards the patient's left, back and head.
        directions: ``(n, 3, 3)``, unit vectors of the readout, the phase encoding and the slices, likewise.
        load: the values of a readout by its number, ``(coils, samples)`` complex.
        coil_names: of the header; empty where it has none.
        noise_bandwidth: of the receiver, relative to one without a filter.
        embedded: whether calibration lines are of the image's own contrast and grid.
        echo_planar: whether several lines are read after one excitation without being refocused.
        notes: what was left out on the way.
    """

    path: Path
    grid: Grid
    counters: dict[str, np.ndarray]
    imaging: np.ndarray
    calibration: np.ndarray
    noise: np.ndarray
    reverse: np.ndarray
    samples: np.ndarray
    coils: np.ndarray
    center: np.ndarray
    unused: np.ndarray
    dwell: np.ndarray
    position: np.ndarray
    directions: np.ndarray
    load: Callable[[int], np.ndarray]
    coil_names: tuple[str, ...] = ()
    noise_bandwidth: float = 1.0
    embedded: bool = True
    notes: tuple[str, ...] = ()
    echo_planar: bool = False


def check_ramps(path: Path, delay: float, ramp_up: float, flat_top: float, duration: float) -> None:
    """Refuse readouts that begin before a gradient has risen or end after it falls: their samples are not even.

    Args:
        path: the file, for messages.
        delay: from where the gradient starts to rise to the first sample; all in microseconds.
        ramp_up: while it rises, and ``flat_top``, while it stays.
        duration: of all samples; 0 where there is no such gradient.

    Raises:
        InputError: samples on a ramp, or times that are none.
    """
    times = (delay, ramp_up, flat_top, duration)
    if not all(np.isfinite(time) and time >= 0 for time in times):
        raise InputError(
            f"{path}: its gradient of the readout takes {', '.join(f'{t:g}' for t in times)} us; correct it"
        )
    before, behind = ramp_up - delay, delay + duration - ramp_up - flat_top
    if duration and max(before, behind) > SLACK * duration:
        raise InputError(
            f"{path}: readouts are sampled on the ramps of the gradient ({max(before, 0):g} us before and "
            f"{max(behind, 0):g} us behind its flat top), so that samples are not even in k-space; regrid them first"
        )


def parse_select(text: str | None, known: tuple[str, ...]) -> dict[str, int]:
    """``"echo=1,repetition=0"`` to ``{"echo": 1, "repetition": 0}``.

    Args:
        text: what the user gave.
        known: what of such a file can be chosen.

    Raises:
        InputError: another form, or what nothing is chosen by.
    """
    chosen: dict[str, int] = {}
    for part in (text or "").replace(",", " ").split():
        name, _, number = part.partition("=")
        if name not in known or name in chosen or not number.isdecimal():
            raise InputError(
                f"--data.select {text}: of such a file give some of {', '.join(known)}, such as echo=1,repetition=0"
            )
        chosen[name] = int(number)
    return chosen


def selected(readouts: Readouts, select: dict[str, int]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Which readouts, ``(n,)`` bool, are of the one image of each slice that is chosen, and notes.

    Raises:
        InputError: several echoes, repetitions, sets or phases of which none is chosen, or one that is not there.
    """
    wanted = readouts.imaging | readouts.calibration
    notes: tuple[str, ...] = ()
    for name in CHOSEN:
        there = np.unique(readouts.counters[name][readouts.imaging]).tolist()
        listed = ", ".join(map(str, there[:8])) + (", ..." if len(there) > 8 else "")
        if name in select and select[name] not in there:
            raise InputError(f"--data.select {name}={select[name]}: {readouts.path} has {name} {listed}")
        if name not in select and len(there) > 1:
            raise InputError(f"{readouts.path}: has {name} {listed}; choose one with --data.select {name}={there[0]}")
        number = select.get(name, there[0])
        extra, here = readouts.calibration & ~readouts.imaging, readouts.counters[name] == number
        wanted &= here if bool((extra & here).any()) else here | extra
        if len(there) > 1:
            notes = (*notes, f"{name} {number} of {listed}")
    return wanted, notes
