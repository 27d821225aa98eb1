"""Progress of a stage: a progress bar, a line per epoch, TensorBoard events, and a history file."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress

from ssanet_jax.activity import every
from ssanet_jax.distributed import processes
from ssanet_jax.plain_text import text_column
from ssanet_jax.runs.history import EPOCH, EVALUATION, HISTORY_FILE, PREDICTION, History
from ssanet_jax.runs.results import EvaluationResult, unreadable_line
from ssanet_jax.training.event_file import EventFile
from ssanet_jax.training.triggers import Triggers


class StageLogger:
    """Logs one stage to the console, to TensorBoard and to its history.

    Args:
      console: shows a progress bar if it is a terminal, and a line per epoch in any case.
      directory: folder of the TensorBoard events and of the history.
      stage: name of the stage.
      triggers: the stage's steps and epochs.
      split: the images of its evaluations, 'test' or 'validation'.
      later_steps: the work of later stages, in steps of this one, for the time left.
      stops_early: whether stages may stop before their last step, so that the time left is an upper limit.
    """

    def __init__(
        self,
        console: Console,
        directory: Path,
        stage: str,
        triggers: Triggers,
        split: str,
        *,
        later_steps: float = 0.0,
        stops_early: bool = False,
    ):
        self._console, self._stage, self._triggers, self._split = console, stage, triggers, split
        self._later_steps = later_steps
        self._up_to = 'up to ' if stops_early else ''
        first = triggers.first_step
        self._events = EventFile(directory, first) if processes.is_primary_process() else None
        self._history = History(directory / HISTORY_FILE, first)
        self._progress = Progress(
            text_column('{task.description}', 'bold'),
            BarColumn(),
            MofNCompleteColumn(),
            text_column('{task.fields[state]}'),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(stage, total=triggers.num_steps, completed=first, state='')
        self._state, self._step = '', first
        self._lines = contextlib.ExitStack()
        self._clock_started = time.monotonic()
        self._clock_step = first
        self._epoch_metrics: list[Mapping[str, np.ndarray]] = []
        self._epoch_skipped = 0

    def __enter__(self) -> Self:
        self._progress.start()
        if not self._console.is_terminal:
            self._lines.enter_context(every(lambda seconds: self._print_state()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._progress.stop()
        self._history.close()
        if self._events is not None:
            self._events.close()

    def log_metrics(self, step: int, metrics: Mapping[str, np.ndarray], *, skipped: bool = False) -> None:
        """Logs the metrics of a step. At the end of an epoch, prints their means and the time left.

        Args:
          step: the step.
          metrics: scalars by name.
          skipped: the update was skipped, since a metric is not finite; the means are those of the other steps.
        """
        if skipped:
            self._epoch_skipped += 1
        else:
            self._add_scalars(metrics, step)
            self._epoch_metrics.append(metrics)
        seconds_per_step = (time.monotonic() - self._clock_started) / (step - self._clock_step)
        steps_left = self._triggers.num_steps - step + self._later_steps
        left = timedelta(seconds=round(seconds_per_step * steps_left))
        images_per_second = self._triggers.batch_size / seconds_per_step
        pace = f'{images_per_second:.1f} images/s  {self._up_to}{left} left'
        self._step = step
        self._show(f'loss {metrics["loss/total"]:.3f}  {pace}')
        if self._triggers.epoch_ends(step):
            epoch = self._triggers.whole_epochs(step)
            measured = self._epoch_metrics
            means = {name: float(np.mean([m[name] for m in measured])) for name in metrics if measured}
            losses = f'loss {means["loss/total"]:.3f}  batch accuracy {means["accuracy"]:.3f}  ' if measured else ''
            skips = f'{self._epoch_skipped} updates skipped  ' if self._epoch_skipped else ''
            self._print(f'epoch {epoch}/{self._triggers.epochs}  {losses}{skips}{pace}')
            self._add_scalars({'images_per_second': images_per_second}, step)
            means['images_per_second'] = images_per_second
            # After a resume within the epoch, the means are over fewer steps than an epoch has.
            fields = {'skipped': self._epoch_skipped} if self._epoch_skipped else {}
            self._history.add(EPOCH, step, epoch, means, steps=len(measured), **fields)
            self._epoch_metrics, self._epoch_skipped = [], 0

    @contextlib.contextmanager
    def doing(self, text: str) -> Iterator[None]:
        """Shows what goes on between two steps, such as 'compiling'."""
        before = self._state
        self._show(text)
        if not self._console.is_terminal:
            self._print_state()
        yield
        self._show(before)

    def log_evaluation(self, step: int, result: EvaluationResult) -> None:
        """Logs the accuracy of every head."""
        heads = {**result.heads, PREDICTION: result.accuracy}
        self._add_scalars({f'{self._split}_accuracy/{name}': value for name, value in heads.items()}, step)
        epoch = self._triggers.epochs_done(step)
        self._history.add(EVALUATION, step, epoch, heads, split=self._split, examples=result.examples)
        listed = '  '.join(f'{name} {value:.4f}' for name, value in heads.items())
        self._print(f'{self._split} accuracy: {listed}')
        if result.unreadable:
            self._print(unreadable_line(result.unreadable, result.examples), style='yellow')

    def log_unreadable(self, problems: Sequence[str]) -> None:
        """Lists the images that could not be read."""
        for problem in problems:
            self._print(f'skipped: {problem}', style='yellow')

    def restart_clock(self, step: int) -> None:
        """Measures images per second from `step` on: compilation, evaluations and saves before it do not count."""
        self._clock_started, self._clock_step = time.monotonic(), step

    def _show(self, state: str) -> None:
        self._state = state
        self._progress.update(self._task, completed=self._step, state=state)

    def _print_state(self) -> None:
        steps = f'step {self._step} of {self._triggers.num_steps}  ' if self._step else ''
        self._print(f'{steps}{self._state}')

    def _add_scalars(self, values: Mapping[str, float | np.ndarray], step: int) -> None:
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, float(value), step)

    def _print(self, message: str, style: str | None = None) -> None:
        self._console.print(f'{self._stage}  {message}', style=style, highlight=False, soft_wrap=True)
