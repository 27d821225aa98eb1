"""Stanford Cars, read from its extracted archives.

Krause, Stark, Deng, Fei-Fei: 3D Object Representations for Fine-Grained Categorization (2013).

Fields of ``config.data``: ``dir`` and ``prepared_dir``. ``dir`` holds ``cars_train/``, ``cars_test/`` and ``devkit/``,
or is a parent of such a folder. The original host is gone, and some mirrors nest each of these once more
(``cars_train/cars_train/``). The labels of the test images were a separate download,
``cars_test_annos_withlabels.mat``, expected in ``devkit/`` or next to it.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from ssanet_jax.data import listing
from ssanet_jax.data.matlab import load_matlab
from ssanet_jax.errors import UserError

_EXPECTED = 'the Stanford Cars folder (the one that holds cars_train/, cars_test/ and devkit/, which some mirrors lack)'
_TRAIN_LABELS = 'cars_train_annos.mat'
_TEST_LABELS = 'cars_test_annos_withlabels.mat'
# Locations in the known mirrors, relative to the root; the first that exists is used.
_DEVKITS = ('devkit', 'car_devkit/devkit', 'car_devkit', '.')
_IMAGES = ('cars_{split}/cars_{split}', 'cars_{split}')
_BOX = ('bbox_x1', 'bbox_y1', 'bbox_x2', 'bbox_y2')
NUM_CLASSES = 196
_ORIGIN = 'a mirror of Stanford Cars (its own download has been dead since 2023)'


def read(config: Any) -> listing.Listing:
    """Lists Stanford Cars with the official split and boxes.

    Args:
      config: the ``data`` section of a configuration.

    Raises:
      UserError: the folder is missing or does not hold Stanford Cars, or the test labels are missing.
    """
    markers = [f'{devkit}/{_TRAIN_LABELS}' for devkit in _DEVKITS]
    root = listing.find_dataset_root(listing.require_dir(config, _EXPECTED), markers, _EXPECTED)
    class_names, records = read_records(root)
    name = 'Stanford Cars'
    if len(class_names) != NUM_CLASSES:
        name += f' ({len(class_names)} of {NUM_CLASSES} classes)'
    published = dict(classes=NUM_CLASSES, train=8144, test=8041)
    return listing.Listing('cars', name, root, class_names, records, published=published, origin=_ORIGIN)


def read_records(root: pathlib.Path) -> tuple[tuple[str, ...], list[listing.Record]]:
    """Reads the annotation files.

    Args:
      root: the folder that holds ``cars_train/``.

    Returns:
      Class names in the official order, and one record per image: train, then test, each in the order of its file.

    Raises:
      UserError: a file is missing, is not a MATLAB file or lacks labels.
    """
    devkit = next((root / place for place in _DEVKITS if (root / place / _TRAIN_LABELS).is_file()), root / _DEVKITS[0])
    names = read_class_names(listing.require_file(devkit / 'cars_meta.mat', _EXPECTED))
    train = listing.require_file(devkit / _TRAIN_LABELS, _EXPECTED)
    test = _test_labels(root, devkit)
    records = []
    for split, path in (('train', train), ('test', test)):
        places = [place.format(split=split) for place in _IMAGES]
        folder = next((place for place in places if (root / place).is_dir()), places[-1])
        records += read_annotations(path, split, len(names), folder)
    return names, records


def _test_labels(root: pathlib.Path, devkit: pathlib.Path) -> pathlib.Path:
    """Finds the test annotations with labels, also under the name 'cars_test_annos_withlabels (1).mat'."""
    pattern = _TEST_LABELS.replace('.', '*.')
    for folder in (devkit, root):
        # The shortest name is the one without a suffix.
        found = sorted(folder.glob(pattern), key=lambda path: (len(path.name), path.name))
        if found:
            return found[0]
    raise UserError(
        f'{devkit / _TEST_LABELS} is missing, also in {root}, and cars_test_annos.mat has no labels: put the file '
        'there; it was a separate download, which only some mirrors have (such as those on Kaggle)'
    )


def read_class_names(path: pathlib.Path) -> tuple[str, ...]:
    """Reads ``cars_meta.mat``.

    Returns:
      Names such as 'Acura RL Sedan 2012', in label order.

    Raises:
      UserError: the file is not a MATLAB file with class names.
    """
    names = tuple(str(name) for name in np.atleast_1d(_variable(path, 'class_names')))
    return listing.distinct(names, path)


def read_annotations(path: pathlib.Path, split: str, num_classes: int, folder: str = '') -> list[listing.Record]:
    """Reads a file of annotations into one record per image.

    Args:
      path: ``cars_train_annos.mat`` or ``cars_test_annos_withlabels.mat``.
      split: 'train' or 'test'.
      num_classes: the file's labels run from 1 to this number.
      folder: the folder of the images, relative to the root; ``cars_train`` or ``cars_test`` by default.

    Raises:
      UserError: the file is not an annotation file, or has labels that are missing or outside 1..num_classes.
    """
    rows = np.atleast_1d(_variable(path, 'annotations'))
    fields = set(rows.dtype.names or ())
    if not fields >= {'fname', *_BOX}:
        raise UserError(f'{path} does not list images with boxes: extract the devkit again')
    if 'class' not in fields:
        raise UserError(f'{path} has no labels: put {_TEST_LABELS} of Stanford Cars in its place')
    records = []
    for row in rows:
        try:
            label, file = int(row['class']), row['fname']
            if not isinstance(file, str) or '/' in file or '\0' in file:
                raise TypeError('not the name of a file')
            x0, y0, x1, y1 = (listing.coordinate(row[side]) for side in _BOX)
        except (TypeError, ValueError, OverflowError) as error:
            name = str(row['fname'])[:80]
            raise UserError(f'{path}: {name!r} lacks a name, a class or a box: extract the devkit again') from error
        if not 1 <= label <= num_classes:
            raise UserError(
                f'{path}: {row["fname"]} has class {label}, outside 1..{num_classes}: cars_meta.mat and'
                ' this file do not belong together; extract the devkit again'
            )
        records.append(
            listing.Record(
                path=f'{folder or f"cars_{split}"}/{row["fname"]}',
                label=label - 1,
                split=split,
                # MATLAB counts pixels from 1 and includes the last one.
                box=np.array((y0 - 1, x0 - 1, y1, x1), np.float32),
            )
        )
    return records


def _variable(path: pathlib.Path, name: str) -> np.ndarray:
    try:
        return load_matlab(path, squeeze_me=True)[name]
    except Exception as error:  # SciPy's readers raise a different error for each kind of damage.
        raise UserError(f'{path} is not the MATLAB file of Stanford Cars: extract the devkit again') from error
