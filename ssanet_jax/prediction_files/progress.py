"""Progress of a prediction: a bar on a terminal, else a line every few seconds."""

import time
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress

from ssanet_jax.plain_text import text_column

_SECONDS = 10.0  # between lines


class PredictionProgress:
    """Shows how many images are done, the images per second, and the time left.

    Args:
      console: where to.
      total: number of images.
      done: number of images that an earlier start has done.
    """

    def __init__(self, console: Console, total: int, done: int = 0):
        self._console, self._total, self._done = console, total, done
        self._bar = Progress(
            text_column('predicting'),
            BarColumn(),
            MofNCompleteColumn(),
            text_column('{task.fields[pace]}'),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task('', total=total, completed=done, pace='')
        self._first: tuple[float, int] | None = None  # when the first batch was done, and the images until then
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, count: int) -> None:
        """Adds images that are done. The first ones, for which the network is compiled, do not count for the pace."""
        self._done += count
        now = time.monotonic()
        pace = ''
        if self._first is None:
            self._first = now, self._done
        elif now > self._first[0]:
            per_second = (self._done - self._first[1]) / (now - self._first[0])
            left = timedelta(seconds=round((self._total - self._done) / per_second))
            pace = f'{per_second:.1f} images/s  {left} left'
        self._bar.update(self._task, completed=self._done, pace=pace)
        if not self._console.is_terminal and now - self._last_line >= _SECONDS:
            self._last_line = now
            line = f'predicted {self._done} of {self._total} images  {pace}'.rstrip()
            self._console.print(line, soft_wrap=True)
