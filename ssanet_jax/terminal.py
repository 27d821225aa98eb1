"""What a command owes to the terminal that starts it: Ctrl-C, closed pipes, and characters that it cannot show.

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


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Raises `KeyboardInterrupt` at Ctrl-C, so that a command can clean up.

    The interrupt is raised again where a library swallows it. A second Ctrl-C ends the process at once.
    """
    if signal.getsignal(signal.SIGINT) not in (_exit_at_once, signal.default_int_handler):
        yield
        return

    def interrupt(number: int, frame: Any) -> NoReturn:
        signal.signal(signal.SIGINT, _exit_at_once)
        signal.setitimer(signal.ITIMER_REAL, _SECONDS, _SECONDS)
        raise KeyboardInterrupt

    def show_unraisable(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            shown_before(unraisable)

    shown_before = sys.unraisablehook
    before = signal.signal(signal.SIGINT, interrupt), signal.signal(signal.SIGALRM, interrupt)
    sys.unraisablehook = show_unraisable
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = shown_before
        for number, handler in zip((signal.SIGINT, signal.SIGALRM), before):
            signal.signal(number, handler)


def _exit_at_once(number: int, frame: Any) -> NoReturn:
    with contextlib.suppress(OSError):
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR)  # which a progress bar has hidden
        os.write(2, b'interrupted\n')
    os._exit(INTERRUPTED)


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
