"""What is imported when it is asked for: names of a room, what a class path says, what other packages add."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_mbir.errors import InputError

LIBRARIES = ("lightning_mbir", "lightning", "pytorch_lightning", "torch", "monai")
"""Packages whose class paths a command line or a configuration may name."""


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


WHERE = "it has to be installed, or in a folder of PYTHONPATH; the working folder is not looked into"


class _Trust:
    """Packages that class paths may lie in, beside the libraries and the entry points; None: anywhere."""

    named: frozenset[str] | None = None


@contextmanager
def trusting(named: Iterable[str]) -> Iterator[None]:
    """Within the block, class paths are those of the libraries, of entry points and of packages that are named.

    That is for the command line, whose configurations may be somebody else's. In a user's own Python a class path is
    the user's own code.

    Args:
        named: packages that the user trusts.
    """
    before, _Trust.named = _Trust.named, frozenset(named)
    try:
        yield
    finally:
        _Trust.named = before


def trusted_roots() -> frozenset[str]:
    """The packages whose class paths are imported, on the command line."""
    return frozenset(LIBRARIES) | (_Trust.named or frozenset()) | _plugin_roots()


def check_trusted(path: str) -> None:
    """Raise where a class path is not to be imported: on the command line, from elsewhere than ``trusted_roots``."""
    if _Trust.named is not None and path.partition(".")[0] not in trusted_roots():
        raise InputError(refusal(path))


def refusal(path: str) -> str:
    """What is said of a class path that lies elsewhere."""
    root = path.partition(".")[0]
    return (
        f"its code would run, and {root} is none of {', '.join(LIBRARIES)}, nor a package with an entry point of ours; "
        f"if you trust it, add --trust {root} (docs/extending.md)"
    )


def imported(flag: str, path: str, *kinds: type) -> Any:
    """What lies at a class path, ``package.module.name``.

    On the command line that is of a library of ours (``LIBRARIES``), where it has to be of one of ``kinds`` or a class
    of these, or of a package that is trusted (``trusting``) or has an entry point of ours, where it may be anything.

    Args:
        flag: that gave the path, for the error.
        path: where it lies. What is there runs.
        kinds: what the caller wants.

    Raises:
        InputError: no such module or name; a class path that is not trusted, or is none of the kinds.
    """
    module, _, name = path.rpartition(".")
    try:
        check_trusted(path)
        found = getattr(importlib.import_module(module), name)
    except InputError as error:
        raise InputError(f"{flag} {path}: {error}") from error
    except (ImportError, AttributeError, ValueError, SyntaxError) as error:
        where = f"; {WHERE}" if isinstance(error, ModuleNotFoundError) else ""
        raise InputError(f"{flag} {path}: cannot be imported ({error}); give package.module.name{where}") from error
    if _Trust.named is not None and _is_of_libraries(path, found) and not _is_of(found, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise InputError(f"{flag} {path}: no {wanted}, so it is not called; see docs/extending.md")
    return found


def _is_of_libraries(path: str, found: Any) -> bool:
    """Whether nobody has vouched for it: it is of a library, or defined where nobody has named the package."""
    vouched = (_Trust.named or frozenset()) | _plugin_roots()
    defined = getattr(found, "__module__", None) or path
    return not {path.partition(".")[0], str(defined).partition(".")[0]} & vouched


def _is_of(found: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(found, kinds) or (isinstance(found, type) and issubclass(found, kinds))


def _plugin_roots() -> frozenset[str]:
    """Packages that entry points of ours lie in."""
    from importlib.metadata import entry_points

    found = entry_points()
    groups = [group for group in found.groups if group.startswith("lightning_mbir.")]
    return frozenset(path.partition(".")[0] for group in groups for path in plugins(group).values())
