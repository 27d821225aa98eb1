"""`index.npz`: the features of a run's training images, to compare other images with.

What is unlike all of them belongs to none of the classes; the nearest ones explain a prediction. An index of 6,000
images with four parts takes about 80 MB, and comparing with all of them a few milliseconds.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ssanet_jax.runs.files import read_arrays, write_arrays

INDEX_FILE = 'index.npz'
INDEX_AGAIN = 'delete it and run `ssanet index` again'
_MAX_BYTES = 8 << 30  # of the file, and of its arrays: half a million images
_KINDS = {'image': 'f', 'parts': 'f', 'labels': 'i', 'boxes': 'f', 'shapes': 'i', 'files': 'U', 'network': 'U'}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class EmbeddingIndex:
    """The features of n training images, with K parts each. K is 0 for a network without parts.

    Attributes:
      image: float16 `[n, C]`, the average of each image's feature map.
      parts: float16 `[n, K, D]`, the average of each part's map.
      labels: int32 `[n]`.
      boxes: float32 `[n, K, 4]`, the parts as (y0, x0, y1, x1) in pixels of the source image.
      shapes: int32 `[n, 2]`, height and width of the source images.
      files: n names, as error messages print them.
      network: identifies the network; see `network_digest`.
    """

    image: np.ndarray
    parts: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    shapes: np.ndarray
    files: np.ndarray
    network: str

    def __len__(self) -> int:
        return len(self.labels)


def write_index(path: Path, index: EmbeddingIndex) -> None:
    """Writes an index atomically. Call it in all processes: the primary one writes.

    Raises:
      UserError: the file cannot be written. An existing file is then unchanged.
    """
    arrays = {name: np.asarray(getattr(index, name)) for name in _KINDS}
    write_arrays(path, arrays | {'files': np.asarray(index.files, str)})


def read_index(path: Path) -> EmbeddingIndex | None:
    """Reads what `write_index` wrote. Whatever the file holds, reading it runs no code from it.

    Returns:
      The index, or None if the file does not exist.

    Raises:
      DamagedFile: the file is damaged.
      UserError: the file cannot be read.
    """
    return read_arrays(path, _from_arrays, 'index', INDEX_AGAIN, _MAX_BYTES)


def network_digest(*weights: Any) -> str:
    """Identifies a network by its weights and statistics, as `split_model` returns them."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(weights):
        digest.update(f'{jax.tree_util.keystr(path)} {leaf.shape} {leaf.dtype}'.encode())
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def _from_arrays(arrays: dict[str, np.ndarray]) -> EmbeddingIndex:
    """Checks the arrays of a file; raises ValueError or KeyError if they do not fit together."""
    found = {name: arrays[name] for name in _KINDS}
    if any(found[name].dtype.kind != kind for name, kind in _KINDS.items()):
        raise ValueError('other arrays than those of an index')
    count, num_parts = len(found['labels']), found['parts'].shape[1]
    shapes = {name: array.shape for name, array in found.items()}
    if shapes != {
        'image': (count, found['image'].shape[1]),
        'parts': (count, num_parts, found['parts'].shape[2]),
        'labels': (count,),
        'boxes': (count, num_parts, 4),
        'shapes': (count, 2),
        'files': (count,),
        'network': (),
    }:
        raise ValueError('arrays of different lengths')
    return EmbeddingIndex(**{**found, 'network': str(found['network'])})
