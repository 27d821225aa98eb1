"""Batches for training and evaluation, by grain.

Fields of ``config.data`` used here:

* ``batch_size``, ``eval_batch_size``: images a batch, over all devices of all processes;
* ``resize``, ``image_size``: side of the squeezed image and of the crop that the network sees;
* ``interpolation``: with which small images grow;
* ``flip``, ``scale_min``, ``jitter``, ``erase``: augmentation, see `transforms`;
* ``num_workers``: threads that read and decode; 0 does it in the calling thread;
* ``prefetch``: batches to keep ready.

With several processes each reads its own share of every batch: of P processes, process p reads the
images p, p + P, p + 2P, ... of the common order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import grain
import numpy as np

from ssanet_jax.data import transforms
from ssanet_jax.data.dataset import Source
from ssanet_jax.distributed.processes import Process
from ssanet_jax.errors import UnreadableImage, UserError

Batch = dict[str, np.ndarray]
READABLE = -1  # of `skipped`, where nothing had to be skipped


SINGLE_PROCESS = Process()


def num_steps(epochs: float, images: int, batch_size: int) -> int:
    """Number of batches after which `epochs` passes are over."""
    return math.ceil(epochs * images / batch_size)


def shuffled_indices(images: int, seed: int) -> grain.MapDataset:
    """The common order of training: at each place the position of an image, each pass a new permutation."""
    return grain.MapDataset.range(images).seed(seed).shuffle().repeat()


def train_batches(
    source: Source, data: Any, *, seed: int, epochs: int, start: int = 0, process: Process = SINGLE_PROCESS
) -> Iterator[Batch]:
    """Augmented batches of shuffled examples.

    Each pass is a new permutation of the source. A pass that does not fill its last batch is
    followed there by the next one, so every example is read exactly once a pass, over all
    processes. The stream depends on ``seed`` alone, whatever the number of threads and processes.

    An image that cannot be read is left out; the next readable one takes its place, and
    ``skipped`` tells.

    Args:
      source: the training examples.
      data: the ``data`` section of a config.
      seed: in [0, 2**32).
      epochs: passes over the source, at least 1.
      start: images already seen by all processes, a multiple of the batch size: where a resumed
        run goes on, with exactly the batches that would have followed.
      process: this one of all that train.

    Returns:
      An iterator of ``num_steps(epochs)`` batches less those before `start`: ``{'image': uint8
      [b, S, S, 3], 'label': int32 [b], 'index': int32 [b], 'skipped': int32 [b]}`` with b the
      batch size over the number of processes; index is the position in ``source``, skipped
      that of the unreadable image whose place this one took, or -1.

    Raises:
      UserError: fewer images than a batch, sizes that do not fit together, or so many unreadable
        images in a row that something else must be wrong.
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
        # Only now the shares, so that what is drawn for an image depends on its place in the common order.
        .slice(
            slice(
                start + process.index, num_steps(epochs, len(source), data.batch_size) * data.batch_size, process.count
            )
        )
    )
    return iter(dataset.to_iter_dataset(read_options(data, share)).batch(share))


def eval_batches(source: Source, data: Any, *, process: Process = SINGLE_PROCESS) -> Iterator[Batch]:
    """Every example once, in order, in batches of one size.

    Args:
      source: the examples.
      data: the ``data`` section of a config.
      process: this one of all that evaluate.

    Returns:
      An iterator of ``{'image': uint8 [b, S, S, 3], 'label': int32 [b], 'index': int32 [b],
      'skipped': int32 [b], 'mask': bool [b]}``, as many for every process. What is missing in the
      last is filled up with black images, whose mask is False. An unreadable image is black too,
      and skipped is its own index.

    Raises:
      UserError: sizes that do not fit together.
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
    """Exactly `count` batches of `size`, filled up with black images that the mask leaves out."""
    whole = np.zeros(0, np.int32)
    empty = {'image': np.zeros((0, side, side, 3), np.uint8), 'label': whole, 'index': whole, 'skipped': whole}
    for _ in range(count):
        batch = next(batches, empty)
        missing = size - len(batch['label'])
        filled = {
            key: np.concatenate([value, np.zeros((missing, *value.shape[1:]), value.dtype)])
            for key, value in batch.items()
        }
        yield filled | {'mask': np.arange(size) < size - missing}


def list_unreadable(source: Source, skipped: Iterable[int]) -> list[str]:
    """What is wrong with each of the unreadable images at these positions of `source`, a line each."""
    problems = []
    for index in sorted(set(skipped)):
        try:
            source[index]
        except UnreadableImage as error:
            problems.append(str(error))
    return problems


def _example(example: dict[str, Any], index: int, skipped: int) -> dict[str, Any]:
    """The part of an example that batches carry."""
    return {
        'image': example['image'],
        'label': np.int32(example['label']),
        'index': np.int32(index),
        'skipped': np.int32(skipped),
    }


class _LoadNext(grain.transforms.Map):
    """Position -> its example, or that of the next position that can be read."""

    TRIES = 50

    def __init__(self, source: Source):
        self._source = source

    def map(self, index: int) -> dict[str, Any]:
        for ahead in range(min(self.TRIES, len(self._source))):
            place = (index + ahead) % len(self._source)
            try:
                return _example(self._source[place], place, index if ahead else READABLE)
            except UnreadableImage as error:
                last = error
        raise UserError(f'{ahead + 1} images in a row cannot be read, such as: {last}') from last


class _LoadOrBlack(grain.transforms.Map):
    """Position -> its example, black where it cannot be read."""

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
            f'config.data.{field}={size} does not divide over {process.count} processes: make it a multiple of that'
        )
    return size // process.count


def read_options(data: Any, batch_size: int) -> grain.ReadOptions:
    """How `data.num_workers` and `data.prefetch` read a stream that is batched."""
    # Grain counts single examples and wants at least one a thread.
    ahead = max(data.prefetch * batch_size, data.num_workers)
    return grain.ReadOptions(num_threads=data.num_workers, prefetch_buffer_size=ahead)


def check_batch_fits(source: Source, data: Any) -> None:
    """Raises `UserError` if the training images are fewer than one batch."""
    if len(source) < data.batch_size:
        raise UserError(
            f'{len(source)} training images do not fill one batch of {data.batch_size}: lower config.data.batch_size'
        )


def check_data_settings(data: Any) -> None:
    """Raises `UserError` for sizes that do not fit together."""
    if data.resize < data.image_size:
        raise UserError(
            f'config.data.resize={data.resize} is smaller than config.data.image_size='
            f'{data.image_size}: an image is resized, then cropped, so raise resize'
        )
    if not 0 < data.scale_min <= 1:
        raise UserError(f'config.data.scale_min={data.scale_min} must lie in (0, 1]; 1 is off')
    for name, least in (('image_size', 1), ('num_workers', 0), ('prefetch', 0)):
        if data[name] < least:
            raise UserError(f'config.data.{name}={data[name]} must be {least} or more')
    if data.interpolation not in ('', *transforms.INTERPOLATIONS):
        known = ', '.join(transforms.INTERPOLATIONS)
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
            raise UserError(f'config.data.{name}={data[name]} must lie in [0, 1); 0 is off')
