"""The errors that a user is meant to read."""


class UserError(Exception):
    """Bad input. The message is one line: what is wrong, and what to do about it.

    Commands print it without a traceback and leave with exit code 2.
    """


class UnreadableImage(UserError):
    """A file that is damaged or not an image. Training skips it, evaluation counts it as an error.

    Args:
      message: as for `UserError`.
      reason: the part of the message that says what is wrong with the content, without the name of the file.
    """

    def __init__(self, message: str, reason: str = ''):
        super().__init__(message)
        self.reason = reason
