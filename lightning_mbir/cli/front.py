"""The command line's front: short flags, short help, one-line errors.

Nothing heavy is imported here, so that help and slips of the pen are answered at once. What remains goes to
``cli.lightning``, where Lightning's own command line takes over.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning_mbir.cli.errors import disk_line
from lightning_mbir.cli.orphans import look_after_first
from lightning_mbir.errors import InputError, fail, nearest
from lightning_mbir.files import check_writable
from lightning_mbir.flags import CONFIG, DEFAULT_TASKS, SIMULATION, SUBCOMMANDS, SWITCHES, TRUST, Flag, is_class_path
from lightning_mbir.interrupts import interruptible
from lightning_mbir.lazy import trusting
from lightning_mbir.methods.catalog import cards, check_known, describe, wrong_modality
from lightning_mbir.methods.method import Option
from lightning_mbir.methods.settings import AUTO, SETTINGS, check_task, checked_settings
from lightning_mbir.packaged import config_file

SECTIONS = ("--model", "--data", "--trainer")
PROGRAM = "python -m lightning_mbir"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (2 for input that cannot be used)."""
    look_after_first()
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if args[0] == "--version":
        from lightning_mbir.version import __version__

        print(f"lightning_mbir {__version__}")
        return 0
    subcommand, *rest = args
    if subcommand not in SUBCOMMANDS:
        known = ", ".join(SUBCOMMANDS)
        return fail(f"{subcommand}: unknown command; there are {known}{nearest(subcommand, SUBCOMMANDS)}")
    flags = SUBCOMMANDS[subcommand][1]
    try:
        trusted, rest = _trusted(rest)
        switch, rest = _switch(rest)
        with trusting(trusted):
            if "-h" in rest or "--help" in rest:
                print(_help(subcommand, rest))
                return 0
            translated = translate(rest, flags)
            check(subcommand, rest)
    except (UsageError, InputError) as error:
        return fail(str(error))
    except OSError as error:
        return fail(disk_line(error))

    def work() -> int:
        from lightning_mbir.messages import telling

        with trusting(trusted), telling(switch):
            from lightning_mbir.cli.lightning import run

            return run(subcommand, translated, flags, trusted)

    return interruptible(work)


class UsageError(Exception):
    """A flag that there is not, or that lacks its value."""


def _trusted(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """The packages of ``--trust``, which counts where it is typed alone, and the other arguments.

    Raises:
        UsageError: no name of a package.
    """
    named: list[str] = []
    others: list[str] = []
    left = list(args)
    while left:
        arg = left.pop(0)
        name, equals, value = arg.partition("=")
        if name != TRUST.name:
            others.append(arg)
            continue
        if not equals:
            value = left.pop(0) if left else ""
        for package in value.split(","):
            if not package.isidentifier() or package == "jsonargparse":  # which says what may be imported
                raise UsageError(f"--trust {value}: give packages, such as my_methods,my_priors")
            named.append(package)
    return named, others


def _switch(args: Sequence[str]) -> tuple[str, list[str]]:
    """How much is told, and the other arguments.

    Raises:
        UsageError: both flags, or a value to one of them.
    """
    given = [arg for arg in args if arg.partition("=")[0] in SWITCHES]
    for arg in given:
        if "=" in arg:
            raise UsageError(f"{arg}: takes no value; give {arg.partition('=')[0]}")
    if len(set(given)) > 1:
        raise UsageError("--quiet and --verbose: give one of them")
    return (given[0] if given else ""), [arg for arg in args if arg not in SWITCHES]


def translate(args: Sequence[str], flags: Sequence[Flag]) -> list[str]:
    """Short flags to Lightning's arguments, ``--flag value`` and ``--flag=value`` alike.

    Raises:
        UsageError: an unknown flag (the nearest one is named), or one without its value.
    """
    targets = {flag.name: flag.target for flag in flags}
    for arg in args:
        if "\0" in arg:
            raise UsageError(f"{arg}: holds a zero byte, which no name or value has")
        if any("\ud800" <= letter <= "\udfff" for letter in arg):  # as Python writes bytes that are no text
            raise UsageError(f"{arg!a}: is no text in UTF-8; give text, and rename files that are called so")
    out: list[str] = []
    i = 0
    while i < len(args):
        name, equals, value = args[i].partition("=")
        if not name.startswith("--"):
            out.append(args[i])
            i += 1
            continue
        known = name in targets or name == "--help_all" or name.startswith(SECTIONS)
        if not known and name not in ("--seed_everything", "--print_config", "--return_predictions"):
            raise UsageError(f"{name}: unknown flag{nearest(name, targets)}; --help lists them")
        target = "--help" if name == "--help_all" else targets.get(name, name)
        if name in targets and not equals:
            if i + 1 >= len(args) or args[i + 1].startswith("--"):
                raise UsageError(f"{name}: lacks its value")
            value, i = args[i + 1], i + 1
            equals = "="
        elif not equals and name.startswith(SECTIONS) and args[i + 1 : i + 2] and not args[i + 1].startswith("--"):
            value, i = args[i + 1], i + 1
            equals = "="
        if equals and not value.strip():
            raise UsageError(f"{name}: lacks its value; leave it out for the default")
        out.append(f"{target}{equals}{value}")
        i += 1
    return out


def check(subcommand: str, args: Sequence[str]) -> None:
    """Look at what was typed before anything heavy is imported.

    What stands in a configuration is not known here, and looked at later, as all of this is again.

    Raises:
        InputError: a value that cannot be, something that is not there, a task or method that there is not, or that do
            not go together.
    """
    from lightning_mbir.yaml_text import check_value, read_config  # of what help does not need

    known = {flag.name: flag for flag in SUBCOMMANDS[subcommand][1]}
    values: dict[str, Any] = {}
    for name, text in _pairs(args):
        if name in known:
            values[name.removeprefix("--")] = known[name].value(text)
        try:
            if name == CONFIG.name:
                read_config(config_file(text))
            else:
                check_value(text)
        except InputError as error:
            raise InputError(f"{name} {text}: {error}") from error
    if "output_dir" in values:
        check_writable(Path(values["output_dir"]))
    task = values.get("task", None if "config" in values else DEFAULT_TASKS.get(subcommand))
    if task is not None:
        check_task(task)
        simulated = {name.removeprefix("--") for name in SIMULATION} - {"task"}
        checked_settings(task, **{name: value for name, value in values.items() if name in simulated})
    wanted = values.get("methods") or values.get("method") or ""
    for method in (name.strip(" []'\"") for name in wanted.split(",")):  # a list of YAML too
        if method and method != AUTO and not is_class_path(method):
            modalities = check_known(method).modalities
            if task is not None and SETTINGS[task][0] not in modalities:
                raise wrong_modality(method, SETTINGS[task][0])


def _pairs(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Flags with the texts of their values."""
    for i, arg in enumerate(args):
        name, equals, value = arg.partition("=")
        if name.startswith("--") and (equals or i + 1 < len(args)):
            yield name, value if equals else args[i + 1]


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


def _help(subcommand: str, args: Sequence[str]) -> str:
    """Help of a subcommand; of a method, where one is named."""
    text, flags = SUBCOMMANDS[subcommand]
    chosen = dict(_pairs(args)).get("--method", "")
    if chosen and chosen != AUTO and not chosen.startswith("-"):
        return _method_help(subcommand, chosen)
    default = f" [{DEFAULT_TASKS.get(subcommand)}]"  # of --task, which subcommands share
    lines = [
        f"usage: {PROGRAM} {subcommand} [flags]",
        "",
        f"{text[0].upper()}{text[1:]}. Default values stand in brackets.",
        "",
        *_columns([*((flag.name, flag.text + default * (flag.name == "--task")) for flag in flags), *SWITCHES.items()]),
        "",
    ]
    if any(flag.name == "--method" for flag in flags):
        known = cards()
        width = max(len(card.name) for card in known)
        lines += ["Methods (`--method NAME --help` has the options of one):", ""]
        lines += _columns([(f"{card.name:<{width}}  {' '.join(card.modalities):<6}", card.summary) for card in known])
        lines.append("")
    if subcommand == "validate":
        lines += ["Prints PSNR in dB at each noise level, and the loss that `fit` goes by. Writes nothing.", ""]
    lines.append("Every other argument of the model (--model.*), data (--data.*) and trainer (--trainer.*): --help_all")
    return "\n".join(lines)


def _method_help(subcommand: str, name: str) -> str:
    card = describe(name)
    lines = [f"usage: {PROGRAM} {subcommand} --method {name} [flags]", "", card.summary, ""]
    rows: list[tuple[str, str]] = []
    for option, text in card.options:
        words = f"{text.replace('``', '').rstrip('.')} [{option.text}]"
        rows.append((option.name, "; ".join((words, *told(option)))))
    own = [option for option, _ in card.options if option.name != "steps"]
    how = "Defaults stand in brackets, then what is allowed, and the unit." if rows else "It has no options."
    lines += [*_columns(rows), *([""] if rows else []), f"For {' and '.join(card.modalities)}. {how}"]
    if own:
        value = own[0].text if isinstance(own[0].default, int | float) else f'"{own[0].text}"'
        steps = ", steps as --steps" if len(own) < len(card.options) else ""
        lines.append(f"Options are given as --model.method_options '{{\"{own[0].name}\": {value}}}'{steps}.")
        lines.append("What was tuned for a task goes before the defaults: configs/tuned/TASK.yaml.")
    return "\n".join(lines)


def _columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Names and words beside each other, as wide as the terminal, but 60 to 120 characters, as in a pipe."""
    width = max((len(name) for name, _ in rows), default=0)
    room = min(max(shutil.get_terminal_size((120, 24)).columns, 60), 120) - width - 4
    lines = []
    for name, text in rows:
        first, *rest = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
        lines += [f"  {name:<{width}}  {first}", *(f"  {'':<{width}}  {line}" for line in rest)]
    return lines


def told(option: Option) -> list[str]:
    """What an option may be, with its unit, and where ``--tune true`` searches it."""
    search = option.search
    between = f" from {search.least:g} to {search.most:g}" if search and not isinstance(option.default, bool) else ""
    may_be = ", ".join(filter(None, (option.range, option.unit)))
    return [part for part in (may_be, search and f"--tune searches{between}") if part]
