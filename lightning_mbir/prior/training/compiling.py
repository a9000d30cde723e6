"""Whether a training compiles, before it begins."""

from __future__ import annotations

import logging
from typing import Any

import lightning as L
import torch

from lightning_mbir.prior.networks.running import Compiled, is_out_of_memory

log = logging.getLogger(__name__)


def compiles(module: L.LightningModule, run: Compiled) -> bool:
    """Whether the way back compiles too, for all batches that will come; ``Compiled`` itself only minds the way there.

    Args:
        module: at the start of its training; its ``network`` is what ``run`` compiles.
        run: the compiled network.
    """
    network: Any = module.network
    together = int(getattr(network, "slices", 1))
    try:
        for shape in _batch_shapes(module, network):
            x = torch.zeros(shape, device=module.device).contiguous(memory_format=torch.channels_last)
            ones = torch.ones_like(x[:, 0, 0, 0])
            with module.trainer.precision_plugin.forward_context():
                out = run(x, ones, *[ones] * (together > 1))
            out.float().square().mean().backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # every backend has kinds of its own
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        log.warning("torch.compile failed in the backward pass (%s); training goes on uncompiled", reason[:200])
        return False
    finally:
        network.zero_grad()
    return True


def _batch_shapes(module: L.LightningModule, network: Any) -> list[tuple[int, ...]]:
    """Shapes of the batches that training will draw; with slices of another source, any that the network takes."""
    loader: Any = module.trainer.train_dataloader
    channels = int(getattr(network, "in_channels", 1)) * int(getattr(network, "slices", 1))
    groups = getattr(getattr(loader, "sampler", None), "groups", None)  # of KeyedBatches
    if groups is None:
        return [(1, channels, 64, 64)]
    shown = [(count, loader.dataset[[(int(places[0]), 0)]]) for places, _, count in groups]
    return [(count, *(one if torch.is_tensor(one) else one[0]).shape[1:]) for count, one in shown]
