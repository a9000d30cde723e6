"""The networks that a prior can be, by name."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from lightning_mbir.errors import InputError
from lightning_mbir.lazy import imported, plugins
from lightning_mbir.prior.networks.monai_unet import MonaiUNet
from lightning_mbir.prior.networks.ncsnpp import NCSNpp
from lightning_mbir.prior.networks.unet import LightUNet

NETWORKS: dict[str, type[nn.Module]] = {"light": LightUNet, "ncsnpp": NCSNpp, "monai": MonaiUNet}
"""All take ``(x, sigma)``, ``(B, C, Y, X)`` and ``(B,)``, and have ``in_channels`` and ``stride``."""

GROUP = "lightning_mbir.networks"
"""Entry points by which other packages add networks."""


def network_class(name: str, trusted: str | None = None) -> type[nn.Module]:
    """A network of ours by its name, of an installed package by that of its entry point (``lightning_mbir.networks``),
    or any by its class path, where that is ``trusted``: a name may come from a file.

    Raises:
        InputError: there is none, or it is not trusted.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    foreign = plugins(GROUP)
    if name in foreign:
        found = imported(f"network {name} of", foreign[name], nn.Module)
    elif "." in name and name == trusted:
        found = imported("network", name, nn.Module)
    elif "." in name:
        raise InputError(
            f"network {name} is not ours, and its code would run; if you trust it, name it: --prior_network {name}, "
            "or load_prior(..., network=...)"
        )
    else:
        raise InputError(f"network {name!r} is unknown; there are {', '.join([*NETWORKS, *foreign])}")
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        kind = "class of something else" if isinstance(found, type) else type(found).__name__
        raise InputError(f"network {name!r} is a {kind}, not a class of torch.nn.Module")
    return found


def new_options(name: str, options: dict[str, Any] | None, complex: bool, slices: int) -> dict[str, Any] | None:
    """Options of a network that shall be trained, with what new trainings take where they are told nothing else.

    Args:
        name: as ``network_class`` takes it.
        options: what was set; it rules.
        complex: two channels.
        slices: neighbouring ones that are denoised together.

    Raises:
        InputError: several slices for a network that takes one, or another number of them.
    """
    if slices not in (1, 3):
        raise InputError(f"--data.slices {slices}: give 1, or 3 neighbouring ones")
    known = dict(getattr(NETWORKS.get(name), "newest", {}))
    if slices != 1 and name in NETWORKS and NETWORKS[name] is not LightUNet:
        raise InputError(f"--data.slices {slices}: of the light network alone, not {name}")
    wanted = {**known, **({"in_channels": 2} if complex else {}), **({"slices": slices} if slices != 1 else {})}
    return {**wanted, **(options or {})} or options


def build_network(
    name: str, options: dict[str, Any] | None, coarse_size: int | None = None, trusted: str | None = None
) -> nn.Module:
    """The network called ``name`` with its constructor's options, to be used with that ``coarse_size`` (``denoised``).

    Args:
        name: of one of ours, or as ``network_class`` takes it.
        options: of its constructor.
        coarse_size: see ``denoised``.
        trusted: the class path that a user has named, if any.

    Raises:
        InputError: unknown name, options that the network does not take, or a coarse size that is none.
    """
    made = network_class(name, trusted)
    try:
        network: Any = made(**(options or {}))
    except TypeError as error:
        raise InputError(f"network {name!r} does not take these options: {error}") from error
    if name not in NETWORKS and (lacking := [key for key in ("in_channels", "stride") if not hasattr(network, key)]):
        raise InputError(f"network {name!r} lacks {' and '.join(lacking)}; see docs/extending.md")
    if coarse_size is not None and (type(coarse_size) is not int or coarse_size < 1 or coarse_size % network.stride):
        raise InputError(
            f"coarse_size {coarse_size!r}: give an image size of the training, a multiple of {network.stride}, or null"
        )
    network.coarse_size = coarse_size
    return cast(nn.Module, network)
