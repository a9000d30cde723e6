"""What stands in the docstrings of the public names: every argument, and whatever overrides nothing."""

import importlib
import inspect
import re
from typing import Any

import pytest

from lightning_mbir.reconstruction import METHODS

ROOMS = ("", "data", "physics", "solvers", "prior", "samplers", "reconstruction")


def package(room: str) -> Any:
    """A room, or without a name the surface of the whole package."""
    return importlib.import_module(f"lightning_mbir.{room}".removesuffix("."))


def public(room: str, name: str) -> Any:
    return getattr(package(room), name)


def told(found: Any) -> bool:
    """Functions and classes, but protocols, of which nothing is made, and exceptions, which are given a line."""
    made = inspect.isclass(found) and not issubclass(found, Exception) and not getattr(found, "_is_protocol", False)
    return inspect.isfunction(found) or made


NAMES = [(room, name) for room in ROOMS for name in package(room).__all__ if told(public(room, name))]


def arguments(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


@pytest.mark.parametrize(("room", "name"), NAMES)
def test_every_argument_of_a_public_name_is_told(room: str, name: str) -> None:
    found = public(room, name)
    doc = inspect.getdoc(found) or ""
    missing = [argument for argument in arguments(found) if not re.search(rf"\b{argument}\b", doc)]
    if len(arguments(found)) == 1:  # the first line may say it in other words
        missing = []
    assert doc and not missing, f"{room}.{name}: its docstring says nothing of {', '.join(missing)}"


@pytest.mark.parametrize(("room", "name"), [pair for pair in NAMES if inspect.isclass(public(*pair))])
def test_methods_that_override_nothing_have_a_docstring(room: str, name: str) -> None:
    kind = public(room, name)
    for attribute, value in dict(vars(kind)).items():
        function = getattr(value, "fget", None) or getattr(value, "__func__", value)
        overrides = any(attribute in vars(base) for base in kind.__mro__[1:])
        stated = attribute in getattr(kind, "__annotations__", {})  # a field of a dataclass, told with the class
        if attribute.startswith("_") or overrides or stated or not inspect.isfunction(function):
            continue
        assert (function.__doc__ or "").strip(), f"{room}.{name}.{attribute} has no docstring"


@pytest.mark.parametrize("name", list(METHODS))
def test_options_of_methods_are_told(name: str) -> None:
    doc = inspect.getdoc(METHODS[name].run) or ""
    assert all(re.search(rf"\b{argument}\b", doc) for argument in arguments(METHODS[name].run)[1:])
