"""`held_out.npz` of a stage: predictions for images that the network was not trained on.

They say how sure the network may be: `evaluation/calibration.py` and `evaluation/novelty.py`. They come from the
validation images, or from the training images where a stage is fitted on folds (`training/fitting.py`): the classifiers
that predict a fold have not seen it.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ssanet_jax.runs.files import TRAIN_AGAIN, read_arrays, write_arrays

HELD_OUT_FILE = 'held_out.npz'
_MAX_BYTES = 4 << 30  # of the file, and of its arrays: a million images of 2,000 classes need as many
_KINDS = {'log_probabilities': 'f', 'labels': 'i', 'images': 'i', 'temperature': 'f', 'split': 'U'}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class HeldOutPredictions:
    """Predictions for n images that the network was not trained on.

    Attributes:
      log_probabilities: float16 `[n, N]`, as the network gives them.
      labels: int32 `[n]`.
      images: int32 `[n]`, positions in the split.
      temperature: divides the logits, so that they are calibrated on these images.
      split: where the images come from: 'train' (in folds) or 'validation'.
    """

    log_probabilities: np.ndarray
    labels: np.ndarray
    images: np.ndarray
    temperature: float
    split: str


def write_held_out(path: Path, predictions: HeldOutPredictions) -> None:
    """Writes the predictions atomically. Call it in all processes: the primary one writes.

    Raises:
      UserError: the file cannot be written. An existing file is then unchanged.
    """
    write_arrays(path, held_out_arrays(predictions))


def held_out_arrays(predictions: HeldOutPredictions) -> dict[str, np.ndarray]:
    """The arrays of the file."""
    fields = {name: np.asarray(getattr(predictions, name)) for name in _KINDS}
    return fields | {'log_probabilities': predictions.log_probabilities.astype(np.float16)}


def read_held_out(path: Path, num_classes: int) -> HeldOutPredictions | None:
    """Reads what `write_held_out` wrote. Whatever the file holds, reading it runs no code from it.

    Args:
      path: the file.
      num_classes: N.

    Returns:
      The predictions, or None if the file does not exist.

    Raises:
      DamagedFile: the file is damaged.
      UserError: the file cannot be read.
    """
    parse = lambda arrays: parse_held_out(arrays, num_classes)
    return read_arrays(path, parse, 'held-out predictions', TRAIN_AGAIN, _MAX_BYTES)


def parse_held_out(arrays: Mapping[str, np.ndarray], num_classes: int) -> HeldOutPredictions:
    """Predictions from the arrays of a file.

    Raises:
      ValueError, KeyError: they are not those of predictions.
    """
    found = {name: arrays[name] for name in _KINDS}
    count = len(found['labels'])
    shapes = {name: array.shape for name, array in found.items()}
    if any(found[name].dtype.kind != kind for name, kind in _KINDS.items()):
        raise ValueError('other arrays than those of predictions')
    if shapes != {
        'log_probabilities': (count, num_classes),
        'labels': (count,),
        'images': (count,),
        'temperature': (),
        'split': (),
    }:
        raise ValueError('arrays of different lengths')
    temperature = float(found['temperature'])
    if not (count and 0 < temperature < np.inf and np.isfinite(found['log_probabilities']).all()):
        raise ValueError('no predictions')
    return HeldOutPredictions(**{**found, 'temperature': temperature, 'split': str(found['split'])})
