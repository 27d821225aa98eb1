"""How fast images are read, decoded and cropped, and how long a training step waits for them.

    python -m benchmarks.pipeline --data_dir=CUB_200_2011

Reads the first photos of CUB-200-2011 to 512 x 512, crops 448 and mirrors half of them: Pillow in one
thread, then the project's pipeline in the calling thread alone (so both have one core), round by round in
the same process; the median of the rounds counts. Then it trains a linear classifier on a frozen
EfficientNet-Lite0 at 224, the stage with the shortest step, and takes the time that the loop spends
waiting for its batches.
"""

import io
import itertools
import json
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from absl import flags
from PIL import Image
from rich.console import Console
from rich.table import Table

from configs import common, cub
from ssanet_jax import command, parallel
from ssanet_jax.data import dataset as datasets
from ssanet_jax.data.pipeline import train_batches
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.training import experiment
from ssanet_jax.training.step import TrainState, make_train_step

_DATA_DIR = flags.DEFINE_string('data_dir', None, 'The extracted CUB_200_2011 folder.', required=True)
_IMAGES = flags.DEFINE_integer('images', 480, 'Photos a round.', lower_bound=32)
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Rounds; the median counts.', lower_bound=1)
_STEPS = flags.DEFINE_integer('steps', 20, 'Training steps watched.', lower_bound=1)
_OUT = flags.DEFINE_string('out', None, 'JSON file for the figures.')

RESIZE, CROP, BATCH = 512, 448, 16


def main(arguments: list[str]) -> None:
    """Prints the table."""
    if arguments:
        raise command.UserError(f'{arguments[0]!r} is no flag: see --help')
    figures = compare_reading() | measure_waiting()
    table = Table('what', 'figure')
    for name, value in figures.items():
        table.add_row(name, f'{value:.3g}' if isinstance(value, float) else str(value))
    Console().print(table)
    if _OUT.value:
        Path(_OUT.value).write_text(json.dumps(figures, indent=2) + '\n')


def compare_reading() -> dict[str, float]:
    """Images a second of one core, Pillow's and ours, and the memory that ours takes."""
    config = common.get_config().data
    config.update(dir=_DATA_DIR.value, shrink=False, resize=RESIZE, image_size=CROP, batch_size=BATCH, threads=0)
    config.interpolation = 'bilinear'  # as Pillow below
    source = datasets.load(config).train
    files = [Path(_DATA_DIR.value) / source[index]['file'] for index in range(min(_IMAGES.value, len(source)))]
    files = files[: len(files) // BATCH * BATCH]
    chosen = datasets.Subset(source, np.arange(len(files)))

    def pillow() -> None:
        rng = np.random.default_rng(0)
        batch = []
        for file in files:
            image = Image.open(io.BytesIO(file.read_bytes())).convert('RGB')
            image = image.resize((RESIZE, RESIZE), Image.Resampling.BILINEAR)
            left, top = rng.integers(RESIZE - CROP + 1, size=2)
            image = image.crop((left, top, left + CROP, top + CROP))
            if rng.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            batch.append(np.asarray(image))
            if len(batch) == BATCH:
                np.stack(batch)
                batch = []

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in train_batches(chosen, config, seed=0, epochs=1):
        pass
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB

    def ours() -> None:
        for _ in train_batches(chosen, config, seed=0, epochs=1):
            pass

    seconds = {'pillow': [], 'ours': []}
    for _ in range(_ROUNDS.value):
        seconds['pillow'].append(_time(pillow))
        seconds['ours'].append(_time(ours))
    pace = {name: len(files) / statistics.median(values) for name, values in seconds.items()}
    return {
        'Pillow, one thread, images/s': pace['pillow'],
        'this pipeline, one thread, images/s': pace['ours'],
        'ratio': pace['ours'] / pace['pillow'],
        'growth of memory in the first pass, MiB': grown / 1024,
    }


def measure_waiting() -> dict[str, float]:
    """The share of a training step that goes into waiting for the next batch."""
    config = cub.get_config()
    config.data.dir = _DATA_DIR.value
    row = config.stages[0]
    dataset = datasets.load(config.data)
    model = experiment.build_model(config, len(dataset.class_names))
    config = experiment.with_preprocessing(config, model)
    size = config.data.batch_size
    mesh = parallel.make_mesh()
    optimizer, step = make_train_step(model, row, frozenset(row.train), config, len(dataset.train) / size, mesh)
    _, params, stats = split_model(model)
    state = TrainState(*parallel.replicate((params, stats, optimizer.init(params), np.int32(0)), mesh))
    batches = train_batches(dataset.train, config.data, seed=0, epochs=row.epochs)
    ready = parallel.prefetch(batches, mesh, ('image', 'label'))
    waited = worked = 0.0
    for number in itertools.count(-2):  # the first two compile and fill the queue
        began = time.perf_counter()
        _, batch = next(ready)
        had = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch))
        if number >= 0:
            waited += had - began
            worked += time.perf_counter() - had
        if number + 1 == _STEPS.value:
            break
    return {
        f'device: {experiment.device_kind()}, training step, ms': 1e3 * (waited + worked) / _STEPS.value,
        'waiting for data, share of the step': waited / (waited + worked),
    }


def _time(function: Callable[[], None]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


if __name__ == '__main__':
    command.run(main)
