"""The command line's front: short flags, short help, one-line errors.

Nothing heavy is imported here, so that help and slips of the pen are answered at once. What remains goes to
``cli_lightning``, where Lightning's own command line takes over.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence

from lightning_mbir.errors import fail
from lightning_mbir.flags import SUBCOMMANDS, Flag

PROGRAM = "python -m lightning_mbir"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (2 for input that cannot be used)."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if args[0] == "--version":
        from lightning_mbir import __version__

        print(f"lightning_mbir {__version__}")
        return 0
    subcommand, *rest = args
    if subcommand not in SUBCOMMANDS:
        known = ", ".join(SUBCOMMANDS)
        return fail(f"{subcommand}: unknown command; there are {known}{_nearest(subcommand, SUBCOMMANDS)}")
    if "-h" in rest or "--help" in rest:
        print(_help(subcommand))
        return 0
    flags = SUBCOMMANDS[subcommand][1]
    try:
        translated = translate(rest, flags)
    except UsageError as error:
        return fail(str(error))

    from lightning_mbir.cli_lightning import run

    return run(subcommand, translated, flags)


class UsageError(Exception):
    """A flag that there is not, or that lacks its value."""


def translate(args: Sequence[str], flags: Sequence[Flag]) -> list[str]:
    """Short flags to Lightning's arguments, ``--flag value`` and ``--flag=value`` alike.

    Raises:
        UsageError: an unknown flag (the nearest one is named), or one without its value.
    """
    targets = {flag.name: flag.target for flag in flags}
    out: list[str] = []
    i = 0
    while i < len(args):
        name, equals, value = args[i].partition("=")
        if not name.startswith("--"):
            out.append(args[i])
            i += 1
            continue
        known = name in targets or name == "--help_all" or name.startswith(("--model", "--data", "--trainer"))
        if not known and name not in ("--seed_everything", "--print_config", "--return_predictions", "--verbose"):
            raise UsageError(f"{name}: unknown flag{_nearest(name, targets)}; --help lists them")
        target = "--help" if name == "--help_all" else targets.get(name, name)
        if name in targets and not equals:
            if i + 1 >= len(args) or args[i + 1].startswith("--"):
                raise UsageError(f"{name}: lacks its value")
            value, i = args[i + 1], i + 1
            equals = "="
        out.append(f"{target}{equals}{value}")
        i += 1
    return out


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _overview() -> str:
    lines = [
        f"usage: {PROGRAM} COMMAND [flags]",
        "",
        "3D medical volumes from too few measurements, with a 2D diffusion prior.",
        "",
        *(f"  {name:<9} {text}" for name, (text, _) in SUBCOMMANDS.items()),
        "",
        f"{PROGRAM} COMMAND --help       the flags that are mostly used",
        f"{PROGRAM} COMMAND --help_all   everything that Lightning's command line takes",
        "",
        f"example: {PROGRAM} predict --task cs_mri --acc 8",
    ]
    return "\n".join(lines)


def _help(subcommand: str) -> str:
    text, flags = SUBCOMMANDS[subcommand]
    width = max(len(flag.name) for flag in flags)
    lines = [
        f"usage: {PROGRAM} {subcommand} [flags]",
        "",
        f"{text[0].upper()}{text[1:]}. Default values stand in brackets.",
        "",
        *(f"  {flag.name:<{width}}  {flag.help}" for flag in flags),
        "",
        "Every other argument of the model (--model.*), data (--data.*) and trainer (--trainer.*): --help_all",
    ]
    return "\n".join(lines)
