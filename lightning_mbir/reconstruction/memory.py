"""How much memory a piece of work took at its peak."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from pathlib import Path
from types import TracebackType

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
INTERVAL = 0.01


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
