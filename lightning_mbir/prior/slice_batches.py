"""How many slices pass a network at once, by the memory that there is."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn

from lightning_mbir.free_memory import free_memory, total_memory

log = logging.getLogger(__name__)

MOST_SLICES = {"cpu": 8}
"""Slices at once beyond which nothing is gained; elsewhere 64."""


class Outputs:
    """Counts the bytes that the layers of a network put out while it runs.

    A U-Net in inference holds its skips and a few layers at a time: less than half of the sum.
    """

    def __init__(self, network: nn.Module) -> None:
        self.bytes = 0
        self._layers = [module for module in network.modules() if not list(module.children())]

    def __enter__(self) -> Outputs:
        self._handles = [layer.register_forward_hook(self._count) for layer in self._layers]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _count(self, module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            self.bytes += output.nbytes


def slices_at_once(bytes_per_slice: int, device: torch.device) -> int:
    """How many slices fit into a quarter of the memory that there is: a power of two, at least 1, at most what can be
    of use on the device. Fewer where half of the free memory has no room for them, which is told."""
    most, cost = MOST_SLICES.get(device.type, 64), max(1, bytes_per_slice)
    usual = _power_of_two(min(total_memory(device) // 4 // cost, most))
    fitting = _power_of_two(min(free_memory(device) // 2 // cost, usual))
    if fitting < usual:
        log.warning(
            "little memory is free: %d slices at once instead of %d, which changes rounding; --slice_batch sets it",
            fitting,
            usual,
        )
    return fitting


def _power_of_two(limit: int) -> int:
    """The largest up to ``limit``; 1 below."""
    return 1 << max(0, limit.bit_length() - 1)
