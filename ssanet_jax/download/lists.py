"""The images of Flowers, Pets and Dogs, from the lists of their publishers, for the CSV file of `configs/folder.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssanet_jax.data.listing import MAX_ANNOTATIONS
from ssanet_jax.data.matlab import load_matlab
from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.regular_files import read_regular_file


class Line(NamedTuple):
    """A line of the CSV file."""

    path: str
    label: str
    split: str


def flowers(folder: Path) -> Iterator[Line]:
    """Oxford 102 Flowers: the published training and validation images are for training, 2,040 together.

    Args:
      folder: holds `jpg/`, `imagelabels.mat` and `setid.mat`.

    Raises:
      UserError: a list is missing or damaged. The same holds for the other functions of this module.
    """
    labels = _integers(folder / 'imagelabels.mat', 'labels')
    path = folder / 'setid.mat'
    for key, split in (('trnid', 'train'), ('valid', 'train'), ('tstid', 'test')):
        for image in _integers(path, key):  # counted from 1
            if not 1 <= image <= len(labels):
                raise UserError(f'{path} lists image {image}, outside 1..{len(labels)}: download the data set again')
            yield Line(f'jpg/image_{image:05d}.jpg', f'{labels[image - 1]:03d}', split)


def pets(folder: Path) -> Iterator[Line]:
    """Oxford-IIIT Pets; a class has the name of its images without their numbers.

    Args:
      folder: holds `images/` and `annotations/`.
    """
    for name, split in (('trainval', 'train'), ('test', 'test')):
        path = folder / 'annotations' / f'{name}.txt'
        try:
            lines = read_regular_file(path, MAX_ANNOTATIONS).decode().splitlines()
        except (OSError, UnicodeError) as error:
            raise _damaged(path, error) from error
        for line in lines:
            if line.strip() and not line.startswith('#'):
                image = line.split()[0]
                yield Line(f'images/{image}.jpg', image.rsplit('_', 1)[0], split)


def dogs(folder: Path) -> Iterator[Line]:
    """Stanford Dogs; a class has the name of its folder, such as 'n02085620-Chihuahua'.

    Args:
      folder: holds `Images/`, `train_list.mat` and `test_list.mat`.
    """
    for split in ('train', 'test'):
        path = folder / f'{split}_list.mat'
        for cell in _variable(path, 'file_list').ravel():
            try:
                image = cell.item()
                label, file = image.split('/')
            except (AttributeError, ValueError) as error:
                raise _damaged(path, error) from error
            yield Line(f'Images/{label}/{file}', label, split)


def _integers(path: Path, name: str) -> list[int]:
    array = _variable(path, name)
    if array.dtype.kind not in 'iuf' or not (array == np.floor(array)).all() or not (np.abs(array) < 1e6).all():
        raise _damaged(path, ValueError('not integers'))
    return array.astype(np.int64).ravel().tolist()


def _variable(path: Path, name: str) -> np.ndarray:
    try:
        array = load_matlab(path)[name]
        if not isinstance(array, np.ndarray):
            raise TypeError('not an array')
        return array
    except Exception as error:  # SciPy's readers raise a different error for each kind of damage.
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    what = 'is missing' if isinstance(error, FileNotFoundError) else 'is damaged'
    return UserError(f'{path} {what}: download the data set again')
