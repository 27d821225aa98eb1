"""The throughput of reading, decoding and cropping images, and how long a training step waits for them.

    python -m benchmarks.pipeline --data_dir=CUB_200_2011

Reads the first photos of CUB-200-2011 at 512 x 512, crops 448 and flips half of them: with Pillow in one thread, and
with the project's pipeline in the calling thread (so both use one core), interleaved in one process; the median of the
rounds counts. Then it trains a linear classifier on a frozen EfficientNet-Lite0 at 224, the stage with the shortest
step, and measures the time that the loop waits for batches.
"""

import dataclasses
import io
import itertools
import resource
import sys
import time
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from benchmarks import runner
from benchmarks.comparisons import Comparison, Findings
from benchmarks.runner import setting
from configs import common, cub
from ssanet_jax.data.pipeline import train_batches
from ssanet_jax.data.registry import load_dataset
from ssanet_jax.data.splits import Subset
from ssanet_jax.distributed import sharding
from ssanet_jax.errors import UserError
from ssanet_jax.experiments.timing import Log, no_log, time_interleaved
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.runs.preprocessing import resolve_preprocessing
from ssanet_jax.runs.run import build_model
from ssanet_jax.training.step import TrainState, make_train_step

RESIZE, CROP, BATCH = 512, 448, 16


@dataclasses.dataclass(frozen=True)
class Settings:
    """The images and rounds."""

    data_dir: str = setting('', 'The extracted CUB_200_2011 folder.')
    images: int = setting(480, 'Photos per round.', minimum=32)
    rounds: int = setting(5, 'Rounds; the median counts.')
    steps: int = setting(20, 'Training steps to measure.')


def measure(settings: Settings, log: Log = no_log) -> Findings:
    """Pillow's time over this pipeline's, and the waiting time of a training step over its total time.

    Raises:
      UserError: `data_dir` is missing.
    """
    if not settings.data_dir:
        raise UserError('--data_dir is missing: the extracted CUB_200_2011 folder')
    return Findings([compare_reading(settings, log), measure_waiting(settings, log)])


def compare_reading(settings: Settings, log: Log) -> Comparison:
    """The time per photo on one core, of Pillow and of this pipeline, and the memory of the latter."""
    config = common.get_config().data
    config.update(dir=settings.data_dir, shrink=False, resize=RESIZE, image_size=CROP, batch_size=BATCH, num_workers=0)
    config.interpolation = 'bilinear'  # as Pillow below
    source = load_dataset(config).train
    files = [Path(settings.data_dir) / source[index]['file'] for index in range(min(settings.images, len(source)))]
    files = files[: len(files) // BATCH * BATCH]
    subset = Subset(source, np.arange(len(files)))

    def ours() -> None:
        for _ in train_batches(subset, config, seed=0, epochs=1):
            pass

    log('first pass')
    before = _peak_memory()
    ours()
    grown = _peak_memory() - before
    times = time_interleaved({'Pillow': lambda: _read_by_pillow(files), 'this pipeline': ours}, settings.rounds, log)
    theirs, own = (seconds / len(files) for seconds in times.values())
    return Comparison(
        'Pillow, one thread',
        'this pipeline, one thread',
        f'{len(files)} photos to {RESIZE} x {RESIZE}, crop {CROP}, flip; time per photo',
        runner.command_line('pipeline', settings),
        (theirs, own),
        remark=f'{1 / theirs:.0f} and {1 / own:.0f} images/s; the first pass adds {grown / 2**20:.0f} MiB of memory',
        details={'growth_bytes': grown},
    )


def _read_by_pillow(files: list[Path]) -> None:
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


def measure_waiting(settings: Settings, log: Log) -> Comparison:
    """The fraction of a training step spent waiting for the next batch."""
    config = cub.get_config()
    config.data.dir = settings.data_dir
    dataset = load_dataset(config.data)
    model = build_model(config, len(dataset.class_names))
    config = resolve_preprocessing(config)
    stage, size = config.stages[0], config.data.batch_size
    stage.cache = 0  # every step reads its images
    mesh = sharding.make_mesh()
    optimizer, step = make_train_step(model, stage, frozenset(stage.train), config, len(dataset.train) / size, mesh)
    _, params, stats = split_model(model)
    state = TrainState(*sharding.replicate((params, stats, optimizer.init(params), np.int32(0)), mesh))
    batches = train_batches(dataset.train, config.data, seed=0, epochs=stage.epochs)
    ready = sharding.prefetch_to_device(batches, mesh, ('image', 'label'))
    log(f'measuring {settings.steps} training steps')
    waited = worked = 0.0
    for number in itertools.count(-2):  # the first two compile and fill the queue
        start = time.perf_counter()
        _, batch = next(ready)
        received = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch))
        if number >= 0:
            waited += received - start
            worked += time.perf_counter() - received
        if number + 1 == settings.steps:
            break
    return Comparison(
        'waiting for data',
        'training step and waiting',
        f'{stage.name}, {config.model.backbone}, {config.data.image_size}, batch {size}',
        runner.command_line('pipeline', settings),
        (waited / settings.steps, (waited + worked) / settings.steps),
    )


def _peak_memory() -> int:
    """The peak resident memory of the process, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


if __name__ == '__main__':
    runner.run('pipeline', Settings, measure)
