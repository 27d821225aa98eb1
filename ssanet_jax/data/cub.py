"""Caltech-UCSD Birds-200-2011, read from its extracted archive.

Wah, Branson, Welinder, Perona, Belongie: The Caltech-UCSD Birds-200-2011 Dataset (2011).

Fields of ``config.data``: ``dir`` (the extracted ``CUB_200_2011`` or a parent folder) and ``prepared_dir``.
A folder with a subset of the classes works too; the name of the data set then says so.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from ssanet_jax.data import listing
from ssanet_jax.errors import UserError

_EXPECTED = 'the extracted CUB_200_2011 folder (the one that holds images.txt)'
NUM_CLASSES = 200
_IMAGES = 11788
_LINES = 10_000  # of a table that are converted together
# In the order of parts/parts.txt. Left and right are from the bird's point of view.
_PARTS = (
    *('back', 'beak', 'belly', 'breast', 'crown', 'forehead', 'left eye', 'left leg', 'left wing', 'nape'),
    *('right eye', 'right leg', 'right wing', 'tail', 'throat'),
)
KEYPOINT_GROUPS = {
    'head': ('beak', 'crown', 'forehead', 'left eye', 'nape', 'right eye', 'throat'),
    'body': ('back', 'belly', 'breast'),
}


def read(config: Any) -> listing.Listing:
    """Lists CUB with the official split, boxes and 15 key points.

    Args:
      config: the ``data`` section of a configuration.

    Raises:
      UserError: the folder is missing or does not hold CUB.
    """
    root = listing.find_dataset_root(listing.require_dir(config, _EXPECTED), ['images.txt'], _EXPECTED)
    class_names, records = read_records(root)
    return listing.Listing(
        'cub',
        _name(len(class_names), len(records)),
        root,
        class_names,
        records,
        keypoint_names=_PARTS,
        keypoint_groups=KEYPOINT_GROUPS,
        published=dict(classes=NUM_CLASSES, train=5994, test=5794),
        origin='CUB_200_2011.tgz, at https://www.vision.caltech.edu/datasets/cub_200_2011',
    )


def read_records(root: pathlib.Path) -> tuple[tuple[str, ...], list[listing.Record]]:
    """Reads the annotation files.

    Args:
      root: the extracted folder, which holds ``images.txt``.

    Returns:
      Class names ('Black footed Albatross') in the order of the official class numbers, and one record per image in
      the order of ``images.txt``. Labels count from 0 over the classes that have images.

    Raises:
      UserError: a file is missing or malformed, or disagrees with ``images.txt``.
    """
    paths = _column(root, 'images.txt')
    if not paths:
        raise UserError(f'{root / "images.txt"} lists no images: set config.data.dir to {_EXPECTED}')
    names = _column(root, 'classes.txt')
    classes = _column(root, 'image_class_labels.txt')
    is_train = _column(root, 'train_test_split.txt')
    boxes = _table(root, 'bounding_boxes.txt', 5)
    parts = _table(root, 'parts/part_locs.txt', 5)

    # Columns of the files: (image, x, y, width, height) and (image, part, x, y, visible).
    box_of = {int(row[0]): row[[2, 1, 2, 1]] + row[[4, 3, 4, 3]] * (0, 0, 1, 1) for row in boxes}
    keypoints_of: dict[int, np.ndarray] = {}
    for row in parts:
        points = keypoints_of.setdefault(int(row[0]), np.zeros((len(_PARTS), 3), np.float32))
        if not 1 <= row[1] <= len(_PARTS):
            raise UserError(
                f'{root / "parts/part_locs.txt"} has a part {row[1]:g}, outside 1..{len(_PARTS)}:'
                ' extract the archive again'
            )
        points[int(row[1]) - 1] = row[[3, 2, 4]]

    try:
        used = sorted({int(classes[image]) for image in paths})
        label_of = {str(number): label for label, number in enumerate(used)}
        records = [
            listing.Record(
                path=f'images/{listing.inside(path, root / "images.txt")}',
                label=label_of[classes[image]],
                split='train' if is_train[image] == '1' else 'test',
                box=box_of[image].astype(np.float32),
                keypoints=keypoints_of[image],
            )
            for image, path in paths.items()
        ]
        class_names = tuple(_readable(names[number]) for number in used)
    except (KeyError, ValueError) as error:
        raise UserError(
            f'{root}: the annotation files disagree (first mismatch: {error}): extract the archive again'
        ) from error
    return class_names, records


def _readable(class_name: str) -> str:
    # '001.Black_footed_Albatross' -> 'Black footed Albatross'
    return class_name.split('.', 1)[-1].replace('_', ' ')


def _name(classes: int, images: int) -> str:
    if classes < NUM_CLASSES:
        return f'CUB-{classes} ({classes} of {NUM_CLASSES} classes, official split)'
    if images < _IMAGES:
        return f'CUB-200-2011 ({images} of {_IMAGES} images, official split)'
    return 'CUB-200-2011'


def _column(root: pathlib.Path, file: str) -> dict[int, str]:
    """Reads lines of '<number> <text>' into a dict."""
    path = root / file
    column = {}
    for number, line in enumerate(listing.read_text(path, _EXPECTED).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            key, text = line.split(maxsplit=1)
            column[int(key)] = text.strip()
        except ValueError as error:
            raise UserError(
                f'{path}, line {number}: expected a number and a word: extract the archive again'
            ) from error
    return column


def _table(root: pathlib.Path, file: str, columns: int) -> np.ndarray:
    """Reads a table of numbers, float64 [rows, columns]."""
    path = root / file
    lines = listing.read_text(path, _EXPECTED).splitlines()
    try:
        # In pieces, since each number takes 60 bytes before it is converted.
        starts = range(0, len(lines), _LINES)
        pieces = [np.array(' '.join(lines[i : i + _LINES]).split(), np.float64) for i in starts]
        table = np.concatenate([np.zeros(0), *pieces]).reshape(-1, columns)
        if not (np.abs(table) < listing.MAX_COORDINATE).all():  # nan too
            raise ValueError('not a coordinate')
        return table
    except ValueError as error:
        raise UserError(f'{path} is not a table of {columns} numbers per line: extract the archive again') from error
