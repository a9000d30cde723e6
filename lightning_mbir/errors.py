"""The one error that a user can cause: bad input, told in one line."""


class InputError(ValueError):
    """Input that cannot be used. The message names the file or flag, what is wrong, and what would be right.

    The command line prints the message alone and exits with status 2; in Python it is a ``ValueError``.
    """
