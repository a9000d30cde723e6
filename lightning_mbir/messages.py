"""Where messages go: Python's logging, which the command line sets up, and nothing else does.

The loggers are those of the modules, below ``lightning_mbir``. As a library nothing is set up: warnings appear as
Python shows them, and the rest is for whoever sets logging up. ``print`` is for results alone.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO, TypeVar, cast

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

LOGGER = logging.getLogger("lightning_mbir")
LEVELS = {"": logging.INFO, "--quiet": logging.ERROR, "--verbose": logging.DEBUG}
"""From which on messages are told, by the switch."""


class _Stderr(io.TextIOBase):
    """Standard error as it is when something is written: a progress bar puts itself in between, to stay below."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


class _Plain(logging.Formatter):
    """One line; what is out of the ordinary says so."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.levelno == logging.INFO else f"{record.levelname.lower()}: {text}"


@contextmanager
def telling(switch: str = "") -> Iterator[None]:
    """Within the block, messages go to standard error: in colours on a terminal, as plain lines into a pipe; of several
    processes the first alone has anything to say below a warning.

    Warnings of Python come as messages too, without the line of code that they come from.

    Args:
        switch: of ``LEVELS``: what is told.
    """
    level = LEVELS[switch]
    handler: logging.Handler
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.highlighter import NullHighlighter
        from rich.logging import RichHandler

        handler = RichHandler(
            console=Console(file=cast(TextIO, _Stderr())),
            show_time=False,
            show_path=False,
            highlighter=NullHighlighter(),
        )
    else:
        handler = logging.StreamHandler(_Stderr())
        handler.setFormatter(_Plain())
    before = LOGGER.level, LOGGER.propagate
    LOGGER.setLevel(level if first_process() else max(level, logging.WARNING))
    LOGGER.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _tell
            # Lightning's copy of torch's pytree; nothing of ours, and nothing that a user could do (Lightning 2.6.6).
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning, r"lightning\.")
            # Each resume has a folder of its own, and `BestCheckpoint` goes on from the best of before.
            warnings.filterwarnings("ignore", r"The dirpath has changed from", UserWarning)
            # Steps are counted over all epochs, and the last one is logged whatever the interval.
            warnings.filterwarnings("ignore", r"The number of training batches .* is smaller than the logging interval")
            yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.level, LOGGER.propagate = before


@contextmanager
def about(name: str) -> Iterator[None]:
    """Within the block, warnings of Python are told with what they are about: a volume, a file or a flag. Those that
    name it themselves stay as they are."""

    def tell(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        _tell(message if str(message).startswith(f"{name}: ") else f"{name}: {message}", category)

    with warnings.catch_warnings():
        warnings.showwarning = tell
        yield


def console() -> Console:
    """Standard error, for progress: a terminal breaks lines between words, a pipe has each in one."""
    from rich.console import Console

    return Console(file=sys.stderr, soft_wrap=not sys.stderr.isatty())


def tracked(items: Iterable[T], what: str, total: int | None = None) -> Iterable[T]:
    """Items with a bar while they come, on a terminal that wants one; elsewhere as they are.

    Args:
        items: to go through.
        what: is done, for the bar.
        total: of them, where they do not tell.
    """
    from rich.progress import track

    shown = console()
    if quiet() or not first_process() or not shown.is_terminal:
        return items
    return track(items, what, total, console=shown, transient=True)


def quiet() -> bool:
    """Whether nothing but errors and results is wanted, so that there is no progress to show either."""
    return LOGGER.level > logging.WARNING


def first_process() -> bool:
    """Whether this is the first of the processes of a run, by what torchrun, Slurm and Lightning tell each."""
    for name in ("RANK", "SLURM_PROCID"):
        if name in os.environ:
            return os.environ[name] == "0"
    return all(os.environ.get(name, "0") == "0" for name in ("NODE_RANK", "LOCAL_RANK"))


def _tell(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """In one line, without the line of code; what will be gone one day is of interest to developers alone."""
    of_developers = issubclass(category, DeprecationWarning | PendingDeprecationWarning)
    LOGGER.log(logging.DEBUG if of_developers else logging.WARNING, "%s", " ".join(str(message).split()))
