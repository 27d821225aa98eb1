"""What a command owes to the terminal that starts it: Ctrl-C, SIGTERM, closed pipes, characters that it cannot show."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from ssanet_jax.startup import exit_at_once, write_message

TERMINATED = 75  # exit code after SIGTERM, of a command that resumes: EX_TEMPFAIL, run it again
CLOSED_PIPE = 141  # exit code as of a shell: 128 and the number of SIGPIPE
_SECONDS = 2.0  # until an interrupt that was swallowed is raised again


class Terminated(KeyboardInterrupt):
    """SIGTERM. Whatever cleans up at Ctrl-C cleans up at SIGTERM too."""


class Interrupts:
    """How a command handles Ctrl-C and, if it resumes when it is run again, SIGTERM.

    Both raise at once, so that the command can clean up: `KeyboardInterrupt` or `Terminated`. The exception is raised
    again where a library swallows it. Within `deferred`, they are only noted. A second Ctrl-C ends the process at once.
    """

    def __init__(self) -> None:
        self.pending: type[KeyboardInterrupt] | None = None
        """The exception of a signal that came while signals were deferred."""
        self._deferred = False

    def handle(self, number: int, frame: Any) -> None:
        """The handler of SIGINT, SIGTERM and, to raise again, SIGALRM."""
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, exit_at_once)
        if number == signal.SIGTERM and self.pending:
            return  # the command is ending
        if number != signal.SIGALRM:
            self.pending = self.pending or (Terminated if number == signal.SIGTERM else KeyboardInterrupt)
        if not self._deferred:
            self.raise_pending()
        elif number != signal.SIGALRM:
            write_message('stopping: the next step is the last; a checkpoint is saved (Ctrl-C again ends at once)\n')

    def raise_pending(self) -> None:
        """Raises the exception of a signal that came before, if any."""
        if self.pending is not None:
            signal.setitimer(signal.ITIMER_REAL, _SECONDS, _SECONDS)
            raise self.pending

    @contextlib.contextmanager
    def deferred(self, deferred: bool = True) -> Iterator[None]:
        """Only notes signals in `pending`; with False, raises them again, also one that came before."""
        before, self._deferred = self._deferred, deferred
        try:
            if not deferred:
                self.raise_pending()
            yield
        finally:
            self._deferred = before


_current = Interrupts()  # without handlers, unless a command runs


def interrupts() -> Interrupts:
    """How the running command handles signals. Outside of commands nothing is handled, and `pending` stays None."""
    return _current


@contextlib.contextmanager
def interruptible(*, resumes: bool = False) -> Iterator[None]:
    """Handles Ctrl-C as `Interrupts` says.

    An error after a signal is taken for its consequence: libraries turn the exception into one of their own.

    Args:
      resumes: the command resumes when it is run again, so SIGTERM is handled too.
    """
    global _current
    handled = []
    if signal.getsignal(signal.SIGINT) in (exit_at_once, signal.default_int_handler):
        handled.append(signal.SIGINT)
    if resumes and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        handled.append(signal.SIGTERM)
    if not handled:
        yield
        return

    def show_unraisable(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            shown_before(unraisable)

    shown_before = sys.unraisablehook
    outer, _current = _current, Interrupts()
    handle = _current.handle
    before = {number: signal.signal(number, handle) for number in (*handled, signal.SIGALRM)}
    sys.unraisablehook = show_unraisable
    try:
        yield
    except Exception as error:
        if _current.pending is None:
            raise
        raise _current.pending from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = shown_before
        _current = outer
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """Prints any character on stdout and stderr, and ends the process quietly if nobody reads them (`| head`).

    Raises:
      SystemExit: with code 141, if nobody reads the streams.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names may be in any code, and terminals too.
            stream.reconfigure(errors='backslashreplace')
    try:
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
    except (BrokenPipeError, SystemExit) as error:
        # rich ends the process itself, with code 1.
        if not isinstance(error, BrokenPipeError) and not isinstance(error.__context__, BrokenPipeError):
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):  # or Python complains when it flushes them at the end
            os.dup2(nowhere, descriptor)
        sys.exit(CLOSED_PIPE)
