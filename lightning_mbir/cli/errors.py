"""Whose an error is: the user's, told in one line, or ours, with its traceback.

What a library raises of itself, with none of our code between it and the command line, refuses what the user asked for.
What passes through our code is ours, unless it is an ``InputError``, or the disk, memory or network that gave way.
"""

from __future__ import annotations

import ast
import errno
import re
from collections.abc import Iterable, Sequence
from types import TracebackType

from lightning_mbir.errors import InputError, nearest
from lightning_mbir.flags import Flag
from lightning_mbir.lazy import WHERE, refusal

FRONT = (
    "lightning_mbir.cli.front",
    "lightning_mbir.cli.lightning",
    "lightning_mbir.cli.ranks",
    "lightning_mbir.interrupts",
)
GIVES_WAY = ("OSError", "MisconfigurationException", "DistError")
"""Errors that are no bugs wherever they come from: of the disk, of Lightning's settings, of torch.distributed."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REMOTE = "Traceback (most recent call last)"
"""What the message holds of an error that another process had."""
ALIKE = 0.8
"""How much a flag has to be like another, of the same section."""
RIGHT = ("Allowed", "Available", "Example choices", "Expected")
"""How a sentence begins that says what would be right."""
WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "NoneType": "null",
    "dict": "settings such as '{\"name\": 1}'",
    "list": "a list",
    "str": "a text",
}


def told(error: BaseException) -> str | None:
    """The line of an error that a user has caused; None of a bug of ours."""
    message = str(error)
    if REMOTE in message:
        last = message.strip().splitlines()[-1].strip()
        kind, _, text = last.partition(": ")
        return text if kind.endswith(("InputError", "WriteError")) else None
    if isinstance(error, InputError):
        return message
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, OSError) and "DistError" not in names:
        return disk_line(error)
    if full := _full_disk(error):  # in the middle of an archive, which torch then fails to end
        return disk_line(full)
    if isinstance(error, Exception) and (names & set(GIVES_WAY) or not _is_ours(error.__traceback__)):
        return first_sentence(error)
    return None


def disk_line(error: OSError) -> str:
    """An error of the disk or of a file, in one line."""
    if error.errno in FULL:
        return f"{error.filename or 'the results'}: {error.strerror}; make room, or give a folder on another disk"
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else first_sentence(error)


def _full_disk(error: BaseException | None) -> OSError | None:
    while error is not None and not (isinstance(error, OSError) and error.errno in FULL):
        error = error.__cause__ or error.__context__
    return error


def _is_ours(traceback: TracebackType | None) -> bool:
    """Whether our code, or a user's own, stands between the command line and where an error was raised."""
    modules = []
    while traceback is not None:
        modules.append(str(traceback.tb_frame.f_globals.get("__name__", "")))
        traceback = traceback.tb_next
    inner = modules
    for k, name in enumerate(modules):
        if name in FRONT:
            inner = modules[k + 1 :]
    return not inner or any(name.partition(".")[0] == "lightning_mbir" for name in inner)


def first_sentence(error: BaseException) -> str:
    """The first sentence of a message, without the marks of a markup; of the network, what can be done about it."""
    message = " ".join(str(error).split())
    if "EADDRINUSE" in message or "address already in use" in message.lower():
        port = re.search(r"port: (\d+)", message)
        named = f"port {port[1]}" if port else "the port of the first process"
        return f"{named} is in use by another program; set MASTER_PORT to a free one"
    message = re.sub(r"<[\w.]*?(\w+) object at 0x\w+>", r"\1", message)
    first, *others = re.split(r"(?<=[a-z0-9)\]'`\"])[.!] (?=[A-Z])", message)
    right = [sentence for sentence in others if sentence.startswith(RIGHT)]
    return "; ".join([first, *right]).replace("`", "").removesuffix(".") or type(error).__name__


def with_flags(message: str, args: Iterable[str]) -> str:
    """The message behind the argument of the trainer that it names first, by its name or else its value, as given."""
    given = [arg.removeprefix("--trainer.").partition("=") for arg in args if arg.startswith("--trainer.")]
    texts = [(key, key, value) for key, _, value in given]
    values = [(value, key, value) for key, _, value in given if value.isalpha() and value not in ("true", "false")]
    for candidates in (texts, values):
        found = [(at.start(), key, value) for word, key, value in candidates if (at := _word(word).search(message))]
        if found and not message.startswith("--"):
            _, key, value = min(found)
            return f"--trainer.{key} {value}: {message}"
    return message


def _word(text: str) -> re.Pattern[str]:
    return re.compile(rf"\b{re.escape(text)}\b")


def parser_line(message: str, options: Iterable[str] = ()) -> str:
    """What jsonargparse says, as a flag, its value, and what would be right.

    Args:
        message: of jsonargparse, of many lines.
        options: the flags that there are.
    """
    text = message.strip()
    if denied := re.search(r"Importing '([^']+)' is not allowed", text):
        return f"{_key(text, ' ')}{denied[1]}: {refusal(denied[1])}"
    if unknown := re.match(r"unrecognized arguments?: (\S+)", text):
        name = unknown[1].partition("=")[0]
        return f"{name}: unknown{nearest(name, options, ALIKE)}; --help_all lists what there is"
    if unknown := re.search(r"does not accept option '([^']+)'", text):
        return f"{unknown[1]}: no setting of this command{_near_key(unknown[1], options)}; --help_all lists them"
    if text.startswith("argument ") and "expected one argument" in text:
        return f"{text.split()[1].rstrip(':')}: lacks its value"
    problem = re.search(r"Problem with given class_path '([^']+)':\s+(.+)", text)
    if problem:
        where = f"; {WHERE}" if "No module named" in problem[2] else ""
        return f"{_key(text, ' ')}{problem[1]}: {problem[2].strip()}{where}"
    if wrong := re.search(r"Import path (\S+) does not correspond to a subclass of (\w+)", text):
        return f"{_key(text, ' ')}{wrong[1]}: no {wrong[2]}, so it is not called"
    given = re.findall(r"(?:Given value|Got value): (.*)", text)
    if given and (right := _right(text)):
        return f"{_key(text, ' ')}{given[-1].strip()}: give {right}"
    lines = [line.strip(" -") for line in text.splitlines() if line.strip(" -")]
    if lines and (key := re.fullmatch(r'Parser key "([^"]+)":', lines[0])) and len(lines) > 1:
        return f"--{key[1]}: {lines[1]}"
    if lines and (own := re.fullmatch(r'Parser key "([^"]+)": (.+)', lines[0])):
        return f"--{own[1]}: {own[2]}"
    return "; ".join(lines[:2]) if lines else "the arguments cannot be used"


def _key(text: str, after: str) -> str:
    """The flag that a message of the parser is about."""
    found = re.search(r'Parser key "([^"]+)"', text)
    return f"--{found[1]}{after}" if found else ""


def _near_key(key: str, options: Iterable[str]) -> str:
    return nearest(key, [option.removeprefix("--") for option in options], ALIKE)


def _right(text: str) -> str:
    """What the parser expected, in words."""
    words: list[str] = []
    for kind, literal in re.findall(r"Expected an? (?:<class '([^']+)'>|typing\.Literal(\[[^\]]*\]))", text):
        if literal:
            words += [str(value) for value in ast.literal_eval(literal)]
        elif kind in WORDS:
            words.append(WORDS[kind])
    if "dot import path" in text:
        words.insert(0, "a class path (package.module.Name)")
    return " or ".join(dict.fromkeys(words))


def in_short_flags(message: str, flags: Sequence[Flag]) -> str:
    """The message with the flags that the user knows."""
    for flag in flags:
        if flag.name != flag.target and flag.name != "--ckpt_path":
            message = message.replace(f'"{flag.target.removeprefix("--")}"', flag.name)
            message = re.sub(rf"{re.escape(flag.target)}(?!\w)", flag.name, message)  # --model.method has longer kin
    return message
