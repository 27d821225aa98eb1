"""Tells what a command is doing while nothing else appears: a spinner on a terminal, lines in a log."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

from rich.console import Console

SECONDS = 10.0  # between lines of a log


def still_line(text: str, seconds: float) -> str:
    """The line about something that goes on, such as 'compiling (0:00:20 so far)'."""
    return f'{text} ({timedelta(seconds=round(seconds))} so far)'


@contextlib.contextmanager
def activity(console: Console, text: str, *, at_once: bool = True) -> Iterator[None]:
    """Shows what goes on until the end of the context. Nothing else may show a bar or a spinner meanwhile.

    In a log, the text is a line at once, and again with the time every ten seconds.

    Args:
      console: where to.
      text: such as 'compiling'.
      at_once: print the first line of a log at once, not only if ten seconds pass.
    """
    if console.is_terminal:
        with console.status(text):
            yield
        return
    show = lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)
    if at_once:
        show(text)
    with every(lambda seconds: show(still_line(text, seconds))):
        yield


@contextlib.contextmanager
def every(call: Callable[[float], None], seconds: float = SECONDS) -> Iterator[None]:
    """Calls a function at regular times in a thread, until the end of the context.

    Args:
      call: takes the seconds since the start.
      seconds: between two calls.
    """
    started, ended = time.monotonic(), threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            call(time.monotonic() - started)

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
