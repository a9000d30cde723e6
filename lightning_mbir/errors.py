"""The one error that a user can cause: bad input, told in one line."""

import difflib
import math
import operator
import sys
from collections.abc import Iterable
from typing import Any

LONG = 300
"""Characters of a word, such as a path, that are shown whole."""


class InputError(ValueError):
    """Input that cannot be used. The message names the file or flag, what is wrong, and what would be right.

    The command line prints the message alone and exits with status 2; in Python it is a ``ValueError``.
    """


class WriteError(InputError, OSError):
    """What the disk refused to take: no space left, something in the way, no permission."""


def fail(message: str) -> int:
    """Print one line on standard error; returns the exit status."""
    words = [word if len(word) <= LONG else f"{word[: LONG // 2]}...{word[-20:]}" for word in message.split()]
    print(f"lightning_mbir: error: {' '.join(words)}", file=sys.stderr)
    return 2


def nearest(name: str, names: Iterable[str], likeness: float = 0.6) -> str:
    """A question for the name that may have been meant, to stand behind an unknown one; empty where none is near.

    Args:
        name: that there is not.
        names: that there are.
        likeness: of the two, from 0 to 1; more where all begin alike.
    """
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=likeness)
    return f" (did you mean {near[0]}?)" if near else ""


def is_finite(value: Any) -> bool:
    """Whether this is a real finite number of any kind (Python's, NumPy's, a tensor of one)."""
    try:
        return math.isfinite(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):  # RuntimeError: a complex tensor, or one of several
        return False


def whole_number(what: str, value: Any) -> int:
    """A whole number of any kind (Python's, NumPy's, a tensor of one) as Python's.

    Raises:
        InputError: another value, such as 2.0.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(f"{what} {value!r}: give a whole number") from None
