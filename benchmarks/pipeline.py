"""How fast images are read, decoded and cropped, and how long a training step waits for them.

    python -m benchmarks.pipeline --data_dir=CUB_200_2011

Reads the first photos of CUB-200-2011 to 512 x 512, crops 448 and mirrors half of them: Pillow in one
thread, then the project's pipeline in the calling thread alone (so both have one core), round by round in
the same process; the median of the rounds counts. Then it trains a linear classifier on a frozen
EfficientNet-Lite0 at 224, the stage with the shortest step, and takes the time that the loop spends
waiting for its batches.
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

from benchmarks import alone
from benchmarks.alone import setting
from benchmarks.comparisons import Comparison, Findings
from configs import common, cub
from ssanet_jax.data.pipeline import train_batches
from ssanet_jax.data.registry import load_dataset
from ssanet_jax.data.splits import Subset
from ssanet_jax.distributed import sharding
from ssanet_jax.errors import UserError
from ssanet_jax.experiments.timing import Say, silent, take_turns
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.runs.preprocessing import resolve_preprocessing
from ssanet_jax.runs.run import build_model
from ssanet_jax.training.step import TrainState, make_train_step

RESIZE, CROP, BATCH = 512, 448, 16


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is read."""

    data_dir: str = setting('', 'The extracted CUB_200_2011 folder.')
    images: int = setting(480, 'Photos a round.', least=32)
    rounds: int = setting(5, 'Rounds; the median counts.')
    steps: int = setting(20, 'Training steps watched.')


def measure(settings: Settings, say: Say = silent) -> Findings:
    """Pillow's time over this pipeline's, and the time that a step waits over all of it.

    Raises:
      UserError: there is no data.
    """
    if not settings.data_dir:
        raise UserError('--data_dir is missing: the extracted CUB_200_2011 folder')
    return Findings([compare_reading(settings, say), measure_waiting(settings, say)])


def compare_reading(settings: Settings, say: Say) -> Comparison:
    """The time that a photo takes one core, Pillow's and ours, and the memory that ours takes."""
    config = common.get_config().data
    config.update(dir=settings.data_dir, shrink=False, resize=RESIZE, image_size=CROP, batch_size=BATCH, num_workers=0)
    config.interpolation = 'bilinear'  # as Pillow below
    source = load_dataset(config).train
    files = [Path(settings.data_dir) / source[index]['file'] for index in range(min(settings.images, len(source)))]
    files = files[: len(files) // BATCH * BATCH]
    chosen = Subset(source, np.arange(len(files)))

    def ours() -> None:
        for _ in train_batches(chosen, config, seed=0, epochs=1):
            pass

    say('reading once')
    before = _resident()
    ours()
    grown = _resident() - before
    times = take_turns({'Pillow': lambda: _read_by_pillow(files), 'this pipeline': ours}, settings.rounds, say)
    theirs, own = (seconds / len(files) for seconds in times.values())
    return Comparison(
        'Pillow, one thread',
        'this pipeline, one thread',
        f'{len(files)} photos to {RESIZE} x {RESIZE}, crop {CROP}, flip; the time of one',
        alone.command_line('pipeline', settings),
        (theirs, own),
        remark=f'{1 / theirs:.0f} and {1 / own:.0f} images/s; the first pass takes {grown / 2**20:.0f} MiB of memory',
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


def measure_waiting(settings: Settings, say: Say) -> Comparison:
    """The share of a training step that goes into waiting for the next batch."""
    config = cub.get_config()
    config.data.dir = settings.data_dir
    dataset = load_dataset(config.data)
    model = build_model(config, len(dataset.class_names))
    config = resolve_preprocessing(config)
    row, size = config.stages[0], config.data.batch_size
    row.cache = 0  # every step reads its images
    mesh = sharding.make_mesh()
    optimizer, step = make_train_step(model, row, frozenset(row.train), config, len(dataset.train) / size, mesh)
    _, params, stats = split_model(model)
    state = TrainState(*sharding.replicate((params, stats, optimizer.init(params), np.int32(0)), mesh))
    batches = train_batches(dataset.train, config.data, seed=0, epochs=row.epochs)
    ready = sharding.prefetch_to_device(batches, mesh, ('image', 'label'))
    say(f'watching {settings.steps} training steps')
    waited = worked = 0.0
    for number in itertools.count(-2):  # the first two compile and fill the queue
        began = time.perf_counter()
        _, batch = next(ready)
        had = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch))
        if number >= 0:
            waited += had - began
            worked += time.perf_counter() - had
        if number + 1 == settings.steps:
            break
    return Comparison(
        'waiting for data',
        'a training step and its wait',
        f'{row.name}, {config.model.backbone}, {config.data.image_size}, batch {size}',
        alone.command_line('pipeline', settings),
        (waited / settings.steps, (waited + worked) / settings.steps),
    )


def _resident() -> int:
    """The most memory that the process has had, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == 'darwin' else 1024)


if __name__ == '__main__':
    alone.run('pipeline', Settings, measure)
