"""The one error that a user is meant to read."""


class UserError(Exception):
    """Bad input. The message is one line: what is wrong, and what to do about it.

    Commands print it without a traceback and leave with exit code 2.
    """
