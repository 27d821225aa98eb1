"""Your own images: a folder a class.

Either ``dir/train/<class>/...`` and ``dir/test/<class>/...``, or ``dir/<class>/...`` alone, of
which 80 % of each class are then drawn for training. Fields of ``config.data``: ``dir``,
``prepared_dir`` and ``split_seed`` (0), which draws the split.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from ssanet_jax.data import listing
from ssanet_jax.errors import UserError

_WHAT = 'a folder with one folder of images a class, or with two such folders, train and test'
_ENDINGS = {'.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.gif'}
_TRAIN_SHARE = 0.8


def read(config: Any) -> listing.Listing:
    """Lists a folder of class folders; it is named after the folder.

    Raises:
      UserError: the folder is missing, has no images, or tests on classes it does not train on.
    """
    root = listing.existing_dir(config, _WHAT)
    class_names, records = read_records(root, config.get('split_seed') or 0)
    drawn = not (root / 'train').is_dir()
    return listing.Listing(
        'folder',
        root.name + (' (random 80/20 split)' if drawn else ''),
        root,
        class_names,
        records,
    )


def read_records(root: pathlib.Path, split_seed: int = 0) -> tuple[tuple[str, ...], list[listing.Record]]:
    """Lists the images.

    Args:
      root: the folder.
      split_seed: draws the split where the folder has none; a class's draw does not depend on
        the other classes.

    Returns:
      The names of the class folders, sorted, and one record an image, sorted by path.

    Raises:
      UserError: no images, ``train`` without ``test`` or the reverse, a class in ``test`` only.
    """
    has_train, has_test = ((root / split).is_dir() for split in listing.SPLITS)
    if has_train != has_test:
        there, absent = ('train', 'test') if has_train else ('test', 'train')
        raise UserError(
            f'{root} has {there}/ but no {absent}/: add it, or point config.data.dir at a folder of'
            ' class folders to have a split drawn'
        )
    if has_train:
        files = {split: _images(root, root / split) for split in listing.SPLITS}
    else:
        files = _drawn_split(_images(root, root), split_seed)
    class_names = tuple(sorted(files['train']))
    if not class_names:
        raise UserError(f'{root} has no images in class folders: set config.data.dir to {_WHAT}')
    unknown = sorted(set(files['test']) - set(class_names))
    if unknown:
        raise UserError(
            f'{root / "test"} has classes without training images, such as {unknown[0]!r}:'
            ' add images to train/ or remove the class'
        )
    records = [
        listing.Record(
            path=path,
            label=class_names.index(name),
            split=split,
            # A file may be replaced under the same name; a published set's never is.
            stamp=(root / path).stat().st_mtime_ns,
        )
        for split in listing.SPLITS
        for name in sorted(files[split])
        for path in files[split][name]
    ]
    return class_names, records


def _images(root: pathlib.Path, parent: pathlib.Path) -> dict[str, list[str]]:
    """Class folder -> sorted image paths relative to ``root``; only folders with images."""
    found = {}
    for folder in parent.iterdir():
        if not folder.is_dir() or folder.name.startswith('.'):
            continue
        paths = sorted(
            path.relative_to(root).as_posix()
            for path in folder.rglob('*')
            if path.suffix.lower() in _ENDINGS and not path.name.startswith('.')
        )
        if paths:
            found[folder.name] = paths
    return found


def _drawn_split(files: dict[str, list[str]], seed: int) -> dict[str, dict[str, list[str]]]:
    split: dict[str, dict[str, list[str]]] = {'train': {}, 'test': {}}
    for name, paths in files.items():
        # Seeded by the name too, so that adding a class moves no image of another one.
        order = np.random.default_rng([seed, *name.encode()]).permutation(len(paths))
        # At least one image to train on, and one to test on where a class has two.
        cut = min(max(round(_TRAIN_SHARE * len(paths)), 1), max(len(paths) - 1, 1))
        chosen = {'train': order[:cut], 'test': order[cut:]}
        for part, indices in chosen.items():
            if len(indices):
                split[part][name] = [paths[i] for i in sorted(indices)]
    return split
