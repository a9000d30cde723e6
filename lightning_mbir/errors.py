"""The one error that a user can cause: bad input, told in one line."""

import sys


class InputError(ValueError):
    """Input that cannot be used. The message names the file or flag, what is wrong, and what would be right.

    The command line prints the message alone and exits with status 2; in Python it is a ``ValueError``.
    """


def fail(message: str) -> int:
    """Print one line on standard error; returns the exit status."""
    print(f"lightning_mbir: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
