"""The growth of memory over many training steps and over many predictions, which should be none.

    python -m benchmarks.memory_growth --steps=2000 --predictions=10000

Trains the small network of the demo on drawn birds by the real training loop, with its checkpoints and evaluations, and
predicts from arrays. Every few steps it notes the resident memory of the process, and the number and size of the
arrays that JAX keeps alive. The slope is fitted to the second half of the notes, since caches fill up in the first.
"""

import contextlib
import dataclasses
import gc
import os
import resource
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from unittest import mock

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from benchmarks import runner
from benchmarks.comparisons import Findings, machine
from benchmarks.runner import setting
from configs import common, demo
from ssanet_jax.experiments.timing import Log, no_log
from ssanet_jax.predictor import load
from ssanet_jax.training import loop
from ssanet_jax.training.train import train

_SAMPLES = 40  # per program
_BATCH = 8
_METRIC_KEYS = {'value', 'count'}
_SIDE = 64  # pixels of an image
_IMAGES = 64  # of an epoch; there are as many evaluations and checkpoints as epochs

Item = TypeVar('Item')


@dataclasses.dataclass(frozen=True)
class Settings:
    """How long to run."""

    steps: int = setting(2000, 'Training steps.', minimum=2 * _SAMPLES)
    predictions: int = setting(10_000, 'Predictions.', minimum=2 * _SAMPLES)


class Sample(NamedTuple):
    """The memory at one moment."""

    done: int  # steps or predictions
    resident: int  # bytes of the process
    arrays: int  # that JAX keeps alive
    array_bytes: int
    objects: int  # of Python, that its garbage collector tracks, without the metrics that TensorStore never frees


def measure(settings: Settings, log: Log = no_log) -> Findings:
    """The memory over a training and over predictions, as a table and as figures."""
    with tempfile.TemporaryDirectory() as folder:
        samples = run(settings, Path(folder), log)
    table = Table('program', 'count', title='Growth of memory', caption=machine(), caption_justify='left')
    for heading in (
        'resident at start, MiB',
        'at end, MiB',
        'MiB per 1000',
        'JAX arrays',
        'at end',
        'Python objects',
        'at end',
    ):
        table.add_column(heading, justify='right')
    for name, found in samples.items():
        first, last = found[len(found) // 2], found[-1]
        cells = [f'{first.resident / 2**20:.1f}', f'{last.resident / 2**20:.1f}', f'{slope(found):+.2f}']
        cells += [str(number) for number in (first.arrays, last.arrays, first.objects, last.objects)]
        table.add_row(name, str(last.done), *cells)
    figures = [{'program': name, **sample._asdict()} for name, found in samples.items() for sample in found]
    return Findings(table=table, figures=figures)


def run(settings: Settings, folder: Path, log: Log = no_log) -> dict[str, list[Sample]]:
    """Trains and predicts.

    Args:
      settings: how long.
      folder: an empty folder.
      log: shows progress.

    Returns:
      The samples of 'training' and 'prediction', in order.
    """
    config = demo.get_config()
    config.data.update(train_count=_IMAGES, test_count=_BATCH, size=_SIDE, image_size=_SIDE, resize=_SIDE)
    config.data.update(batch_size=_BATCH, eval_batch_size=_BATCH, num_workers=1)
    config.model.update(num_parts=2, num_proposals=3, num_scales=3, crop_size=32)
    epochs = -(-settings.steps * _BATCH // _IMAGES)
    config.stages = common.joint(epochs=epochs, learning_rate=1e-3, schedule='constant')
    samples: dict[str, list[Sample]] = {'training': [], 'prediction': []}
    with open(os.devnull, 'w') as nowhere, _older_objects_left_out():
        _train_and_predict(settings, config, folder / 'run', Console(file=nowhere), samples, log)
    return samples


def _train_and_predict(
    settings: Settings, config: ConfigDict, workdir: Path, console: Console, samples: dict[str, list[Sample]], log: Log
) -> None:
    log(f'training for {settings.steps} steps')
    batches = loop._batches
    every = settings.steps // _SAMPLES
    with mock.patch.object(loop, '_batches', lambda *given: _sampled(batches(*given), every, samples['training'])):
        train(config, workdir, console)
    log(f'predicting {settings.predictions} images')
    predictor = load(workdir)
    image = np.zeros((_SIDE, _SIDE, 3), np.uint8)
    images = (image for _ in range(settings.predictions))
    for _ in _sampled(
        predictor.predict(images, batch_size=_BATCH), settings.predictions // _SAMPLES, samples['prediction']
    ):
        pass


@contextlib.contextmanager
def _older_objects_left_out() -> Iterator[None]:
    """Hides the objects that exist already from the garbage collector, which would walk over all of them each time."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def slope(samples: list[Sample]) -> float:
    """MiB of resident memory per 1000 steps or predictions, in the second half of the samples."""
    half = np.array([(sample.done, sample.resident) for sample in samples[len(samples) // 2 :]], float)
    return float(np.polyfit(half[:, 0], half[:, 1], 1)[0]) * 1000 / 2**20


def _sampled(items: Iterable[Item], every: int, samples: list[Sample]) -> Iterator[Item]:
    """Yields the items, and notes the memory before every few of them."""
    for number, item in enumerate(items):
        if number % every == 0:
            samples.append(_sample(number))
        yield item


def _sample(done: int) -> Sample:
    gc.collect()
    resident = int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize()
    arrays: list[Any] = jax.live_arrays()
    objects = sum(not _is_tensorstore_metric(item) for item in gc.get_objects())
    return Sample(done, resident, len(arrays), sum(array.nbytes for array in arrays), objects)


def _is_tensorstore_metric(item: Any) -> bool:
    """Whether an object is the values of a metric of TensorStore, such as `[{'value': 3}]`.

    `tensorstore.experimental_collect_matching_metrics`, which Orbax calls for each checkpoint, never frees these lists:
    about 66 per checkpoint.
    """
    return type(item) is list and bool(item) and all(type(row) is dict and _METRIC_KEYS & row.keys() for row in item)


if __name__ == '__main__':
    runner.run('memory_growth', Settings, measure)
