"""How a volume forms, level by level, for TensorBoard: error or residual, three planes, speed."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_mbir.data.measurements.measurement import Measurement
from lightning_mbir.data.units import Modality, magnitude_percentile
from lightning_mbir.data.volumes.volume import Volume
from lightning_mbir.physics import LinearOperator
from lightning_mbir.reconstruction.case import Case
from lightning_mbir.report.metrics import PLANES, decibels
from lightning_mbir.report.montage import strip
from lightning_mbir.report.scale import Scale, picture_window
from lightning_mbir.report.sheet import Place, Planes, middle_planes
from lightning_mbir.samplers import SamplerState
from lightning_mbir.slabs import current, from_first, gathered, length, own_inner, total

POINTS, PICTURES = 25, 6
"""Levels at most of which scores and pictures are kept, evenly spread: each costs a projection of the volume."""
CHUNK = 16
"""Slices that are looked at at once."""


@dataclass(frozen=True)
class Point:
    """What is told of one level: scalars by their tags, and a picture ``(height, width, 3)`` of bytes or none."""

    step: int
    scalars: dict[str, float]
    picture: np.ndarray | None


class Course:
    """A callback of samplers that follows one volume, of several samples the first that is taken.

    Of processes that share a volume all have one, since sums over the volume are those of all; the first one draws.

    Args:
        folder: of TensorBoard, into which what comes is written as it comes; without, ``points`` keeps it.

    Attributes:
        run: the run of TensorBoard that it belongs to, a folder in ``folder``.
        points: what is to be written by another process.
        picture: of the result, once it is there.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder, self.run, self.points = folder, "", list[Point]()
        self.picture: np.ndarray | None = None
        self._writer: Any = None
        self._ended = False

    def start(
        self, scan: Volume | Measurement, case: Case, operator: LinearOperator, modality: Modality, peak: float | None
    ) -> None:
        """Be told what is reconstructed.

        Args:
            scan: with the place of the voxels.
            case: the measurement, and the truth where there is one.
            operator: that of the method.
            modality: of the volume.
            peak: of PSNR in physical unit; None for the 99.5th percentile of the truth.
        """
        slab = current()
        self.case, self.operator, self.modality, self.first = case, operator, modality, slab.first
        z, y, x = operator.domain_shape if not operator.separable else (len(case.y), *operator.domain_shape)
        self.shape = (slab.depth if slab.split else z, y, x)
        self.place = Place.of(torch.empty(self.shape, device="meta"), scan.affine, scan.sided)
        self.peak = peak
        if case.truth is not None and peak is None:
            truth = gathered(case.truth)
            self.peak = from_first(magnitude_percentile(truth) if slab.first else 0.0)
        self._energy = length(case.y)
        self._at: tuple[int, int, float] | None = None

    def __call__(self, state: SamplerState) -> None:
        """The callback of samplers."""
        self._ended |= self._at is not None and state.step <= self._at[0]  # another sample begins
        told, drawn = of_level(state.step, state.n_steps)
        if self._ended or not told:
            return
        if state.volume.is_cuda:
            torch.cuda.synchronize(state.volume.device)
        now = time.perf_counter()
        scalars = {**self._errors(state), **self._speed(state, now)}
        if state.sigma:
            scalars["level/sigma"] = state.sigma
        planes = {plane: self._middle(state, plane) for plane in PLANES} if drawn else None
        if self.first:
            picture = None if planes is None else self._picture(state, planes, scalars)
            self._keep(Point(state.step, scalars, picture))
        self._ended = state.step == state.n_steps
        self._at = state.step, state.nfe, time.perf_counter()

    def finish(self, title: str, name: str, image: Tensor, truth: Tensor | None, place: Place, scale: Scale) -> None:
        """Draw the result, below the truth where that is known.

        Args:
            title: what was measured and how it was reconstructed.
            name: of the method.
            image, truth: ``(Z, Y, X)`` in physical unit.
            place: where the voxels lie.
            scale: window and unit.
        """
        rows = [] if truth is None else [("ground truth", middle_planes(truth))]
        self.picture = strip(title, [*rows, (name, middle_planes(image))], place, scale)

    def close(self) -> None:
        """Let go of the file."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def _keep(self, point: Point) -> None:
        if self.folder is None:
            self.points.append(point)
            return
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder / self.run))
        write_point(self._writer, point)

    def _errors(self, state: SamplerState) -> dict[str, float]:
        """PSNR of the volume where the truth is known, the residual, and that over what the noise leaves."""
        case, operator = self.case, self.operator
        step = CHUNK if operator.separable else max(len(state.volume), 1)
        apart, missed = (torch.zeros((), dtype=torch.float64, device=case.y.device) for _ in range(2))
        for k in range(0, len(state.volume), step):
            x = state.physical(state.volume[k : k + step])
            y = case.y[k : k + step] if operator.separable else case.y
            miss = operator(x) - y
            missed += own_inner(miss, miss)
            if case.truth is not None:
                image = x.abs() if x.is_complex() else x
                error = image - case.truth[k : k + step]
                apart += own_inner(error, error)
        apart, missed = total(torch.stack((apart, missed)))
        found = {"level/residual": float(missed.sqrt()) / self._energy if self._energy > 0 else 0.0}
        misfit = case.misfit(found["level/residual"])
        if misfit is not None:
            found["level/misfit"] = misfit
        if case.truth is not None and self.peak is not None:
            ratio = self.peak**2 / max(float(apart) / math.prod(self.shape), 1e-300)
            found["level/psnr"] = min(100.0, 10 * math.log10(ratio)) if ratio != 0 else -math.inf
        return found

    def _speed(self, state: SamplerState, now: float) -> dict[str, float]:
        """Since the last point; not up to the first one, into which preparations count."""
        if self._at is None:
            return {}
        step, nfe, then = self._at
        seconds = max(now - then, 1e-9)
        found = {"speed/levels_per_second": (state.step - step) / seconds}
        if state.nfe > nfe:
            found["speed/slices_per_second"] = self.shape[0] * (state.nfe - nfe) / seconds
        return found

    def _middle(self, state: SamplerState, plane: str) -> np.ndarray:
        """The middle slice of a plane as people look at it, in the first of the processes that share the volume."""
        axis, slab = PLANES[plane], current()
        at, begins = self.shape[axis] // 2, slab.start if slab.split else 0
        if axis == 0 and not begins <= at < begins + len(state.volume):
            found = torch.zeros(self.shape[1:], device=state.volume.device)
        else:
            found = state.physical(state.volume.select(axis, at - begins if axis == 0 else at)).abs().float()
        found = total(found) if axis == 0 else gathered(found)
        return torch.flip(found.cpu(), (0, 1)).numpy() if slab.first else np.empty((0, 0))

    def _picture(self, state: SamplerState, planes: Planes, scalars: dict[str, float]) -> np.ndarray:
        seen = self.peak if self.modality == "mri" and self.peak is not None else None
        values = torch.cat([torch.from_numpy(plane).flatten() for plane in planes.values()])
        window = (0.0, seen) if seen else picture_window(values, self.modality, self.case.calibrated)
        scale = Scale.of(self.modality, window, self.case.calibrated)
        psnr = f", PSNR {decibels(scalars['level/psnr'])}" if "level/psnr" in scalars else ""
        sigma = f", sigma {state.sigma:.3g}" if state.sigma else ""
        told = f"{self.case.name}, level {state.step} of {state.n_steps}{sigma}{psnr}"
        return strip(f"{told}, residual {scalars['level/residual']:.2e}", [("estimate", planes)], self.place, scale)


def write_point(writer: Any, point: Point) -> None:
    """Into the run of a ``SummaryWriter``."""
    for tag, value in point.scalars.items():
        writer.add_scalar(tag, value, point.step)
    if point.picture is not None:
        writer.add_image("planes", point.picture, point.step, dataformats="HWC")
    writer.flush()


def of_level(step: int, n_steps: int) -> tuple[bool, bool]:
    """Whether a level is told of, and whether it is drawn too: the first, the last and others, evenly spread.

    Args:
        step: the level, from 1.
        n_steps: how many there are.
    """
    ends, most = step in (1, n_steps), min(n_steps, POINTS) - 1

    def slots(k: int) -> tuple[int, int]:
        slot = (k - 1) * most // max(n_steps - 1, 1)
        return slot, slot * (PICTURES - 1) // max(most, 1)

    (now, drawn), (before, last) = slots(step), slots(step - 1)
    return ends or now > before, ends or drawn > last
