"""All methods by name: those of the files in this folder, those of other packages, and any function by its path.

Names and help come from the text of the files, so that the command line need not import what they import.
"""

from __future__ import annotations

import ast
import builtins
import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from lightning_mbir import methods
from lightning_mbir.errors import InputError
from lightning_mbir.files import sha256
from lightning_mbir.lazy import imported, plugins
from lightning_mbir.methods import method as method_module
from lightning_mbir.methods.method import MODALITIES, Method, Option

GROUP = "lightning_mbir.methods"
"""Entry points by which other packages add methods."""


@dataclass(frozen=True)
class Card:
    """What help says of a method.

    Attributes:
        name, summary: and the first line of its docstring.
        modalities, needs: see ``Method``.
        options: with what the docstring says of each.
    """

    name: str
    summary: str
    modalities: tuple[str, ...]
    needs: tuple[str, ...]
    options: tuple[tuple[Option, str], ...]


class Methods(Mapping[str, Method]):
    """The methods by name; a method is imported when it is taken out."""

    def __getitem__(self, name: str) -> Method:
        if name in own_cards():
            return _own(name)
        return _made(f"method {name}", name, _foreign()[name])  # as a mapping does: KeyError

    def __contains__(self, name: object) -> bool:
        return name in own_cards() or name in _foreign()

    def __iter__(self) -> Iterator[str]:
        yield from own_cards()
        yield from _foreign()

    def __len__(self) -> int:
        return len(own_cards()) + len(_foreign())


METHODS = Methods()
"""The methods by their names, those of installed packages too; each is imported when it is taken out."""


def get_method(method: str | Callable[..., Any]) -> Method:
    """A method by its name or class path, or made of a function.

    Raises:
        InputError: no such name or path, or what is there is no method.
    """
    if isinstance(method, Method):
        return method
    if not isinstance(method, str):
        return Method(method)
    if method in METHODS:
        return METHODS[method]
    if "." not in method:
        raise _unknown(method)
    return _made("--method", method, method)


def method_name(flag: str, method: object) -> str:
    """The name or class path of a method, for what is kept and filed under it; of a ``Method`` its name in ``METHODS``.

    Raises:
        InputError: anything else, such as a function, which has no name to be found again by.
    """
    if isinstance(method, str):
        return method
    if isinstance(method, Method) and METHODS.get(method.name) == method:
        return method.name
    raise InputError(f"{flag} {method!r:.80}: give names or class paths, such as dds; functions go into reconstruct()")


def _own(name: str) -> Method:
    found: Method = getattr(importlib.import_module(f"{methods.__name__}.{name}"), name)
    return found


def _made(flag: str, name: str, path: str) -> Method:
    """A method called ``name`` of what lies at a class path: one that is declared, or any function."""
    found = imported(flag, path, Method)
    if isinstance(found, Method):
        return replace(found, path=name)
    return Method(found, path=name)


def check_method(name: str | Callable[..., Any], modality: str, options: dict[str, Any], steps: int | None) -> Method:
    """The method; raise where there is none of this name, it does not fit the modality, or an option is not its own."""
    method = get_method(name)
    if modality not in method.modalities:
        raise wrong_modality(method.name, modality)
    method.check(options, steps)
    return method


def source_sha256(made: Any) -> str | None:
    """Of the file that a function or class is from, so that what it gave is known to be of this version of it."""
    path = inspect.getsourcefile(made if inspect.isfunction(made) or inspect.isclass(made) else type(made))
    return None if path is None else sha256(Path(path))


def describe(name: str) -> Card:
    """What help says of a method; of our own ones without importing it."""
    if name in own_cards():
        return own_cards()[name]
    method = get_method(name)
    options = method.signature.values()
    return _card(name, inspect.getdoc(method.run) or "", method.modalities, method.needs, options)


def cards() -> list[Card]:
    """Of all methods; one of another package that cannot be imported says so, and is for nothing."""
    found = []
    for name in METHODS:
        try:
            found.append(describe(name))
        except InputError as error:
            found.append(Card(name, str(error), (), (), ()))
    return found


def check_known(name: str) -> Card:
    """The card of a method by its name; raise ``InputError`` where there is none."""
    if name not in METHODS:
        raise _unknown(name)
    return describe(name)


def wrong_modality(name: str, modality: str) -> InputError:
    """The error of a method that is not for a modality; it names those that are."""
    fitting = [card.name for card in cards() if modality in card.modalities]
    return InputError(f"--method {name}: not for {modality}; there are {', '.join(fitting)}")


def _unknown(name: str) -> InputError:
    near = difflib.get_close_matches(name, list(METHODS), n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return InputError(f"--method {name}: unknown{hint}; there are {', '.join(METHODS)}")


@cache
def own_cards() -> dict[str, Card]:
    """Of the files in this folder that hold a method by their own name, as their text says."""
    cards = {}
    for path in sorted(path for folder in methods.__path__ for path in Path(folder).glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "\n@method(" in text:
            cards[path.stem] = _read(path.stem, ast.parse(text))
    return cards


@cache
def _foreign() -> dict[str, str]:
    """Class paths of the methods of other packages; our own names go before theirs."""
    return {name: path for name, path in plugins(GROUP).items() if name not in own_cards()}


def _read(name: str, tree: ast.Module) -> Card:
    run = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    decorator = next(node for node in run.decorator_list if isinstance(node, ast.Call))
    given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in decorator.keywords}
    options = [
        Option(argument.arg, ast.literal_eval(value), _kind(argument.annotation, name))
        for argument, value in zip(run.args.kwonlyargs, run.args.kw_defaults, strict=True)
        if value is not None
    ]
    modalities, needs = given.get("modalities", MODALITIES), given.get("needs", ())
    return _card(name, ast.get_docstring(run) or "", modalities, needs, options)


def _kind(annotation: ast.expr | None, name: str) -> Any:
    """What an annotation means by the names of ``methods/method.py``; other names, as of functions that check a value,
    are those of the file, which is not imported, and are no more than names here."""
    if annotation is None:
        return Any
    names = {**vars(builtins), **vars(method_module)}
    used = {node.id for node in ast.walk(annotation) if isinstance(node, ast.Name)}
    known = {word: names.get(word, word) for word in used}
    return eval(compile(ast.Expression(annotation), name, "eval"), {"__builtins__": {}}, known)


def _card(
    name: str,
    doc: str,
    modalities: tuple[str, ...],
    needs: tuple[str, ...],
    options: Iterable[Option],
) -> Card:
    """A card of a docstring with an ``Args:`` section, in which several names may share a line."""
    lines = [line.strip() for line in doc.strip().splitlines()]
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in lines[lines.index("Args:") + 1 :] if "Args:" in lines else []:
        if line.endswith(":") and " " not in line:  # the next section
            break
        before, colon, after = line.partition(": ")
        if colon and all(part.strip().isidentifier() for part in before.split(",")):
            names = [part.strip() for part in before.split(",")]
            texts |= dict.fromkeys(names, after)
        elif line:
            texts |= {known: f"{texts[known]} {line}" for known in names}
    told = tuple((option, texts.get(option.name, "")) for option in options)
    return Card(name, lines[0] if lines else "", modalities, needs, told)
