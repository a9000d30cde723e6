"""The type checker of the hook that jaxtyping puts on imports, see ``addopts`` in pyproject.toml."""

import inspect
import sys
import typing
import warnings
from collections.abc import Callable
from typing import Any

import beartype
import jaxtyping
import jaxtyping._decorator


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """``beartype``, of annotations that tell a shape alone: of other arguments our own errors are what to test."""
    annotations = inspect.get_annotations(function)
    function.__annotations__ = {name: hint for name, hint in annotations.items() if tells_shape(hint)}
    try:
        return beartype.beartype(function)
    finally:
        function.__annotations__ = annotations  # which `check_kinds` reads


def tells_shape(hint: Any) -> bool:
    """Whether an annotation is an array of jaxtyping, or made of one."""
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(tells_shape(part) for part in typing.get_args(hint))


def warn(message: Any, category: Any = None, stacklevel: int = 1, source: Any = None, **options: Any) -> None:
    """``warnings.warn`` that does not count the wrappers of jaxtyping among the callers."""
    frame, level, seen = sys._getframe(1), 2, 1
    while seen < stacklevel and frame.f_back is not None:
        frame, level = frame.f_back, level + 1
        seen += frame.f_code.co_filename != jaxtyping._decorator.__file__
    plain_warn(message, category, level, source, **options)


plain_warn = warnings.warn
