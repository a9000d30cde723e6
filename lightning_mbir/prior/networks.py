"""The networks that a prior can be, by name."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_mbir.errors import InputError
from lightning_mbir.prior.monai_unet import MonaiUNet
from lightning_mbir.prior.ncsnpp import NCSNpp
from lightning_mbir.prior.unet import LightUNet

NETWORKS: dict[str, type[nn.Module]] = {"light": LightUNet, "ncsnpp": NCSNpp, "monai": MonaiUNet}
"""All take ``(x, sigma)``, ``(B, C, Y, X)`` and ``(B,)``, and have ``in_channels`` and ``stride``."""


def build_network(name: str, options: dict[str, Any] | None) -> nn.Module:
    """The network called ``name`` with its constructor's options.

    Raises:
        InputError: unknown name, or options that the network does not take.
    """
    if name not in NETWORKS:
        raise InputError(f"network {name!r} is unknown; there are {', '.join(NETWORKS)}")
    try:
        return NETWORKS[name](**(options or {}))
    except TypeError as error:
        raise InputError(f"network {name!r} does not take these options: {error}") from error
