"""The first moments of a command, before its slow imports: Ctrl-C and closed standard streams.

It is the first module that a command imports, so it imports only modules that are built into Python or that Python
itself imports at its start. Before it is imported, Ctrl-C shows Python's traceback.
"""

from __future__ import annotations

# `signal` imports `enum`, which takes as long as the rest of Python's start.
import _signal  # pyright: ignore[reportMissingImports]
import gc
import os
import sys

TYPE_CHECKING = False  # as in `typing`, which takes long to import
if TYPE_CHECKING:
    from typing import Any, NoReturn

INTERRUPTED = 130  # exit code as of a shell: 128 and the number of the signal, here SIGINT
_SHOW_CURSOR = b'\x1b[?25h'


def prepare_if_starting() -> None:
    """Calls `prepare_command` if Python is about to run a module of this package with `python -m`, or `ssanet`."""
    if sys.argv[:1] == ['-m']:  # as long as Python looks for the module
        module = sys.orig_argv[len(sys.orig_argv) - len(sys.argv)]
        if module.rpartition('-m')[2].partition('.')[0] == __package__:
            prepare_command()
    elif sys.argv and os.path.basename(sys.argv[0]) == 'ssanet':  # the script that pip writes
        prepare_command()


def prepare_command() -> None:
    """Prepares the process of a command before its slow imports.

    During imports Ctrl-C ends the process at once: nothing has been written yet, and a `KeyboardInterrupt` raised in
    the middle of an import may crash an extension module, or get lost. Closed standard streams (`2>&-`) are opened on
    /dev/null, or the next file that the command opens would receive what libraries write to them.

    Garbage is not collected until `finish_imports`: imports make little, and the search takes a fifth of their time.
    """
    gc.disable()
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # else it is ignored, as for background jobs
        _signal.signal(_signal.SIGINT, exit_at_once)
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name, descriptor in (('stdout', 1), ('stderr', 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, 'w', closefd=False))  # noqa: SIM115, open until the end


def finish_imports() -> None:
    """Lets Python collect garbage from now on, except among what has been imported, which stays until the end."""
    gc.freeze()
    gc.enable()


def exit_at_once(number: int, frame: Any) -> NoReturn:
    """A handler of SIGINT that ends the process."""
    try:
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR)  # which a progress bar has hidden
    except OSError:
        pass
    write_message('interrupted\n')
    os._exit(INTERRUPTED)


def write_message(message: str) -> None:
    """Writes to stderr from a signal handler, which may run in the middle of another write."""
    try:  # noqa: SIM105, `contextlib` takes long to import
        os.write(2, message.encode())
    except OSError:
        pass
