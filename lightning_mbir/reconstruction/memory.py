"""How much memory a piece of work took at its peak, and how much a reconstruction will take."""

from __future__ import annotations

import contextlib
import ctypes
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from lightning_mbir.free_memory import free_memory
from lightning_mbir.methods.method import Method
from lightning_mbir.physics import LinearOperator
from lightning_mbir.prior import SliceDenoiser
from lightning_mbir.slabs import current
from lightning_mbir.solvers.admm_tv import SLAB

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
INTERVAL = 0.01
TOLD = 256 << 20
"""Bytes from which on it is worth a line what a run will take."""


def needed_memory(
    method: Method,
    operator: LinearOperator,
    y: Tensor,
    priors: Sequence[SliceDenoiser] = (),
    weights: Tensor | None = None,
    samples: int = 1,
    device: torch.device | None = None,
) -> int | None:
    """Bytes that a reconstruction takes at its peak beyond operator, measurement and network; None of a method that
    does not tell.

    With ``V`` the bytes of a volume and ``M`` those of the measurement, in the type of the work: ``v V + m M`` of the
    method, and ``s (V + M)`` of the slices that it works on at a time (``Method.memory``), or of a method that does not
    the ``working`` of the operator, ``2 M`` where there are weights, ``4 V`` for mean and spread of several samples,
    and what a batch of slices takes in the network (docs/scale.md).

    Args:
        method: what is run.
        operator: of the measurement.
        y: measurement.
        priors: those that the method runs.
        weights: of the measurement.
        samples: how many are taken.
        device: where all of it is; where ``y`` is by default, which may be one that is not there yet (``meta``).
    """
    if method.memory is None:
        return None
    device = y.device if device is None else device
    shape = operator.domain_shape if len(operator.domain_shape) == 3 else (len(y), *operator.domain_shape)
    voxels = math.prod(shape)
    volume, data = voxels * operator.dtype.itemsize, y.numel() * operator.range_dtype.itemsize
    slabs = operator.separable and weights is None  # which couple slices as a cone beam does
    at_once = min(1.0, max(SLAB.get(device.type, 2**24) / voxels, operator.at_once / shape[0])) if slabs else 1.0
    volumes, measurements, of_slabs = method.memory
    taken = volumes * volume + measurements * data + of_slabs * at_once * (volume + data)
    taken += operator.working * data * (of_slabs == 0)
    taken += 2 * data * (weights is not None) + 4 * volume * (samples > 1)
    gradients = "gradients" in method.needs
    return int(taken + max((prior.bytes_for(shape, device, gradients) for prior in priors), default=0))


def told_memory(needed: int, device: torch.device, of_slabs: int = 0) -> tuple[str, bool] | None:
    """A line on what a run will take, and whether that is more than there is; None where it is not worth one.

    Args:
        needed: bytes.
        device: where these are.
        of_slabs: bytes of ``device`` where volumes stay in host memory, of which ``needed`` are then.
    """
    host = torch.device("cpu") if of_slabs else device
    free = free_memory(host)
    lacking = needed > free
    if needed < TOLD and not lacking:
        return None
    a_process = " a process" if current().split else ""
    line = f"needs about {_gib(needed)} GiB of memory{a_process}, {_gib(free)} are free"
    if of_slabs:
        there = free_memory(device)
        line = f"{line}, and {_gib(of_slabs)} GiB of {device}, {_gib(there)} are free"
        lacking |= of_slabs > there
    if lacking:
        line += "; --data.image_size, --data.slices or more devices (--split slices) make it less"
    return line, lacking


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f}"


class PeakMemory:
    """Measures the work of a ``with`` block, in ``bytes``: what was taken beyond what was there at its start.

    CUDA: memory of tensors on the device. CPU: resident memory of the process, which other threads share; from the
    kernel's own high-water mark where it can be reset, else sampled every 10 ms. None where there is no ``/proc``.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes: int | None = None
        self._sampled = False

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._start = torch.cuda.memory_allocated(self.device)
            return self
        with contextlib.suppress(OSError, AttributeError):  # glibc alone; memory it keeps would hide what is taken next
            ctypes.CDLL(None).malloc_trim(0)
        try:
            CLEAR.write_text("5")
        except OSError:
            self._sampled = STATUS.exists()
        self._start = self._highest = _status("VmRSS")
        if self._sampled:
            self._stop = threading.Event()
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.bytes = torch.cuda.max_memory_allocated(self.device) - self._start
            return
        if self._sampled:
            self._stop.set()
            self._thread.join()
        elif STATUS.exists():
            self._highest = _status("VmHWM")
        if STATUS.exists():
            self.bytes = max(0, self._highest - self._start)

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL):
            self._highest = max(self._highest, _status("VmRSS"))


def _status(name: str) -> int:
    """A figure of ``/proc/self/status`` in bytes; 0 where there is none."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)
