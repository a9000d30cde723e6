"""A device that this machine has not: tensors on ``card`` are apart from those on the CPU, as those on a GPU are.

What is computed on it is computed by the CPU. An operation on tensors of both fails as it does with a GPU, so a test
that passes on it has brought all that goes together to one place. The device belongs to a process, once and for all:
call ``insert()`` in one of its own (``tests.ranks.on_ranks``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

try:  # what torch has no public name for, and 2.6 not at all
    from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend
except ImportError:
    THERE, _DummyBackendModule = False, object
else:
    THERE = True

NAME = "card"
_libraries: list[torch.library.Library] = []
seen: list[tuple[int, ...]] = []
"""Shapes of the tensors that were made on it."""


class _Module(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


class OnCard(Tensor):
    """A tensor on the card; ``raw`` is where its values are."""

    raw: Tensor

    @staticmethod
    def __new__(cls, raw: Tensor) -> OnCard:
        sparse = raw.layout != torch.strided  # such a matrix says that it is a dense one
        laid = {"strides": (raw.shape[1], 1)} if sparse else {"strides": raw.stride()}
        own = {} if sparse else {"storage_offset": raw.storage_offset()}
        return Tensor._make_wrapper_subclass(cls, raw.shape, **laid, **own, dtype=raw.dtype, device=f"{NAME}:0")

    def __init__(self, raw: Tensor) -> None:
        self.raw = raw
        if raw.layout == torch.strided:
            seen.append(tuple(raw.shape))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        return _run(func, *args, **(kwargs or {}))


def _run(func: Any, *args: Any, **kwargs: Any) -> Any:
    places: set[str] = set()

    def values(x: Any) -> Any:
        if isinstance(x, Tensor) and (x.ndim or isinstance(x, OnCard)):  # numbers go with tensors of any device
            places.add(x.device.type)
        return x.raw if isinstance(x, OnCard) else x

    given, named = tree_map(values, args), tree_map(values, kwargs)
    wanted = kwargs.get("device")
    if wanted is not None:
        named["device"] = torch.device("cpu")
    if func.name() == "aten::copy_":
        given[0].copy_(given[1])
        return args[0]
    if func.name() != "aten::_to_copy" and len(places) > 1:
        raise RuntimeError(f"{func.name()}: tensors on cpu and on {NAME}")
    # A lazy conjugate is a mark on a tensor, which this wrapper would not show.
    out = torch.conj_physical(given[0]) if func.name() == "aten::_conj" else func(*given, **named)
    if func.name() == "aten::_to_copy" and wanted is not None and torch.device(wanted).type == "cpu":
        return out
    if func._schema.name.endswith("_") and isinstance(args[0], OnCard):
        return args[0]
    return tree_map(lambda x: OnCard(x) if isinstance(x, Tensor) and not isinstance(x, OnCard) else x, out)


def insert() -> torch.device:
    """Make the device known to torch in this process."""
    if not _libraries:
        _setup_privateuseone_for_python_backend(NAME, _Module())
        _libraries.append(torch.library.Library("_", "IMPL"))
        _libraries[0].fallback(lambda func, *args, **kwargs: _run(func, *args, **kwargs), "PrivateUse1")
    return torch.device(NAME, 0)
