"""The networks that a prior can be, by name, and how they are made to run fast."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_mbir.errors import InputError
from lightning_mbir.prior.monai_unet import MonaiUNet
from lightning_mbir.prior.ncsnpp import NCSNpp
from lightning_mbir.prior.unet import LightUNet

log = logging.getLogger(__name__)

NO_MEMORY = re.compile(r"DefaultCPUAllocator|std::bad_alloc|could not create a primitive(?! descriptor)")
"""What torch says of it on a CPU, the last from oneDNN's convolutions (of a descriptor: what they cannot do at all)."""

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


def channels_last(network: nn.Module) -> nn.Module:
    """The network with its weights in the layout that convolutions are fastest in."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Compiled:
    """A network run through ``torch.compile``, or as it is where that fails.

    No module itself: as an attribute of one it adds nothing to ``state_dict``. Weights are shared with ``module``.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._run: Callable[..., Tensor] | None = None  # compilation happens in the first call, and so do its errors

    @property
    def predicts(self) -> str:
        """What the network gives, see ``posterior_mean``."""
        return str(getattr(self.module, "predicts", "x0"))

    @property
    def stride(self) -> int:
        """What the sides of its images are multiples of."""
        return int(getattr(self.module, "stride", 16))

    @property
    def coarse_size(self) -> int | None:
        """See ``denoised``."""
        return cast(int | None, getattr(self.module, "coarse_size", None))

    def __call__(self, *args: Tensor) -> Tensor:
        if self._run is self.module:
            return self._run(*args)
        try:
            if self._run is None:
                self._run = torch.compile(self.module)
            return self._run(*args)
        except Exception as error:  # a missing C++ compiler, unsupported Python: every backend has its own kinds
            if is_out_of_memory(error):
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        result: Tensor = self.module(*args)  # if this fails as well, its error is the one to see
        self._run = self.module
        log.warning("torch.compile failed (%s); the network runs uncompiled", reason[:200])
        return result


def compiled(module: nn.Module) -> Compiled:
    """The network as a callable ``(x, sigma)`` that is compiled at its first call, with a fall-back to eager."""
    return Compiled(module)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed, on whatever device."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or NO_MEMORY.search(str(error)) is not None
