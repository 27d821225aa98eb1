"""Subsets of a source, and the validation split."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import Any

import numpy as np

from ssanet_jax.data.dataset import Dataset, Source, file_name
from ssanet_jax.errors import UserError


class Subset:
    """A `Source` of some of the examples of another one.

    Args:
      source: the other source.
      indices: int [n], positions in it.
    """

    def __init__(self, source: Source, indices: np.ndarray):
        self._source, self.indices = source, indices
        self.labels = source.labels[indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[int(self.indices[index])]

    def file_name(self, index: int) -> str:
        """See `dataset.file_name`."""
        return file_name(self._source, int(self.indices[index]))


def image_set(dataset: Dataset, split: str) -> str:
    """Identifies the images of a split and their order: equal for two runs if they were evaluated on the same images.

    Args:
      dataset: the data set.
      split: 'test' or 'validation'.

    Returns:
      SHA-256 of the data set's name and digest, the split, the labels, and the validation images that were drawn.
    """
    source = dataset.test if split == 'test' else dataset.validation
    assert source is not None  # the caller has evaluated it
    drawn = source.indices.tolist() if isinstance(source, Subset) else None
    facts = dataset.name, dataset.digest, dataset.generator, split, np.asarray(source.labels).tolist(), drawn
    return hashlib.sha256(repr(facts).encode(errors='surrogateescape')).hexdigest()


def hold_out_validation(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """Moves a fraction of the training examples to `validation`, so that choices need not use the test split.

    Args:
      dataset: a data set without validation examples.
      fraction: share of each class, in (0, 1). At least one image of a class stays in the training split; at least
        one is held out if the class has two or more.
      seed: the seed of the draw. The draw of a class depends on this seed and the class's name only.

    Raises:
      UserError: the fraction is out of range, or no class has two images.
    """
    if not 0 < fraction < 1:
        raise UserError(f'config.data.validation={fraction} must lie in [0, 1): the share of training images held out')
    labels = np.asarray(dataset.train.labels)
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        indices = np.flatnonzero(labels == label)
        count = min(max(round(fraction * len(indices)), 1), len(indices) - 1)
        rng = np.random.default_rng([seed, *os.fsencode(dataset.class_names[label])])
        held_out[rng.permutation(indices)[:count]] = True
    if not held_out.any():
        raise UserError('config.data.validation: no class has two training images, so none can be held out')
    return dataclasses.replace(
        dataset,
        train=Subset(dataset.train, np.flatnonzero(~held_out)),
        validation=Subset(dataset.train, np.flatnonzero(held_out)),
    )
