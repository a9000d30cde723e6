"""From the readouts of a scanner to centred k-space of slices: noise, turned lines, averages, oversampling, places."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_mbir.data.measurements.kspace import crop_readout, told_sampling
from lightning_mbir.data.measurements.orientation import Stack, slice_order, slice_stack, turned
from lightning_mbir.data.measurements.readouts import Readouts, selected
from lightning_mbir.data.measurements.selection import chosen_slices
from lightning_mbir.data.measurements.timing import scan_times
from lightning_mbir.data.measurements.whitening import scan_covariance, whitening_matrix
from lightning_mbir.errors import InputError
from lightning_mbir.free_memory import check_fits


@dataclass(frozen=True)
class Scan:
    """K-space of a scan as it was read.

    Attributes:
        y: ``(Z, Y, X)`` or ``(Z, coils, Y, X)``, complex64, zero where nothing was measured.
        mask: ``(Y, X)``, or ``(Z, Y, X)`` where slices differ, of zeros and ones.
        phase_axis: ``"x"`` or ``"y"``, along which phase was encoded.
        calibration: of ``y``'s shape, lines that were measured for the coil maps alone.
        affine: of the volume, from ``(x, y, z)`` to mm; ``sized`` whether the distance of the slices is known.
        notes: what was done.
        noise_std: standard deviation of the noise in each part; 0 where it is not known.
        question: what the file leaves open.
        sided: whether the affine tells left from right.
        times: seconds ``(Y, X)`` of each sample, from that at zero frequency; none where they are not known.
    """

    y: Tensor
    mask: Tensor
    phase_axis: str
    calibration: Tensor | None
    affine: np.ndarray
    sized: bool
    notes: tuple[str, ...]
    noise_std: float
    question: str
    sided: bool
    times: Tensor | None = None


def read_scan(
    image: Readouts,
    noise: Readouts | None = None,
    select: dict[str, int] | None = None,
    slices: tuple[int, int] | None = None,
    oversampling: float | None = None,
    whiten: bool = True,
    timing: tuple[float | None, float | None] | None = None,
) -> Scan:
    """K-space of the slices of one image, as they lie from foot to head (or to the right, or to the front).

    A line is whitened, turned where it was read from its other end, put to where the header says, and averaged with
    those of the same number. The readout is cut to the field of view that is to be reconstructed. Lines that were not
    measured, such as those of partial Fourier, are zero.

    Args:
        image: with the lines of an image.
        noise: with a noise scan; that of ``image`` where it has one.
        select: which echo, repetition, set and phase.
        slices: which ones, from the first to before the last, in the order in which they lie; all by default.
        oversampling: how many times the field of view is read out; what the header says by default.
        whiten: whether a noise scan is used.
        timing: what the user tells of ``Scan.times``, see ``scan_times``; without it they are left out.

    Raises:
        InputError: no image, no field of view, several images of which none is chosen, slices that are not there,
            readouts of several lengths or numbers of coils, samples or lines off the grid, values that are not finite,
            too little memory; see ``scan_times``.
    """
    path, grid = image.path, image.grid
    if not image.imaging.any():
        raise InputError(f"{path}: has no lines of an image")
    if not min(grid.field_of_view) > 0:
        raise InputError(f"{path}: its header does not tell the field of view, so pixels have no size")
    used, notes = selected(image, select or {})
    used &= image.embedded | image.imaging
    lines = used & image.imaging
    if not lines.any():  # of that echo and repetition together
        raise InputError(f"{path}: has no lines of an image")
    if len(set(image.coils[used].tolist())) > 1 or int(image.counters["partition"][lines].max()) > 0:
        what = "partitions along z" if int(image.counters["partition"][lines].max()) > 0 else "numbers of coils"
        raise InputError(f"{path}: its lines are of several {what}; slices of one set of coils are read alone")
    if not (np.isfinite(image.position[lines]).all() and np.isfinite(image.dwell[lines]).all()):
        raise InputError(f"{path}: has lines whose position or duration is not finite; correct its header")
    numbers, firsts = np.unique(image.counters["slice"][lines], return_index=True)
    firsts = np.flatnonzero(lines)[firsts]
    order = slice_order(image.position[firsts], image.directions[firsts])
    chosen, more = chosen_slices(path, slices, len(order))
    order = order[chosen]
    weights, noise_notes = _whitening(image, noise, lines) if whiten else (None, ())
    rows, cut_notes = _rows(image, lines, oversampling)
    coils = int(image.coils[lines][0])
    size = 8 * len(order) * coils * rows * grid.lines + 16 * coils * grid.samples * grid.lines
    check_fits(f"{path}: its k-space", size, "take fewer slices (--data.slices)")
    y = torch.zeros(len(order), coils, rows, grid.lines, dtype=torch.complex64)
    counts = torch.zeros(len(order), rows, grid.lines)
    for z, number in enumerate(numbers[order]):
        of_slice = used & (image.counters["slice"] == number)
        y[z], counts[z] = _slice(image, of_slice, weights, rows)
    separate = image.calibration & ~image.imaging
    calibration = None
    if separate.any() and not image.embedded:
        calibration, at = torch.zeros_like(y), separate & (image.samples == image.samples[lines][0])
        for z, number in enumerate(numbers[order]):
            calibration[z], _ = _slice(image, at & (image.counters["slice"] == number), weights, rows)
        notes = (*notes, f"{at.sum()} lines of a calibration scan used for the coil maps alone")
    elif separate.any():
        notes = (*notes, f"{separate.sum()} lines of calibration used")
    pixel = (
        grid.kept / rows if oversampling else grid.field_of_view[0] / grid.samples,
        grid.field_of_view[1] / grid.lines,
    )
    stack = slice_stack(
        path, image.position[firsts][order], image.directions[firsts][order], (rows, grid.lines), pixel, grid.thickness
    )
    said = (*image.notes, *more, *notes, *noise_notes, *cut_notes, *_said(image, used, counts))
    times = None if timing is None else scan_times(image, lines, rows, timing)
    scan = _laid(y, counts, calibration, stack, said, weights is not None, _question(image, oversampling))
    return scan if times is None else replace(scan, times=turned([times], stack.affine)[0][0])


def _laid(
    y: Tensor,
    counts: Tensor,
    calibration: Tensor | None,
    stack: Stack,
    notes: tuple[str, ...],
    white: bool,
    question: str,
) -> Scan:
    """K-space turned to where its slices lie, with what is known of its noise."""
    y = y[:, 0] if y.shape[1] == 1 else y
    arrays, affine, axis = turned([y, counts, *([] if calibration is None else [calibration])], stack.affine)
    y, counts = arrays[0], arrays[1]
    by_slice = counts > 0
    mask = by_slice[0] if bool((by_slice == by_slice[:1]).all()) else by_slice
    # E |n|^2 = 1 of white noise, over the number of averages.
    std = math.sqrt(float((1 / counts[by_slice]).double().mean()) / 2) if white else 0.0
    other = None if calibration is None else arrays[2]
    told = (*notes, told_sampling(mask), *stack.notes)
    return Scan(y, mask.float(), axis, other, affine, stack.sized, told, std, question, stack.sided)


def _question(image: Readouts, oversampling: float | None) -> str:
    if not image.grid.doubt or oversampling is not None:
        return ""
    return (
        f"{image.path}: {image.grid.doubt}, so it may not tell the field of view either; say how many times the "
        "readout is oversampled, with --data.oversampling 1 or 2"
    )


def _whitening(image: Readouts, noise: Readouts | None, lines: np.ndarray) -> tuple[np.ndarray | None, tuple[str, ...]]:
    source = noise if noise is not None else image
    if noise is None and not image.noise.any():
        return None, ()
    samples = int(source.samples[source.noise].sum())
    weights = whitening_matrix(scan_covariance(source, image, lines)).astype(np.complex64)
    coils = len(weights)
    dwells = source.dwell[source.noise], image.dwell[lines]
    bandwidth = "" if min(dwell.min() for dwell in dwells) > 0 else ", as if its bandwidth were that of the image"
    where = "" if noise is None or noise.path == image.path else f" of {Path(noise.path).name}"
    return weights, (f"noise of {coils} coils whitened by its covariance, from {samples} samples{where}{bandwidth}",)


def _rows(image: Readouts, lines: np.ndarray, oversampling: float | None) -> tuple[int, tuple[str, ...]]:
    """How many points along the readout are kept."""
    grid = image.grid
    share = grid.kept / grid.field_of_view[0] if grid.field_of_view[0] > 0 else 1.0
    if oversampling is not None:
        if not 1 <= oversampling <= 8:
            raise InputError(f"--data.oversampling {oversampling:g}: give from 1 to 8")
        share = 1 / oversampling
    elif grid.doubt:
        share = 1.0
    wanted = round(grid.samples * share)
    if not 0 < wanted < grid.samples:
        return grid.samples, ()
    if bool((_kept(image, lines) < grid.samples).any()):
        return grid.samples, ("readout not cut to the field of view, since parts of readouts were not measured",)
    return wanted, (f"readout cut from {grid.samples} to {wanted} pixels",)


def _kept(image: Readouts, which: np.ndarray) -> np.ndarray:
    return np.asarray(image.samples[which] - image.unused[which].sum(1))


def _slice(image: Readouts, which: np.ndarray, weights: np.ndarray | None, rows: int) -> tuple[Tensor, Tensor]:
    """``(coils, rows, lines)`` of a slice, and how many readouts each point is the mean of."""
    grid = image.grid
    total = np.zeros((int(image.coils[which][0]) if which.any() else 1, grid.samples, grid.lines), np.complex64)
    counts = np.zeros((grid.samples, grid.lines), np.float32)
    imaged = set(image.counters["line"][which & image.imaging].tolist())
    for k in np.flatnonzero(which).tolist():
        number = int(image.counters["line"][k])
        if image.calibration[k] and not image.imaging[k] and number in imaged:
            continue
        line = number - grid.center_line + grid.lines // 2
        place, part = _place(image, k)
        if not 0 <= line < grid.lines:
            raise InputError(f"{image.path}: line {number} is off the grid of {grid.lines}; correct the header")
        values = image.load(k)
        if values.shape != (len(total), image.samples[k]) or not np.isfinite(values).all():
            raise InputError(f"{image.path}: readout {k} is damaged, or has NaN or infinite values")
        values = values if weights is None else weights @ values
        total[:, place, line] += (values[:, ::-1] if image.reverse[k] else values)[:, part]
        counts[place, line] += 1
    y = torch.from_numpy(total / np.maximum(counts, 1))
    found = torch.from_numpy(counts)
    return (crop_readout(y, rows), found[:rows]) if rows < grid.samples else (y, found)


def _place(image: Readouts, k: int) -> tuple[slice, slice]:
    """Where a readout, turned if it has to be, lies on the grid, and which part of it."""
    samples, grid = int(image.samples[k]), image.grid
    center, before, after = int(image.center[k]), int(image.unused[k, 0]), int(image.unused[k, 1])
    if image.reverse[k]:
        ahead = np.flatnonzero(~image.reverse & image.imaging & (image.samples == samples))
        forward = int(image.center[ahead[0]]) if len(ahead) else samples // 2
        # Counted in the order of the samples, or already in that of the turned line: writers do either.
        if center not in (forward, samples - 1 - forward):
            raise InputError(
                f"{image.path}: reversed readout {k} has its centre at sample {center}, the others at {forward}; "
                "correct the header"
            )
        center, before, after = forward, after, before
    if center == 0 and samples == grid.samples:  # never written
        center = samples // 2
    start = grid.samples // 2 - center
    if before + after >= samples or start + before < 0 or start + samples - after > grid.samples:
        raise InputError(
            f"{image.path}: readout {k} of {samples} samples with its centre at {center} does not fit the header's "
            f"{grid.samples}; correct the header"
        )
    return slice(start + before, start + samples - after), slice(before, samples - after)


def _said(image: Readouts, used: np.ndarray, counts: Tensor) -> tuple[str, ...]:
    notes: tuple[str, ...] = ()
    measured = counts[counts > 0]
    if float(measured.max()) > 1:
        least, most = int(measured.min()), int(measured.max())
        notes = (f"{most} averages" if least == most else f"{least} to {most} averages",)
    if bool((image.reverse & used).any()):
        notes = (
            *notes,
            f"{(image.reverse & used).sum()} reversed readouts turned, without a correction of their phase",
        )
    if image.grid.doubt:
        notes = (*notes, image.grid.doubt)
    return notes
