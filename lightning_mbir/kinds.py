"""Arguments of Python calls held against their annotations: one of another kind is told in one line.

The command line looks at its texts itself (``flags``); this is for notebooks and scripts, where a number stands for a
tuple, or a text for a number, as easily.
"""

from __future__ import annotations

import inspect
import math
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import jaxtyping
import numpy as np
from torch import Tensor

from lightning_mbir.errors import InputError, whole_number

WORDS: dict[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    NoneType: "None",
    Tensor: "a tensor, as torch.as_tensor(...) makes it",
}

AXES = {
    "volume_shape": "(Z, Y, X)",
    "spacing": "(z, y, x)",
    "shape": "(Y, X)",
    "domain_shape": "(Y, X)",
    "range_shape": "(views, bins)",
    **dict.fromkeys(("detector_shape", "detector_spacing", "offsets"), "(rows, columns)"),
}
"""What the members of a tuple are, by the name of the argument."""


def check_kinds(function: Callable[..., Any], given: Mapping[str, Any], but: Collection[str] = ()) -> None:
    """Raise where an argument is of another kind than its annotation says.

    Kinds are numbers, tuples of so many of them, texts, truths, paths, tensors and instances of a class, and unions of
    these. Numbers may be Python's, NumPy's or tensors of one; a tuple may be any sequence of its length; of a
    ``Literal`` the function says itself which there are. What an annotation says beyond that is not looked at.

    Args:
        function: as it is annotated; of a class its ``__init__``, or a data class itself.
        given: its arguments by name, which are ``locals()`` in its first line.
        but: names of those that it looks at itself, in better words.

    Raises:
        InputError: the function, the argument, what was given, and what is to be given.
    """
    for name, hint in _hints(function).items():
        if name in given and name not in but and not _fits(given[name], hint):
            where = function.__qualname__.removesuffix(".__init__")
            raise InputError(f"{where}: {name} is {_shown(given[name])}; give {_words(hint, AXES.get(name, ''))}")


@cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """What the annotations of the arguments say, whatever decorators stand before the function."""
    plain = inspect.unwrap(function)
    arguments = {name: hint for name, hint in plain.__annotations__.items() if name != "return"}
    return get_type_hints(SimpleNamespace(__annotations__=arguments), vars(sys.modules[plain.__module__]))


def _fits(value: Any, hint: Any) -> bool:
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return any(_fits(value, part) for part in inner)
    if kind is Literal:
        return isinstance(value, tuple({type(choice) for choice in inner}))
    if kind is Any or kind is Sequence or not isinstance(kind, type):
        return True
    if kind is bool:
        return isinstance(value, bool | np.bool_)
    if kind is int or kind is float:
        return _is_number(value, whole=kind is int)
    if kind is Path:
        return isinstance(value, str | os.PathLike)
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        parts = _parts(value)
        return len(parts) == len(inner) and all(map(_fits, parts, inner))
    if getattr(kind, "_is_protocol", False):
        return True
    if kind is list:
        return isinstance(value, list | tuple)
    return isinstance(value, Tensor if issubclass(kind, jaxtyping.AbstractArray) else kind)


def _is_number(value: Any, whole: bool) -> bool:
    """Whether it is one real number, be it NaN; of arrays and tensors, one without dimensions."""
    if getattr(value, "ndim", 0):
        return False
    try:
        if whole:
            whole_number("", value)
        else:
            math.isnan(value)
    except (InputError, TypeError, ValueError, RuntimeError, OverflowError):
        return False
    return True


def _parts(value: Any) -> list[Any]:
    """The members of a sequence; of what is none, nothing."""
    if isinstance(value, str | bytes | Mapping) or (isinstance(value, Tensor | np.ndarray) and value.ndim != 1):
        return []
    return list(value) if hasattr(value, "__len__") and hasattr(value, "__iter__") else []


def _words(hint: Any, axes: str) -> str:
    """What to give, as a user is told it."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return " or ".join(dict.fromkeys(_words(part, axes) for part in inner))
    if kind is Literal:
        return " or ".join(map(str, inner))
    if kind is tuple:
        what = "whole numbers" if set(inner) == {int} else "numbers" if set(inner) <= {int, float} else "values"
        return f"a tuple of {len(inner)} {what} {axes}".rstrip()
    if isinstance(kind, type) and issubclass(kind, jaxtyping.AbstractArray):
        kind = Tensor
    return WORDS.get(kind, f"a {getattr(kind, '__name__', kind)}")


def _shown(value: Any) -> str:
    """A value in a line; arrays by their shape."""
    if isinstance(value, Tensor | np.ndarray) and value.ndim:
        return f"a {type(value).__name__} of {tuple(value.shape)}"
    return " ".join(repr(value).split())[:80]
