"""What a run tells while it runs: a progress bar, a line an epoch, TensorBoard events, and a history to read again."""

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from tensorboardX import SummaryWriter

from ssanet_jax.data.pipeline import num_steps
from ssanet_jax.distributed import processes
from ssanet_jax.runs.history import EPOCH, EVALUATION, HISTORY_FILE, PREDICTION, History


class StageWriter:
    """Progress of one stage, on the console, in TensorBoard and in its history.

    Args:
      console: where people look; a bar where it is a terminal, a line an epoch everywhere.
      directory: of the TensorBoard events and of the history.
      row: the stage.
      images: images an epoch.
      batch_size: images a step.
      first: step at which this process takes up the work.
      split: the images that evaluations are made on, 'test' or 'validation'.
    """

    def __init__(
        self,
        console: Console,
        directory: Path,
        row: ConfigDict,
        images: int,
        batch_size: int,
        first: int,
        split: str,
    ):
        self._console, self._row, self._images, self._batch_size = console, row, images, batch_size
        self._split = split
        self._total = num_steps(row.epochs, images, batch_size)
        self._events = SummaryWriter(str(directory), purge_step=first, write_to_disk=processes.is_primary_process())
        self._history = History(directory / HISTORY_FILE, first)
        self._progress = Progress(
            TextColumn('[bold]{task.features}'),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn('{task.fields[state]}'),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(row.name, total=self._total, completed=first, state='compiling')
        self._clock = time.monotonic()
        self._since = first
        self._epoch: list[Mapping[str, float]] = []

    def __enter__(self) -> 'StageWriter':
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        self._events.close()
        self._history.close()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records the metrics of a step; at the end of an epoch prints their means and the time left."""
        for name, value in metrics.items():
            self._events.add_scalar(name, value, step)
        self._epoch.append(metrics)
        pace = (time.monotonic() - self._clock) / (step - self._since)  # seconds a step
        left = timedelta(seconds=round(pace * (self._total - step)))
        images = self._batch_size / pace
        self._progress.update(
            self._task, completed=step, state=f'loss {metrics["loss/total"]:.3f}  {images:.1f} images/s  {left} left'
        )
        epoch = step * self._batch_size // self._images
        if epoch > (step - 1) * self._batch_size // self._images:
            means = {name: np.mean([m[name] for m in self._epoch]) for name in metrics}
            self._console.print(
                f'{self._row.name}  epoch {epoch}/{self._row.epochs}  loss {means["loss/total"]:.3f}  '
                f'batch accuracy {means["accuracy"]:.3f}  {images:.1f} images/s  {left} left',
                highlight=False,
                soft_wrap=True,
            )
            self._events.add_scalar('images_per_second', images, step)
            # Taken up in mid-epoch, the means are over fewer steps than an epoch has.
            means['images_per_second'] = images
            self._history.add(EPOCH, step, epoch, means, steps=len(self._epoch))
            self._epoch = []

    def evaluation(self, step: int, result: Mapping) -> None:
        """Records the accuracy of every head."""
        heads = {**result['heads'], PREDICTION: result['accuracy']}
        for name, value in heads.items():
            self._events.add_scalar(f'{self._split}_accuracy/{name}', value, step)
        epoch = self._row.epochs if step == self._total else step * self._batch_size // self._images
        self._history.add(EVALUATION, step, epoch, heads, split=self._split, examples=result['examples'])
        listed = '  '.join(f'{name} {value:.4f}' for name, value in heads.items())
        self._console.print(f'{self._row.name}  {self._split} accuracy: {listed}', highlight=False, soft_wrap=True)

    def unreadable(self, problems: Sequence[str]) -> None:
        """Lists the images that could not be read."""
        for problem in problems:
            self._console.print(
                f'{self._row.name}  skipped: {problem}', style='yellow', highlight=False, soft_wrap=True
            )

    def restart_clock(self, step: int) -> None:
        """Leaves out of images per second what came since `step`: compilation, a save, an evaluation."""
        self._clock, self._since = time.monotonic(), step
