"""YAML that somebody else may have written: text within limits, each key once, sections that are mappings."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import yaml

from lightning_mbir.errors import InputError

LONGEST = 256 * 1024
"""Bytes of a text. A configuration has some thousand."""
DEEPEST = 50
"""Brackets within brackets: the parser would use up its stack."""
ALIASES = 10
"""References within a text. Each level of references to references multiplies what they stand for."""
SECTIONS = ("model", "data", "trainer")


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Takes a plain scalar for what it looks like, as YAML 1.2 does.

    By YAML 1.1, which PyYAML reads, 20:44 is 1244, 0100 is 64, ``no`` is false, 1e-4 a text, and 2026-13-45 an error.
    Numbers that begin with 0, as those of patients do, stay texts here; where a number is wanted the parser makes it.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    def whole(self, node: yaml.ScalarNode) -> int:
        """A whole number, but none of base 60."""
        return int(self.construct_scalar(node), 0)


for _kind, _first, _pattern in (
    ("null", ["~", "n", "N", ""], r"~|null|Null|NULL|"),
    ("bool", list("tTfF"), r"true|True|TRUE|false|False|FALSE"),
    ("int", list("+-0123456789"), r"[-+]?(0|[1-9](_?[0-9]){0,99}|0x[0-9a-fA-F]{1,99}|0o[0-7]{1,99})"),
    ("float", list("+-.0123456789"), r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9][0-9_]*(?=[eE]))([eE][-+]?[0-9]+)?"),
    ("float", list("+-."), r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
    ("merge", ["<"], r"<<"),
):
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"({_pattern})\Z"), _first)
Loader.add_constructor("tag:yaml.org,2002:int", Loader.whole)


def check_yaml(text: str) -> None:
    """Look at a text before it is taken for what it says, which may be far more than its length.

    Raises:
        InputError: too long, too deep, too many references, or a key twice.
        yaml.YAMLError: no YAML.
    """
    if len(text) > LONGEST:
        raise InputError(f"a text of {len(text)} characters; give at most {LONGEST}")
    depth = aliases = 0
    for event in yaml.parse(text, Loader=Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        if depth > DEEPEST:
            raise InputError(f"brackets or sections more than {DEEPEST} deep; give fewer")
        if aliases > ALIASES:
            raise InputError(f"more than {ALIASES} references (*name), which could stand for anything; write them out")
    _check_keys(yaml.compose(text, Loader=Loader), set())


def read_yaml(text: str) -> Any:
    """What a text says.

    Raises:
        InputError, yaml.YAMLError: as ``check_yaml``.
    """
    check_yaml(text)
    return yaml.load(text, Loader=Loader)


def _check_keys(node: yaml.Node | None, seen: set[int]) -> None:
    """Raise where a mapping has a key twice, of which the first would be forgotten."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    children = list(node.value) if isinstance(node, yaml.SequenceNode) else []
    if isinstance(node, yaml.MappingNode):
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"{twice[0]} stands there twice (line {node.start_mark.line + 1}); give it once")
        children = [value for _, value in node.value]
    for child in children:
        _check_keys(child, seen)


def check_value(value: Any) -> None:
    """Look at texts that may be taken for YAML: a value of the command line, or those of a configuration.

    Raises:
        InputError: as ``check_yaml``. What is no YAML is a plain text.
    """
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            check_value(inner)
    elif isinstance(value, str) and (len(value) > LONGEST or any(sign in value for sign in "[{&*\n")):
        with suppress(yaml.YAMLError):
            check_yaml(value)


def read_config(path: Path) -> dict[str, Any]:
    """What a configuration says.

    Raises:
        InputError: no file, no text, no YAML, or what it says cannot be a configuration.
    """
    if not path.is_file():
        raise InputError(f"{'a folder' if path.is_dir() else 'no plain file'}; give a YAML file")
    if path.stat().st_size > LONGEST:
        raise InputError(f"a file of {path.stat().st_size} bytes; give a YAML file of at most {LONGEST}")
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"no text in UTF-8 ({error.reason} at byte {error.start}); give a YAML file") from error
    except yaml.YAMLError as error:
        raise InputError(f"no YAML ({_reason(error)}); give sections of settings, such as `model:`") from error
    if not isinstance(content, dict):
        kind = "nothing" if content is None else f"a {type(content).__name__}"
        raise InputError(f"holds {kind}; give sections of settings, such as `model:`")
    for key in content:
        if not isinstance(key, str):
            raise InputError(f"{key!r} is no name of a setting; give text")
    check_value(content)
    if "config" in content:
        raise InputError("names another configuration; give --config twice instead")
    for name in SECTIONS:
        if name in content and not isinstance(content[name], dict):
            raise InputError(f"{name} is {content[name]!r:.60}; give its settings below it, or leave it out")
    return content


def _reason(error: yaml.YAMLError) -> str:
    """What is wrong, and where."""
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).splitlines()[0]
    mark = getattr(error, "problem_mark", None)
    return f"{problem}, line {mark.line + 1}" if mark else str(problem)
