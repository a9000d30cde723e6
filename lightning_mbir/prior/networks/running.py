"""How a network is run: its layout in memory, compilation, and what a lack of memory looks like."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_mbir.errors import InputError

log = logging.getLogger(__name__)

NO_MEMORY = re.compile(r"DefaultCPUAllocator|std::bad_alloc|could not create a primitive(?! descriptor)")
"""What torch says of it on a CPU, the last from oneDNN's convolutions (of a descriptor: what they cannot do at all)."""


def channels_last(network: nn.Module) -> nn.Module:
    """The network with its weights in the layout that convolutions are fastest in."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def images_of(network: object, x: Tensor, out: Any) -> Tensor:
    """What a network made of images ``(B, C, Y, X)``: as many of the same size, where it keeps to its contract.

    Raises:
        InputError: something else, which arithmetic might spread over the images without a word.
    """
    if not isinstance(out, Tensor) or out.shape != x.shape:
        given = tuple(out.shape) if isinstance(out, Tensor) else f"a {type(out).__name__}"
        name = type(getattr(network, "module", network)).__name__
        raise InputError(
            f"network {name}: made {given} of {tuple(x.shape)}; it has to give images of the shape of those that it "
            "takes (docs/extending.md)"
        )
    return out


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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on whatever device."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or NO_MEMORY.search(str(error)) is not None
