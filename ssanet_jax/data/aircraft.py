"""FGVC-Aircraft, read from its extracted archive.

Maji, Kannala, Rahtu, Blaschko, Vedaldi: Fine-Grained Visual Classification of Aircraft (2013).

Fields of ``config.data``: ``dir`` (the extracted ``fgvc-aircraft-2013b``, its ``data/`` or a parent folder),
``prepared_dir`` and ``level``: 'variant' (100 classes, the default and the level that papers report), 'family' or
'manufacturer'.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from ssanet_jax.data import listing
from ssanet_jax.errors import UserError

_EXPECTED = 'the extracted fgvc-aircraft-2013b folder (the one that holds data/)'
# By `config.data.level`.
NUM_CLASSES = {'variant': 100, 'family': 70, 'manufacturer': 30}
_CLASS_FILES = {'variant': 'variants.txt', 'family': 'families.txt', 'manufacturer': 'manufacturers.txt'}
# The bottom rows of every image name its photographer, and are to be cropped before use (README of the data set).
# Photographers have favorite aircraft, so the banner would leak the label.
BANNER = 20


def read(config: Any) -> listing.Listing:
    """Lists FGVC-Aircraft with the official split: trainval for training, and test.

    Args:
      config: the ``data`` section of a configuration.

    Raises:
      UserError: the folder is missing or does not hold FGVC-Aircraft, or the level is unknown.
    """
    level = config.get('level') or 'variant'
    root = listing.find_dataset_root(listing.require_dir(config, _EXPECTED), ['variants.txt'], _EXPECTED)
    class_names, records = read_records(root, level)
    file, expected = _CLASS_FILES[level], NUM_CLASSES[level]
    count = str(len(class_names))
    if len(class_names) != expected:
        count += f' of {expected}'
    return listing.Listing(
        f'aircraft-{level}',
        f'FGVC-Aircraft ({count} {file.removesuffix(".txt")})',
        root,
        class_names,
        records,
        crop_bottom=BANNER,
        published=dict(classes=expected, train=6667, test=3333),
        origin='fgvc-aircraft-2013b.tar.gz, at https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft',
    )


def read_records(root: pathlib.Path, level: str) -> tuple[tuple[str, ...], list[listing.Record]]:
    """Reads the annotation files.

    Args:
      root: the folder that holds ``variants.txt`` and ``images/``.
      level: 'variant', 'family' or 'manufacturer'.

    Returns:
      Class names in the official order, and one record per image: trainval, then test. Records have boxes if there is
      an ``images_box.txt``.

    Raises:
      UserError: the level is unknown, or a file is missing or malformed.
    """
    if level not in NUM_CLASSES:
        raise UserError(f'unknown level {level!r}: set config.data.level to one of {", ".join(NUM_CLASSES)}')
    path = root / _CLASS_FILES[level]
    names = listing.distinct([line for _, line in _lines(path)], path)
    label_of = {name: label for label, name in enumerate(names)}
    boxes = _read_boxes(root / 'images_box.txt')
    records = []
    for split, official in (('train', 'trainval'), ('test', 'test')):
        path = root / f'images_{level}_{official}.txt'
        for number, line in _lines(path):
            image, _, name = line.partition(' ')  # a class name may hold spaces: 'Boeing 707'
            if name not in label_of or (boxes and image not in boxes):
                raise UserError(
                    f'{path}, line {number}: {line[:80]!r} has an unknown class or no box: extract the archive again'
                )
            records.append(
                listing.Record(
                    path=f'images/{listing.inside(image, path)}.jpg',
                    label=label_of[name],
                    split=split,
                    box=boxes.get(image),
                )
            )
    return names, records


def _read_boxes(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads lines of '<image> <x0> <y0> <x1> <y1>', in pixels counted from 1, the last one included."""
    if not path.exists():
        return {}
    boxes = {}
    for number, line in _lines(path):
        try:
            image, *sides = line.split()
            x0, y0, x1, y1 = map(listing.coordinate, sides)
        except ValueError as error:
            raise UserError(
                f'{path}, line {number}: expected an image and four numbers: extract the archive again'
            ) from error
        boxes[image] = np.array((y0 - 1, x0 - 1, y1, x1), np.float32)
    return boxes


def _lines(path: pathlib.Path) -> list[tuple[int, str]]:
    """Reads the lines that are not empty, with their numbers."""
    lines = enumerate(listing.read_text(path, _EXPECTED).splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]
