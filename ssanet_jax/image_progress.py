"""Progress over images: a bar on a terminal, else a line every few seconds."""

import contextlib
import time
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress

from ssanet_jax.activity import every
from ssanet_jax.plain_text import text_column


class ImageProgress:
    """Shows how many images are done, the images per second, and the time left.

    The first images, for which the network is compiled, do not count for the pace.

    Args:
      console: where to.
      total: number of images.
      done: number of images that an earlier start has done.
      task: what is done with them, such as 'predicting'.
      later: work after these images that takes as long as this number of them.
    """

    def __init__(self, console: Console, total: int, done: int = 0, *, task: str, later: float = 0.0):
        self._console, self._total, self._done, self._task, self._later = console, total, done, task, later
        self._bar = Progress(
            text_column('{task.description}'),
            BarColumn(),
            MofNCompleteColumn(),
            text_column('{task.fields[state]}'),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._id = self._bar.add_task(task, total=total, completed=done, state='compiling')
        self._state = 'compiling'
        self._first: tuple[float, int] | None = None  # when the first batch was done, and the images until then
        self._lines = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._bar.start()
        if not self._console.is_terminal:
            self._lines.enter_context(every(lambda seconds: self._print()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._bar.stop()

    def advance(self, count: int) -> None:
        """Adds images that are done."""
        self._done += count
        now = time.monotonic()
        self._state = ''
        if self._first is None:
            self._first = now, self._done
        elif now > self._first[0]:
            per_second = (self._done - self._first[1]) / (now - self._first[0])
            left = timedelta(seconds=round((self._total - self._done + self._later) / per_second))
            self._state = f'{per_second:.1f} images/s  {left} left'
        self._bar.update(self._id, completed=self._done, state=self._state)

    def line(self) -> str:
        """The progress in one line, such as 'predicting: 24 of 100 images  2.0 images/s  0:00:38 left'."""
        return f'{self._task}: {self._done} of {self._total} images  {self._state}'.rstrip()

    def _print(self) -> None:
        self._console.print(self.line(), markup=False, highlight=False, soft_wrap=True)
