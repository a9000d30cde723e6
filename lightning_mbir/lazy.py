"""What is imported when it is asked for: names of a room, what a class path says, what other packages add."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_mbir.errors import InputError


def lazy_names(package: str, path: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package (PEP 562).

    Its names are those that its ``__init__.py`` imports for type checkers alone, so they stand in one place.

    Args:
        package: ``__name__`` of the package.
        path: its ``__file__``.
    """
    blocks = [node for node in ast.parse(Path(path).read_text(encoding="utf-8")).body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    modules = {alias.name: str(node.module) for node in imports for alias in node.names}

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(modules[name]), name)

    return get, lambda: sorted(modules), sorted(modules)


def plugins(group: str) -> dict[str, str]:
    """Class paths of the entry points that installed packages have in a group, by their names."""
    from importlib.metadata import entry_points  # of what help and slips seldom need

    return {entry.name: entry.value.replace(":", ".") for entry in entry_points(group=group)}


def imported(flag: str, path: str) -> Any:
    """What lies at a class path, ``package.module.name``.

    Args:
        flag: that gave the path, for the error.
        path: where it lies. What is there runs.

    Raises:
        InputError: no such module or name.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{flag} {path}: cannot be imported ({error}); give package.module.name") from error
