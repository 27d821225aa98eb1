"""Batches for training and evaluation, with Grain.

Fields of ``config.data`` used here:

* ``batch_size``, ``eval_batch_size``: images per batch, over all devices of all processes;
* ``resize``, ``image_size``: side of the resized image and of the crop that the network sees, in pixels;
* ``interpolation``: how images are enlarged;
* ``flip``, ``scale_min``, ``color_jitter``, ``random_erasing``: augmentation, see `transforms`;
* ``num_workers``: threads that read and decode; 0 uses the calling thread, and -1 stands for one thread per available
  CPU, but at most 8;
* ``prefetch``: number of batches to read ahead.

Each process reads its own share of every batch: with P processes, process p reads the images p, p + P, p + 2P, ... of
the common order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import grain
import numpy as np

from ssanet_jax.cpu_limit import available_cpus
from ssanet_jax.data import preprocessing, transforms
from ssanet_jax.data.dataset import Source
from ssanet_jax.distributed.processes import Process
from ssanet_jax.errors import UnreadableImage, UserError

Batch = dict[str, np.ndarray]
READABLE = -1  # the value of 'skipped' for an example that could be read
SINGLE_PROCESS = Process()
_MOST_THREADS = 8  # by default: more seldom read faster, and each holds an image


def num_steps(epochs: float, num_images: int, batch_size: int) -> int:
    """The number of batches in this number of passes over the images."""
    return math.ceil(epochs * num_images / batch_size)


def shuffled_indices(num_images: int, seed: int) -> grain.MapDataset:
    """The infinite order of training, common to all processes: image indices, in a new permutation per pass."""
    return grain.MapDataset.range(num_images).seed(seed).shuffle().repeat()


def train_batches(
    source: Source, data: Any, *, seed: int, epochs: int, start: int = 0, process: Process = SINGLE_PROCESS
) -> Iterator[Batch]:
    """Augmented batches of shuffled examples.

    Each pass is a new permutation of the source. If a pass does not fill its last batch, the next pass continues it,
    so that all processes together read every example exactly once per pass. The stream depends on ``seed`` only, not
    on the number of threads or processes.

    An image that cannot be read is replaced by the next readable one, and its index is returned in ``skipped``.

    Args:
      source: the training examples.
      data: the ``data`` section of a configuration.
      seed: the seed of the order and the augmentation, in [0, 2**32).
      epochs: passes over the source, at least 1.
      start: number of images that all processes together have consumed before, a multiple of the batch size. A
        resumed run gets exactly the batches that would have followed.
      process: index of this process and number of processes.

    Returns:
      An iterator over the batches from `start` to the end of the last epoch: ``{'image': uint8 [b, S, S, 3],
      'label': int32 [b], 'index': int32 [b], 'skipped': int32 [b], 'view': float32 [b, 4]}``, where b is the batch size
      divided by the number of processes, ``index`` the position in ``source``, ``skipped`` the position of the
      unreadable image that this one replaces, or -1, and ``view`` the part of the image that is shown
      (`transforms.RandomCropFlip`).

    Raises:
      UserError: there are fewer images than a batch holds, settings are out of range, or 50 images in a row cannot be
        read.
    """
    check_data_settings(data)
    share = _share(data.batch_size, process, 'batch_size')
    check_batch_fits(source, data)
    dataset = (
        shuffled_indices(len(source), seed)
        .map(_LoadNext(source))
        .map(transforms.ResizeSquare(data.resize, data.interpolation))
        .random_map(transforms.RandomCropFlip(data.image_size, data.flip, data.scale_min, data.interpolation))
        .random_map(transforms.ColorJitter(data.color_jitter))
        .random_map(transforms.RandomErasing(data.random_erasing))
        # Sliced after the random transforms, so that their random numbers depend on the place in the common order.
        .slice(
            slice(
                start + process.index, num_steps(epochs, len(source), data.batch_size) * data.batch_size, process.count
            )
        )
    )
    return iter(dataset.to_iter_dataset(read_options(data, share)).batch(share))


def eval_batches(source: Source, data: Any, *, process: Process = SINGLE_PROCESS) -> Iterator[Batch]:
    """Every example once, in order, in batches of equal size.

    Args:
      source: the examples.
      data: the ``data`` section of a configuration.
      process: index of this process and number of processes.

    Returns:
      An iterator over ``{'image': uint8 [b, S, S, 3], 'label': int32 [b], 'index': int32 [b], 'skipped': int32 [b],
      'mask': bool [b]}``, of the same length in every process. The last batch is padded with black images, whose mask
      is False. An unreadable image is black as well; its ``skipped`` is its own index, otherwise -1.

    Raises:
      UserError: settings are out of range.
    """
    check_data_settings(data)
    share = _share(data.eval_batch_size, process, 'eval_batch_size')
    dataset = (
        grain.MapDataset.range(len(source))
        .map(_LoadOrBlack(source))
        .map(transforms.ResizeSquare(data.resize, data.interpolation))
        .map(transforms.CenterCrop(data.image_size))
    )
    dataset = dataset.slice(slice(process.index, None, process.count))
    batches = iter(dataset.to_iter_dataset(read_options(data, share)).batch(share))
    return _padded(batches, share, num_steps(1, len(source), data.eval_batch_size), data.image_size)


def _padded(batches: Iterator[Batch], size: int, count: int, side: int) -> Iterator[Batch]:
    """Yields `count` batches of `size` images of `side` pixels, padded with black images, with a mask."""
    no_integers = np.zeros(0, np.int32)
    empty = {
        'image': np.zeros((0, side, side, 3), np.uint8),
        'label': no_integers,
        'index': no_integers,
        'skipped': no_integers,
    }
    for _ in range(count):
        batch = next(batches, empty)
        missing = size - len(batch['label'])
        padded = {
            key: np.concatenate([value, np.zeros((missing, *value.shape[1:]), value.dtype)])
            for key, value in batch.items()
        }
        yield padded | {'mask': np.arange(size) < size - missing}


def list_unreadable(source: Source, skipped: Iterable[int]) -> list[str]:
    """One error message per unreadable image, for these positions in `source`."""
    problems = []
    for index in sorted(set(skipped)):
        try:
            source[index]
        except UnreadableImage as error:
            problems.append(str(error))
    return problems


def _example(example: dict[str, Any], index: int, skipped: int) -> dict[str, Any]:
    """The fields of an example that batches contain."""
    return {
        'image': example['image'],
        'label': np.int32(example['label']),
        'index': np.int32(index),
        'skipped': np.int32(skipped),
    }


class _LoadNext(grain.transforms.Map):
    """Loads the example at an index, or the next one that can be read."""

    MAX_TRIES = 50

    def __init__(self, source: Source):
        self._source = source

    def map(self, index: int) -> dict[str, Any]:
        """Index -> example, whose `skipped` is the index if another example took its place."""
        tries = min(self.MAX_TRIES, len(self._source))
        problem: UnreadableImage | None = None
        for offset in range(tries):
            candidate = (index + offset) % len(self._source)
            try:
                return _example(self._source[candidate], candidate, index if offset else READABLE)
            except UnreadableImage as error:
                problem = error
        raise UserError(f'{tries} images in a row cannot be read, such as: {problem}') from problem


class _LoadOrBlack(grain.transforms.Map):
    """Loads the example at an index, with a black image if it cannot be read."""

    def __init__(self, source: Source):
        self._source = source

    def map(self, index: int) -> dict[str, Any]:
        try:
            return _example(self._source[index], index, READABLE)
        except UnreadableImage:
            black = np.zeros((1, 1, 3), np.uint8)
            return _example({'image': black, 'label': self._source.labels[index]}, index, index)


def _share(size: int, process: Process, field: str) -> int:
    if size % process.count:
        raise UserError(
            f'config.data.{field}={size} is not a multiple of the number of processes, {process.count}: change it'
        )
    return size // process.count


def read_options(data: Any, batch_size: int) -> grain.ReadOptions:
    """Grain's options for a stream in batches of this size, from `data.num_workers` and `data.prefetch`."""
    threads = num_threads(data)
    # Grain counts single examples, and needs at least one per thread.
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(data.prefetch * batch_size, threads))


def num_threads(data: Any) -> int:
    """The number of threads that `data.num_workers` asks for."""
    return min(available_cpus(), _MOST_THREADS) if data.num_workers == -1 else data.num_workers


def check_batch_fits(source: Source, data: Any) -> None:
    """Raises `UserError` if there are fewer training images than one batch holds."""
    if len(source) < data.batch_size:
        raise UserError(
            f'{len(source)} training images are fewer than one batch of {data.batch_size}: '
            'reduce config.data.batch_size'
        )


def check_data_settings(data: Any) -> None:
    """Raises `UserError` for settings of the pipeline that are out of range or contradict each other."""
    if data.resize < data.image_size:
        raise UserError(
            f'config.data.resize={data.resize} is smaller than config.data.image_size='
            f'{data.image_size}: images are resized and then cropped, so increase resize'
        )
    if not 0 < data.scale_min <= 1:
        raise UserError(f'config.data.scale_min={data.scale_min} must lie in (0, 1]; 1 turns it off')
    for name, least in (('image_size', 1), ('num_workers', -1), ('prefetch', 0)):
        if data[name] < least:
            raise UserError(f'config.data.{name}={data[name]} must be at least {least}')
    if data.interpolation not in ('', *preprocessing.INTERPOLATIONS):
        known = ', '.join(preprocessing.INTERPOLATIONS)
        raise UserError(f'config.data.interpolation={data.interpolation}: choose from {known}')
    for name in ('mean', 'std'):
        values = data.get(name) or ()
        if len(values) not in (0, 3) or (name == 'std' and not all(value > 0 for value in values)):
            raise UserError(
                f'config.data.{name}={values}: give three numbers in 0..255, those of std above 0, or () for those of '
                'the pretrained weights'
            )
    for name in ('color_jitter', 'random_erasing'):
        if not 0 <= data[name] < 1:
            raise UserError(f'config.data.{name}={data[name]} must lie in [0, 1); 0 turns it off')
