"""Volumes that stay in host memory, and pass through a device some slices at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Num
from torch import Tensor

from lightning_mbir.errors import InputError


@dataclass(frozen=True)
class HostSlabs:
    """That a volume and all that a method keeps of it stay in host memory, and where the work on its slices is done.

    Attributes:
        device: what the operator and the networks work on, such as ``"cuda"``.
        slices: how many pass through the operator at a time; networks have slice batches of their own.

    Raises:
        InputError: fewer than one slice.
    """

    device: torch.device
    slices: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "device", torch.device(self.device))
        if self.slices < 1:
            raise InputError(f"HostSlabs: {self.slices} slices at a time; give at least 1")


def sent(x: Num[Tensor, "*shape"], device: torch.device) -> Num[Tensor, "*shape"]:
    """A part of a tensor in host memory on a device; to a GPU by page-locked memory, and without waiting for it."""
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)


class Arriving:
    """Results that come from a device into ``out``, a tensor in host memory.

    Those of a GPU are on their way while the next ones are worked out: each is waited for, and copied out of the
    page-locked memory that it arrives in, when the next one has been queued.
    """

    def __init__(self, out: Num[Tensor, "*shape"]) -> None:
        self.out = out
        self._last: tuple[Any, Tensor, torch.cuda.Event] | None = None

    def put(self, at: Any, part: Num[Tensor, "*part"]) -> None:
        """``out[at] = part``, in the order of the calls."""
        if not (part.is_cuda and self.out.device.type == "cpu"):
            self.out[at] = part.to(self.out.device)
            return
        arriving = part.to(self.out.device, non_blocking=True)  # page-locked
        event = torch.cuda.current_stream(part.device).record_event()
        self.settle()
        self._last = at, arriving, event

    def settle(self) -> None:
        """Wait for the last one; to be called at the end."""
        if self._last is not None:
            at, arriving, event = self._last
            event.synchronize()
            self.out[at] = arriving
            self._last = None
