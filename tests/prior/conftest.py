"""A network that is small, and random in every layer."""

import torch

from lightning_mbir.prior import LightUNet

OPTIONS = {"channels": [8, 16], "blocks": 1}


def network() -> LightUNet:
    torch.manual_seed(0)
    net = LightUNet(**OPTIONS)  # type: ignore[arg-type]
    for parameter in net.parameters():  # the last layers start at zero: fill them, so that something is tested
        torch.nn.init.normal_(parameter, std=0.05)
    return net
