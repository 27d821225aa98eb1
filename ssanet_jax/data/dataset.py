"""The interface between data sets and the rest of the project."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ssanet_jax.data.listing import summarize


@runtime_checkable
class Source(Protocol):
    """Random access to examples. Reading an example decodes one image.

    An example is a dict with

    * ``'image'``: uint8 [H, W, 3], RGB, of any size;
    * ``'label'``: np.int32, an index into the data set's ``class_names``;
    * ``'file'``: str, the name to print in messages about the image;

    and, if the data set has them,

    * ``'box'``: float32 [4], (y0, x0, y1, x1) in pixels, inside the image;
    * ``'keypoints'``: float32 [P, 3], (y, x, visible) with visible 0 or 1; y and x are undefined where visible is 0.

    Reading is thread-safe. It raises `UnreadableImage` for an image that cannot be decoded.
    """

    labels: np.ndarray
    """int32 [n], the label of every example; reading it decodes nothing."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


def file_name(source: Source, index: int) -> str:
    """The ``'file'`` of an example.

    A source may have a method ``file_name(index)`` that decodes no image; otherwise the example is read.
    """
    read = getattr(source, 'file_name', None)
    return read(index) if read else str(source[index]['file'])


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Training and test examples that share a list of classes."""

    name: str
    """For reports, such as 'CUB-200-2011'."""
    class_names: tuple[str, ...]
    """The name of each label, in label order."""
    train: Source
    test: Source
    validation: Source | None = None
    """Examples held out of the training split, or None; see `splits.hold_out_validation`."""
    keypoint_names: tuple[str, ...] = ()
    """The name of each key point; empty if the data set has none."""
    keypoint_groups: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Named groups of key points, such as those of the head: their names, as in ``keypoint_names``."""
    digest: str = ''
    """SHA-256 of the file names, labels and splits; empty for generated data sets."""
    generator: str = ''
    """What determines the images of a generated data set; empty for files."""
    bit_depth: int = 0
    """Bits that the values of its images of 16 bits per channel use; 0 if it has none."""
    messages: tuple[str, ...] = ()
    """One line each on what is left out and what a user may not expect, to be printed by commands."""

    @property
    def summary(self) -> str:
        """The classes and images, such as '2 classes: robin, wren; 24 training, 8 test images'."""
        counts = {'train': len(self.train), 'validation': len(self.validation or ()), 'test': len(self.test)}
        return summarize(self.class_names, counts)

    @property
    def test_summary(self) -> str:
        """The classes and number of the test images, such as '2 of 3 classes: robin, wren; 8 test images'."""
        tested = [self.class_names[label] for label in np.unique(self.test.labels)]
        return summarize(tested, {'test': len(self.test)}, len(self.class_names))
