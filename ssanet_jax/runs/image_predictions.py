"""`predictions.npz`: what a network predicted for every image of a set, so that runs can be compared image by image."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ssanet_jax.runs.files import DamagedFile, read_arrays, read_json, write_arrays

PREDICTIONS_FILE = 'predictions.npz'
SUM = 'sum'  # the name of the prediction, which sums the logits of all heads, among the heads
_MAX_BYTES = 150 << 20  # of the file, and of its arrays: a million images with ten heads need as many
NO_CLASS = -1  # the prediction for an image that could not be read


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ImagePredictions:
    """The predictions for n images, in the order of the set, whatever the batches and the processes were.

    Attributes:
      labels: int32 `[n]`.
      unreadable: bool `[n]`, the images that could not be read.
      classes: by head, the predicted class of each image, int32 `[n]`; `NO_CLASS` for an unreadable image. The head
        `SUM` is the prediction.
      log_probabilities: by head, the log-probability of the label, float32 `[n]`; nan for an unreadable image.
      image_set: identifies the images, see `splits.image_set`; empty if they are not known.
    """

    labels: np.ndarray
    unreadable: np.ndarray
    classes: dict[Any, np.ndarray]
    log_probabilities: dict[Any, np.ndarray]
    image_set: str = ''

    def correct(self, head: Any = SUM) -> np.ndarray:
        """Whether a head classifies each image correctly, bool `[n]`; an unreadable image counts as wrong."""
        return (self.classes[head] == self.labels) & ~self.unreadable

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The arrays of the file, which has a row per head."""
        heads = list(self.classes)
        unknown = np.full(len(self.labels), np.nan, np.float32)
        return {
            'labels': self.labels,
            'unreadable': self.unreadable,
            'heads': np.array(heads, str),
            'classes': np.stack([self.classes[head] for head in heads]),
            'log_probabilities': np.stack([self.log_probabilities.get(head, unknown) for head in heads]),
            'image_set': np.array(self.image_set, str),
        }


def write_predictions(path: Path, predictions: ImagePredictions) -> None:
    """Writes the predictions atomically. Call it in all processes: the primary one writes.

    Raises:
      UserError: the file cannot be written. An existing file is then unchanged.
    """
    write_arrays(path, predictions.to_arrays())


def read_predictions(path: Path, cure: str) -> ImagePredictions | None:
    """Reads what `write_predictions` wrote. Whatever the file holds, reading it runs no code from it.

    Args:
      path: the file.
      cure: what to do about a damaged file, for the error message.

    Returns:
      The predictions, or None if the file does not exist.

    Raises:
      DamagedFile: the file is damaged.
      UserError: the file cannot be read.
    """
    return read_arrays(path, _from_arrays, 'predictions', cure, _MAX_BYTES)


def check_accuracy(path: Path, predictions: ImagePredictions, results: Iterable[Path], cure: str) -> None:
    """Checks that predictions belong to a result, and not to another network, whose file would be whole as well.

    Args:
      path: the file of the predictions, for the message.
      predictions: its content.
      results: JSON files; those that exist and have an accuracy are compared.
      cure: what to do about other predictions, for the message.

    Raises:
      DamagedFile: no result has the accuracy of the predictions.
    """
    recorded = [content['accuracy'] for each in results if 'accuracy' in (content := read_json(each, cure) or {})]
    accuracy = float(predictions.correct().mean())
    if recorded and all(abs(accuracy - other) > 1e-6 for other in recorded):
        raise DamagedFile(f'{path} is damaged, its accuracy {accuracy:.4f} is not that of the results', cure)


def _from_arrays(arrays: Any) -> ImagePredictions:
    """Checks the arrays of a file; raises ValueError, TypeError or KeyError if they do not fit together."""
    labels, unreadable, heads, classes, log_probabilities, image_set = (
        arrays[name] for name in ('labels', 'unreadable', 'heads', 'classes', 'log_probabilities', 'image_set')
    )
    shape = (len(heads), len(labels))
    kinds = [array.dtype.kind for array in (labels, unreadable, heads, classes, log_probabilities, image_set)]
    if kinds != ['i', 'b', 'U', 'i', 'f', 'U'] or labels.ndim != 1 or unreadable.shape != labels.shape:
        raise ValueError('other arrays than those of predictions')
    if not len(labels) or classes.shape != shape or log_probabilities.shape != shape or SUM not in heads:
        raise ValueError('arrays of different lengths')
    return ImagePredictions(
        labels=labels,
        unreadable=unreadable,
        classes=dict(zip(heads.tolist(), classes)),
        log_probabilities=dict(zip(heads.tolist(), log_probabilities)),
        image_set=str(image_set),
    )
