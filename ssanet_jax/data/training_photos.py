"""Training images as files, to be shown beside others; the copy that training reads need not be there."""

import functools
import glob
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from ssanet_jax.data import aircraft
from ssanet_jax.data.image_inputs import read_image
from ssanet_jax.data.preprocessing import resize_image
from ssanet_jax.data.registry import find_data_dir, load_dataset
from ssanet_jax.errors import UnreadableImage, UserError

_LONGEST_SIDE = 1024  # pixels; they are shown small
_NUM_KEPT = 64  # images in memory
_LEVELS = 3  # of folders between that of the data and its root, as archives nest it


class TrainingPhotos:
    """Reads training images, at most `_LONGEST_SIDE` pixels large, and keeps the last ones in memory.

    Args:
      config: the `data` section of the run's configuration.
      file: the name of a training image, by which the root of the data set is found.

    Raises:
      UserError: the training images are not on this machine.
    """

    def __init__(self, config: ConfigDict, file: str):
        self._config = config
        self._drawn = load_dataset(config).train if config.name == 'toy_birds' else None
        self._root = Path() if self._drawn else _find_root(Path(find_data_dir(config)), file)
        self.read = functools.lru_cache(maxsize=_NUM_KEPT)(self._read)

    def _read(self, file: str, position: int) -> np.ndarray | None:
        """A training image; call `read`.

        Args:
          file: its name.
          position: its position in the training set.

        Returns:
          uint8 `[H, W, 3]`, RGB; None if it cannot be read.
        """
        if self._drawn is not None:
            return self._drawn[position]['image']
        try:
            image = read_image(self._root / file, self._config.get('bit_depth', 0))
        except UnreadableImage:
            return None
        if self._config.name == 'aircraft':  # as in training
            image = image[: max(len(image) - aircraft.BANNER, 1)]
        height, width = image.shape[:2]
        zoom = min(_LONGEST_SIDE / max(height, width), 1)
        return resize_image(image, max(round(height * zoom), 1), max(round(width * zoom), 1))


def _find_root(folder: Path, file: str) -> Path:
    """The folder that a file's name is relative to."""
    for level in range(_LEVELS):
        pattern = '/'.join(['*'] * level + [glob.escape(file)])
        for path in sorted(folder.glob(pattern)):
            return Path(str(path).removesuffix(f'/{file}'))
    raise UserError(f'the training photos are not in {folder}: give the folder that holds them now as --data_dir')
