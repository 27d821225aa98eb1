"""Batches for training and evaluation, by grain.

Fields of ``config.data`` used here:

* ``batch_size``, ``eval_batch_size``: images a batch, over all devices;
* ``resize``, ``image_size``: side of the squeezed image and of the crop that the network sees;
* ``flip``, ``scale_min``: augmentation, see `transforms.RandomCropFlip`;
* ``threads``: threads that read and decode; 0 does it in the calling thread;
* ``prefetch``: batches to keep ready.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grain
import numpy as np

from ssanet_jax.data import transforms
from ssanet_jax.data.dataset import Source
from ssanet_jax.errors import UserError

Batch = dict[str, np.ndarray]


def steps_per_epoch(source: Source, batch_size: int) -> int:
    """Number of full batches in one pass.

    Raises:
      UserError: the source has fewer images than one batch.
    """
    steps = len(source) // batch_size
    if not steps:
        raise UserError(
            f'{len(source)} training images do not fill one batch of {batch_size}: lower config.data.batch_size'
        )
    return steps


def train_batches(source: Source, data: Any, *, seed: int, epochs: int) -> grain.DatasetIterator[Batch]:
    """Augmented batches of shuffled examples.

    Each epoch is a new permutation of the source; what does not fill its last batch is left out,
    so a batch never mixes epochs. The stream depends on ``seed`` alone, whatever the number of
    threads.

    Args:
      source: the training examples.
      data: the ``data`` section of a config.
      seed: in [0, 2**32).
      epochs: passes over the source, at least 1.

    Returns:
      An iterator of ``epochs * steps_per_epoch`` batches ``{'image': uint8 [B, S, S, 3],
      'label': int32 [B], 'index': int32 [B]}``; index is the position in ``source``. After
      ``set_state(state)`` with an earlier ``get_state()`` it goes on with exactly the batches
      that followed.

    Raises:
      UserError: fewer images than a batch, or sizes that do not fit together.
    """
    check_sizes(data)
    steps = steps_per_epoch(source, data.batch_size)
    dataset = (
        grain.MapDataset.range(len(source))
        .seed(seed)
        .shuffle()
        .slice(slice(0, steps * data.batch_size))
        .repeat(epochs)
        .map(_Load(source))
        .map(transforms.ResizeSquare(data.resize))
        .random_map(transforms.RandomCropFlip(data.image_size, data.flip, data.scale_min))
    )
    batches = dataset.to_iter_dataset(_read_options(data, data.batch_size)).batch(data.batch_size)
    return iter(batches)


def eval_batches(source: Source, data: Any) -> Iterator[Batch]:
    """Every example once, in order, in batches of one size.

    Args:
      source: the examples.
      data: the ``data`` section of a config.

    Returns:
      An iterator of ``{'image': uint8 [B, S, S, 3], 'label': int32 [B], 'index': int32 [B], 'mask':
      bool [B]}``. The last batch is filled up with copies of the last example; their mask is False.

    Raises:
      UserError: sizes that do not fit together.
    """
    check_sizes(data)
    size = data.eval_batch_size
    dataset = (
        grain.MapDataset.range(len(source))
        .map(_Load(source))
        .map(transforms.ResizeSquare(data.resize))
        .map(transforms.CentreCrop(data.image_size))
    )
    batches = dataset.to_iter_dataset(_read_options(data, size)).batch(size)
    return (_padded(batch, size) for batch in batches)


def _padded(batch: Batch, size: int) -> Batch:
    count = len(batch['label'])
    if count < size:
        batch = {
            key: np.concatenate([value, np.repeat(value[-1:], size - count, axis=0)]) for key, value in batch.items()
        }
    return batch | {'mask': np.arange(size) < count}


class _Load(grain.transforms.Map):
    """Position -> the part of the example that batches carry."""

    def __init__(self, source: Source):
        self._source = source

    def map(self, index: int) -> dict[str, Any]:
        example = self._source[index]
        return {
            'image': example['image'],
            'label': np.int32(example['label']),
            'index': np.int32(index),
        }


def _read_options(data: Any, batch_size: int) -> grain.ReadOptions:
    # Grain counts single examples and wants at least one a thread.
    ahead = max(data.prefetch * batch_size, data.threads)
    return grain.ReadOptions(num_threads=data.threads, prefetch_buffer_size=ahead)


def check_sizes(data: Any) -> None:
    """Raises `UserError` for sizes that do not fit together."""
    if data.resize < data.image_size:
        raise UserError(
            f'config.data.resize={data.resize} is smaller than config.data.image_size='
            f'{data.image_size}: an image is resized, then cropped, so raise resize'
        )
    if not 0 < data.scale_min <= 1:
        raise UserError(f'config.data.scale_min={data.scale_min} must lie in (0, 1]; 1 is off')
