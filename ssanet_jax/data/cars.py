"""Stanford Cars, read from the folder that its archives extract to.

Krause, Stark, Deng, Fei-Fei: 3D Object Representations for Fine-Grained Categorization (2013).
Fields of ``config.data``: ``dir`` and ``prepared_dir``. ``dir`` holds ``cars_train/``,
``cars_test/`` and ``devkit/``; the labels of the test images came as a separate download,
``cars_test_annos_withlabels.mat``, which may lie in ``devkit/`` or beside it.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import scipy.io

from ssanet_jax.data import listing
from ssanet_jax.errors import UserError

_WHAT = 'the Stanford Cars folder (the one that holds devkit/, cars_train/ and cars_test/)'
_TEST_LABELS = 'cars_test_annos_withlabels.mat'
_CLASSES = 196
_ORIGIN = 'a mirror of Stanford Cars (its own download has been dead since 2023)'


def read(config: Any) -> listing.Listing:
    """Lists Stanford Cars with the official split and boxes.

    Raises:
      UserError: the folder is missing or is not Stanford Cars, the test labels are missing.
    """
    root = listing.existing_dir(config, _WHAT)
    class_names, records = read_records(root)
    name = 'Stanford Cars'
    if len(class_names) != _CLASSES:
        name += f' ({len(class_names)} of {_CLASSES} classes)'
    published = dict(classes=_CLASSES, train=8144, test=8041)
    return listing.Listing('cars', name, root, class_names, records, published=published, origin=_ORIGIN)


def read_records(root: pathlib.Path) -> tuple[tuple[str, ...], list[listing.Record]]:
    """Reads the annotation files.

    Args:
      root: the folder that holds ``devkit/``.

    Returns:
      Class names in official order, and one record an image: train, then test, each in the order
      of its file.

    Raises:
      UserError: a file is missing, is no MATLAB file or lacks labels.
    """
    devkit = root / 'devkit'
    names = read_class_names(listing.require_file(devkit / 'cars_meta.mat', _WHAT))
    train = listing.require_file(devkit / 'cars_train_annos.mat', _WHAT)
    test = devkit / _TEST_LABELS
    if not test.is_file():
        test = root / _TEST_LABELS
    if not test.is_file():
        raise UserError(
            f'{devkit / _TEST_LABELS} is missing: the test images have no labels without it;'
            ' download this file of Stanford Cars too and put it there'
        )
    records = read_annotations(train, 'train', len(names))
    return names, records + read_annotations(test, 'test', len(names))


def read_class_names(path: pathlib.Path) -> tuple[str, ...]:
    """Reads ``cars_meta.mat``: names such as 'Acura RL Sedan 2012', in label order."""
    return tuple(str(name) for name in np.atleast_1d(_variable(path, 'class_names')))


def read_annotations(path: pathlib.Path, split: str, classes: int) -> list[listing.Record]:
    """Reads a file of annotations.

    Args:
      path: ``cars_train_annos.mat`` or ``cars_test_annos_withlabels.mat``.
      split: 'train' or 'test'.
      classes: number of classes; the file's labels run from 1 to it.

    Raises:
      UserError: the file is no such file, has no labels or labels outside 1..classes.
    """
    rows = np.atleast_1d(_variable(path, 'annotations'))
    if 'class' not in (rows.dtype.names or ()):
        raise UserError(f'{path} has no labels: put {_TEST_LABELS} of Stanford Cars in its place')
    records = []
    for row in rows:
        label = int(row['class'])
        if not 1 <= label <= classes:
            raise UserError(
                f'{path}: {row["fname"]} has class {label}, outside 1..{classes}: cars_meta.mat and'
                ' this file belong to different sets, extract the devkit again'
            )
        # MATLAB counts pixels from 1 and includes the last one.
        x0, y0, x1, y1 = (float(row[f'bbox_{side}']) for side in ('x1', 'y1', 'x2', 'y2'))
        records.append(
            listing.Record(
                path=f'cars_{split}/{row["fname"]}',
                label=label - 1,
                split=split,
                box=np.array((y0 - 1, x0 - 1, y1, x1), np.float32),
            )
        )
    return records


def _variable(path: pathlib.Path, name: str) -> np.ndarray:
    try:
        return scipy.io.loadmat(path, squeeze_me=True)[name]
    except Exception as error:  # SciPy's readers raise a different error for each kind of damage.
        raise UserError(f'{path} is not the MATLAB file of Stanford Cars: extract the devkit again') from error
