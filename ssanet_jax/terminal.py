"""What a command owes to the terminal that starts it: Ctrl-C, SIGTERM, closed pipes, characters that it cannot show.

It is the first module that a command imports, so it imports only modules that Python itself imports at its start, and
`signal`.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys

TYPE_CHECKING = False  # as in `typing`, which takes long to import
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn

INTERRUPTED = 130  # exit codes as of a shell: 128 and the number of the signal, here SIGINT
TERMINATED = 75  # after SIGTERM, of a command that resumes: EX_TEMPFAIL, run it again
CLOSED_PIPE = 141  # SIGPIPE
_SHOW_CURSOR = b'\x1b[?25h'
_SECONDS = 2.0  # until an interrupt that was swallowed is raised again


def prepare_command() -> None:
    """Prepares the process of a command before its slow imports.

    During imports Ctrl-C ends the process at once: nothing has been written yet, and a `KeyboardInterrupt` raised in
    the middle of an import may crash an extension module, or get lost. Closed standard streams (`2>&-`) are opened on
    /dev/null, or the next file that the command opens would receive what libraries write to them.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name, descriptor in (('stdout', 1), ('stderr', 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, 'w', closefd=False))  # noqa: SIM115, open until the end
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as for background jobs
        signal.signal(signal.SIGINT, _exit_at_once)


def prepare_if_starting() -> None:
    """Calls `prepare_command` if Python is about to run a module of this package with `python -m`."""
    if sys.argv[:1] == ['-m']:  # as long as Python looks for the module
        module = sys.orig_argv[len(sys.orig_argv) - len(sys.argv)]
        if module.rpartition('-m')[2].partition('.')[0] == __package__:
            prepare_command()


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
            signal.signal(signal.SIGINT, _exit_at_once)
        if number == signal.SIGTERM and self.pending:
            return  # the command is ending
        if number != signal.SIGALRM:
            self.pending = self.pending or (Terminated if number == signal.SIGTERM else KeyboardInterrupt)
        if not self._deferred:
            self.raise_pending()
        elif number != signal.SIGALRM:
            _write('stopping: the next step is the last; a checkpoint is saved (Ctrl-C again ends at once)\n')

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

    Args:
      resumes: the command resumes when it is run again, so SIGTERM is handled too.
    """
    global _current
    handled = []
    if signal.getsignal(signal.SIGINT) in (_exit_at_once, signal.default_int_handler):
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
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = shown_before
        _current = outer
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_at_once(number: int, frame: Any) -> NoReturn:
    with contextlib.suppress(OSError):
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR)  # which a progress bar has hidden
    _write('interrupted\n')
    os._exit(INTERRUPTED)


def _write(message: str) -> None:
    """Writes to stderr from a signal handler, which may run in the middle of another write."""
    with contextlib.suppress(OSError):
        os.write(2, message.encode())


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
