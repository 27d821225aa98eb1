"""FGVC-Aircraft, read from the folder that its archive extracts to.

Maji, Kannala, Rahtu, Blaschko, Vedaldi: Fine-Grained Visual Classification of Aircraft (2013).
Fields of ``config.data``: ``dir`` (the extracted ``fgvc-aircraft-2013b``, the ``data`` in it or a
folder that holds it), ``prepared_dir`` and ``level``: 'variant' (100 classes, the default and what
papers report), 'family' or 'manufacturer'.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from ssanet_jax.data import listing
from ssanet_jax.errors import UserError

_WHAT = 'the extracted fgvc-aircraft-2013b folder (the one that holds data/)'
# Level -> (file of names, how many there are).
_LEVELS = {
    'variant': ('variants.txt', 100),
    'family': ('families.txt', 70),
    'manufacturer': ('manufacturers.txt', 30),
}
# Every picture ends with a strip that names its photographer, to be cut off before use (README of
# the set). Photographers favour aircraft, so it would also leak the label.
_BANNER = 20


def read(config: Any) -> listing.Listing:
    """Lists FGVC-Aircraft: official trainval for training, official test.

    Raises:
      UserError: the folder is missing or is not FGVC-Aircraft, an unknown level.
    """
    level = config.get('level') or 'variant'
    root = listing.find_dataset_root(listing.require_dir(config, _WHAT), ['variants.txt'], _WHAT)
    class_names, records = read_records(root, level)
    file, expected = _LEVELS[level]
    count = str(len(class_names))
    if len(class_names) != expected:
        count += f' of {expected}'
    return listing.Listing(
        f'aircraft-{level}',
        f'FGVC-Aircraft ({count} {file.removesuffix(".txt")})',
        root,
        class_names,
        records,
        crop_bottom=_BANNER,
        published=dict(classes=expected, train=6667, test=3333),
        origin='fgvc-aircraft-2013b.tar.gz, at https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft',
    )


def read_records(root: pathlib.Path, level: str) -> tuple[tuple[str, ...], list[listing.Record]]:
    """Reads the annotation files.

    Args:
      root: the folder that holds ``variants.txt`` and ``images/``.
      level: 'variant', 'family' or 'manufacturer'.

    Returns:
      Class names in official order, and one record an image: trainval, then test. Boxes are there
      if ``images_box.txt`` is.

    Raises:
      UserError: unknown level, a file that is missing or malformed.
    """
    if level not in _LEVELS:
        raise UserError(f'unknown level {level!r}: set config.data.level to one of {", ".join(_LEVELS)}')
    names = tuple(line for _, line in _lines(root / _LEVELS[level][0]))
    label_of = {name: label for label, name in enumerate(names)}
    boxes = _read_boxes(root / 'images_box.txt')
    records = []
    for split, official in (('train', 'trainval'), ('test', 'test')):
        path = root / f'images_{level}_{official}.txt'
        for number, line in _lines(path):
            image, _, name = line.partition(' ')  # the rest is the name: 'Boeing 707', 'F/A-18'
            if name not in label_of or (boxes and image not in boxes):
                raise UserError(
                    f'{path}, line {number}: {line!r} has no known class or no box: extract the archive again'
                )
            records.append(
                listing.Record(
                    path=f'images/{image}.jpg',
                    label=label_of[name],
                    split=split,
                    box=boxes.get(image),
                )
            )
    return names, records


def _read_boxes(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads lines of '<image> <x0> <y0> <x1> <y1>', counted from 1, last pixel included."""
    if not path.is_file():
        return {}
    boxes = {}
    for number, line in _lines(path):
        try:
            image, *sides = line.split()
            x0, y0, x1, y1 = map(float, sides)
        except ValueError as error:
            raise UserError(
                f'{path}, line {number}: expected an image and four numbers: extract the archive again'
            ) from error
        boxes[image] = np.array((y0 - 1, x0 - 1, y1, x1), np.float32)
    return boxes


def _lines(path: pathlib.Path) -> list[tuple[int, str]]:
    """Non-empty lines with their numbers."""
    text = listing.require_file(path, _WHAT).read_text(encoding='utf-8', errors='replace')
    lines = enumerate(text.splitlines(), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]
