"""Your own images: one folder per class, or a CSV file.

Fields of ``config.data``: ``dir``, ``prepared_dir``, ``csv`` (default: none) and ``split_seed`` (default: 0).

* ``dir/train/<class>/...`` and ``dir/test/<class>/...``, or another layout that `layout` understands. Without ``test``,
  a folder ``val``, ``valid`` or ``validation`` is the test split; with ``test``, it is ignored. Either way the name of
  the data set says so.
* ``dir/<class>/...`` only: 80 % of each class are drawn for training, by ``split_seed``.
* ``csv``, a file in ``dir`` or an absolute path, with the header ``path,label,split`` or ``path,label``. Paths are
  relative to ``dir``, a label is any text, and splits have the names and the meaning described above.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssanet_jax.data import image_files, layout, listing
from ssanet_jax.data.class_names import match_class_names
from ssanet_jax.data.csv_table import read_table
from ssanet_jax.data.layout import Files, Layout
from ssanet_jax.data.left_out import NOT_AN_IMAGE, LeftOut, counted, first_names, left_out_line
from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.paths import user_path

_EXPECTED = 'a folder with one subfolder of images per class, or with two such folders, train and test'
_TRAIN_SHARE = 0.8
# Files of published data sets, which have readers with the official split.
_PUBLISHED_MARKERS = {
    'cub': 'train_test_split.txt',
    'cars': 'devkit/cars_train_annos.mat',
    'aircraft': 'data/images_variant_trainval.txt',
}


def read(config: Any, class_names: Sequence[str] = ()) -> listing.Listing:
    """Lists the images of class folders or of a CSV file. The data set takes the name of the folder.

    Args:
      config: the ``data`` section of a configuration.
      class_names: the classes of a trained network that is to be evaluated. Then the training split may be missing,
        and the test split may have some of these classes only.

    Raises:
      UserError: the folder is missing or has no images, the test split has classes that the training split lacks, or
        the CSV file is missing or malformed.
    """
    root = listing.require_dir(config, _EXPECTED)
    table = None
    if config.get('csv'):
        table = root / user_path(config.csv, 'config.data.csv')
    return read_folder(root, config.get('split_seed') or 0, table, class_names)


def read_folder(
    root: pathlib.Path, split_seed: int = 0, table: pathlib.Path | None = None, class_names: Sequence[str] = ()
) -> listing.Listing:
    """Lists the images.

    Args:
      root: the folder.
      split_seed: seed of the random split, if no split is given. The draw of a class is independent of other classes.
      table: the CSV file, if there is one.
      class_names: as for `read`.

    Returns:
      The sorted class names, and one record per image, sorted by split, class and path. `left_out` has the files that
      are not images and the images outside the class folders.

    Raises:
      UserError: there are no images, ``train`` without ``test`` or the reverse, a class in ``test`` only, folders
        without a clear meaning, or a malformed CSV file.
    """
    source = table or root
    found = Layout(read_table(root, table), []) if table else _read_layout(root, class_names)
    if not any(map(any, found.splits.values())):
        left_out = left_out_line(found.left_out, 0)
        raise UserError(
            f'{source} has no images in class folders{f" ({left_out})" if left_out else ""}: set config.data.dir to '
            f'{_EXPECTED}, or list the images in a CSV file and set config.data.csv to it'
        )
    found.splits, notes_on_names = match_class_names(found.splits, class_names)
    found.notes += notes_on_names
    files, note = _choose_splits(found, split_seed, source, evaluates=bool(class_names))
    trained = tuple(sorted(files['train']))
    if class_names and set(trained) != set(class_names):
        files['train'] = {}  # only the test images matter for an evaluation
    else:
        class_names = trained
    unknown = sorted(set(files['test']) - set(class_names))
    if unknown:
        counted = listing.summarize(class_names, {})
        raise UserError(
            f'{source} has test images of classes without training images, such as {unknown[0]!r} '
            f'({counted}): add training images or move the class out of the data set'
            if files['train']
            else f'{source} has test images of classes that the network was not trained on, such as {unknown[0]!r} '
            f'({counted}): rename them or move them out of the data set'
        )
    label_of = {name: label for label, name in enumerate(class_names)}
    records = [
        listing.Record(path=path, label=label_of[name], split=split)
        for split in listing.SPLITS
        for name in sorted(files[split])
        for path in files[split][name]
    ]
    notes = ([table.name] if table else []) + ([note] if note else [])
    return listing.Listing(
        'folder',
        root.name + (f' ({", ".join(notes)})' if notes else ''),
        root,
        tuple(class_names),
        records,
        left_out=tuple(sorted(found.left_out, key=lambda item: item.path)),
        notes=(*found.notes, *_published_note(root)),
        variant=f'{table or ""} {split_seed}',
    )


def _choose_splits(found: Layout, seed: int, source: pathlib.Path, evaluates: bool) -> tuple[dict[str, Files], str]:
    """Chooses training and test images among the splits found.

    Returns:
      {'train': files, 'test': files} and a note on the split for the name of the data set, '' if there is none.
    """
    splits = found.splits
    if '' in splits:
        if evaluates:
            found.notes.append(
                'no split in the folder, so a random fifth is tested: move all images to test/ to test all'
            )
        return _draw_split(splits[''], seed), 'random 80/20 split'
    note = ''
    if 'val' in splits:
        # Validation images are never used for training, since users do not expect that.
        note = 'val ignored' if 'test' in splits else 'tested on val'
        if 'test' in splits:
            count = _num_images({'val': splits['val']})
            found.notes.append(f'{counted(count, "validation image")} not used, since there are test images')
        splits = {'test': splits['val'], **splits}
    left_out = f' ({left_out_line(found.left_out, _num_images(splits))})' if found.left_out else ''
    if 'train' not in splits and not evaluates:
        raise UserError(
            f'{source} has no train split, but {_counted(splits, "test")}: add one, or rename its folder or split so '
            f'that a random split is drawn; --mode=evaluate needs no train split{left_out}'
        )
    if 'test' not in splits:
        inside = '' if source.is_file() else '; or set config.data.dir to the train folder for a random split'
        raise UserError(
            f'{source} has no test split, but {_counted(splits, "train")}: add it (val, valid or validation also serve '
            f'as test), or use no splits, for a random one{inside}{left_out}'
        )
    return {split: splits.get(split, {}) for split in listing.SPLITS}, note


def _counted(splits: dict[str, Files], split: str) -> str:
    return listing.summarize(sorted(splits[split]), {split: _num_images({split: splits[split]})})


def _num_images(splits: dict[str, Files]) -> int:
    return sum(len(paths) for files in splits.values() for paths in files.values())


def _read_layout(root: pathlib.Path, class_names: Sequence[str]) -> Layout:
    """Finds the images of each class and split in folders."""
    found = image_files.search_folder(root)
    relative = lambda path: path.relative_to(root).as_posix()
    result = layout.understand(map(relative, found.images), root, class_names)
    linked = {relative(path): real for path, real in found.linked.items()}
    for files in result.splits.values():
        for name, paths in files.items():
            files[name] = image_files.without_repeats(paths, linked, root)
    used = {name for files in result.splits.values() for name in files}
    unused: dict[str, None] = {}  # class folders whose images cannot be used
    for item in found.left_out:
        item = LeftOut(relative(pathlib.Path(item.path)), item.reason)
        name = result.class_of(item.path)
        if item.reason != NOT_AN_IMAGE and name and name not in used:
            unused[name] = None
        if item.reason != NOT_AN_IMAGE or name:
            result.left_out.append(item)
    if unused:
        result.notes.append(
            f'{counted(len(unused), "folder")} without usable images, not classes: {first_names(unused)}'
        )
    return result


def _published_note(root: pathlib.Path) -> list[str]:
    """A note if the folder is a published data set, whose official split its own reader has."""
    return [
        f'this looks like a published data set: config.data.name={name} reads its official split'
        for name, marker in _PUBLISHED_MARKERS.items()
        if (root / marker).is_file()
    ]


def _sort_key(seed: int, path: str) -> str:
    """A random sort key that depends on the path alone, so that adding images or classes hardly moves other images."""
    return hashlib.sha256(f'{seed}/'.encode() + os.fsencode(path)).hexdigest()


def _draw_split(files: Files, seed: int) -> dict[str, Files]:
    """Draws a training and a test split, class by class."""
    split: dict[str, Files] = {'train': {}, 'test': {}}
    for name, paths in files.items():
        order = np.argsort([_sort_key(seed, path) for path in paths], kind='stable')
        # At least one training image, and at least one test image if the class has two.
        cut = min(max(round(_TRAIN_SHARE * len(paths)), 1), max(len(paths) - 1, 1))
        chosen = {'train': order[:cut], 'test': order[cut:]}
        for part, indices in chosen.items():
            if len(indices):
                split[part][name] = [paths[i] for i in sorted(indices)]
    return split
