"""The networks that a prior can be, by name."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from lightning_mbir.errors import InputError
from lightning_mbir.prior.networks.monai_unet import MonaiUNet
from lightning_mbir.prior.networks.ncsnpp import NCSNpp
from lightning_mbir.prior.networks.unet import LightUNet

NETWORKS: dict[str, type[nn.Module]] = {"light": LightUNet, "ncsnpp": NCSNpp, "monai": MonaiUNet}
"""All take ``(x, sigma)``, ``(B, C, Y, X)`` and ``(B,)``, and have ``in_channels`` and ``stride``."""


def build_network(name: str, options: dict[str, Any] | None, coarse_size: int | None = None) -> nn.Module:
    """The network called ``name`` with its constructor's options, to be used with that ``coarse_size`` (``denoised``).

    Raises:
        InputError: unknown name, options that the network does not take, or a coarse size that is none.
    """
    if name not in NETWORKS:
        raise InputError(f"network {name!r} is unknown; there are {', '.join(NETWORKS)}")
    try:
        network: Any = NETWORKS[name](**(options or {}))
    except TypeError as error:
        raise InputError(f"network {name!r} does not take these options: {error}") from error
    if coarse_size is not None and (type(coarse_size) is not int or coarse_size < 1 or coarse_size % network.stride):
        raise InputError(
            f"coarse_size {coarse_size!r}: give an image size of the training, a multiple of {network.stride}, or null"
        )
    network.coarse_size = coarse_size
    return cast(nn.Module, network)
