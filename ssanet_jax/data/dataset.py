"""What every data set looks like to the rest of the project, and which reader makes it."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ssanet_jax.errors import UserError


@runtime_checkable
class Source(Protocol):
    """Random access to examples; reading one decodes one image.

    An example is a dict with

    * ``'image'``: uint8 [H, W, 3], RGB, any size;
    * ``'label'``: np.int32, an index into the set's ``class_names``;
    * ``'file'``: str, the name to print when something is wrong with the image;

    and, where the set has them,

    * ``'box'``: float32 [4], (y0, x0, y1, x1) in pixels of the image, and inside it;
    * ``'keypoints'``: float32 [P, 3], (y, x, visible) with visible 0 or 1; y and x mean nothing
      where visible is 0.

    Reading is safe from several threads at once. An image that cannot be decoded raises
    `UnreadableImage`.
    """

    labels: np.ndarray
    """int32 [n], the label of every example, at no cost."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Named training and test examples over one list of classes."""

    name: str
    """As a report should call it, such as 'CUB-200-2011'."""
    class_names: tuple[str, ...]
    """Name of each label, in label order."""
    train: Source
    test: Source
    validation: Source | None = None
    """Held out of the published training examples, where that was asked for."""
    keypoint_names: tuple[str, ...] = ()
    """Name of each of the examples' key points; empty for a set that has none."""
    digest: str = ''
    """Of the files' names, labels and splits, for sets that are read from files."""


class Subset:
    """Some examples of a source, as a `Source`.

    Args:
      source: where they come from.
      indices: int [n], positions in it.
    """

    def __init__(self, source: Source, indices: np.ndarray):
        self._source, self._indices = source, indices
        self.labels = source.labels[indices]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[int(self._indices[index])]


def hold_out_validation(dataset: Dataset, share: float, seed: int) -> Dataset:
    """Moves a part of the training examples to `validation`, so that the test set stays out of all choices.

    Args:
      dataset: without validation examples.
      share: in (0, 1), of each class; at least one image of a class stays and, where it has two
        or more, at least one goes.
      seed: of the draw, which depends neither on the seed of the training nor on other classes.

    Raises:
      UserError: a share out of range, or no class with two images.
    """
    if not 0 < share < 1:
        raise UserError(f'config.data.validation={share} must lie in [0, 1): the share of the training images held out')
    labels = np.asarray(dataset.train.labels)
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        count = min(max(round(share * len(places)), 1), len(places) - 1)
        held[np.random.default_rng([seed, *os.fsencode(dataset.class_names[label])]).permutation(places)[:count]] = True
    if not held.any():
        raise UserError('config.data.validation: no class has two training images, so none can be held out')
    return dataclasses.replace(
        dataset,
        train=Subset(dataset.train, np.flatnonzero(~held)),
        validation=Subset(dataset.train, np.flatnonzero(held)),
    )
