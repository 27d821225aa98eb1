"""Your own images: one folder per class, or a CSV file.

Fields of ``config.data``: ``dir``, ``prepared_dir``, ``csv`` (default: none) and ``split_seed`` (default: 0).

* ``dir/train/<class>/...`` and ``dir/test/<class>/...``. Without ``test``, a folder ``val``, ``valid`` or
  ``validation`` is the test split; with ``test``, it is ignored. Either way the name of the data set says so.
* ``dir/<class>/...`` only: 80 % of each class are drawn for training, by ``split_seed``.
* ``csv``, a file in ``dir`` or an absolute path, with the header ``path,label,split`` or ``path,label``. Paths are
  relative to ``dir``, a label is any text, and splits have the names and the meaning described above.
"""

from __future__ import annotations

import csv
import hashlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ssanet_jax.data import listing
from ssanet_jax.data.images import IMAGE_SUFFIXES
from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.paths import user_path

_EXPECTED = 'a folder with one subfolder of images per class, or with two such folders, train and test'
_TRAIN_SHARE = 0.8
# Names of splits, of folders and in CSV files, in lower or upper case.
_SPLITS = {'train': 'train', 'test': 'test', 'val': 'val', 'valid': 'val', 'validation': 'val'}
_HEADER = ['path', 'label', 'split']

Files = dict[str, list[str]]
"""Class name -> sorted paths of its images, relative to the root."""


def read(config: Any) -> listing.Listing:
    """Lists the images of class folders or of a CSV file. The data set takes the name of the folder.

    Args:
      config: the ``data`` section of a configuration.

    Raises:
      UserError: the folder is missing or has no images, the test split has classes that the training split lacks, or
        the CSV file is missing or malformed.
    """
    root = listing.require_dir(config, _EXPECTED)
    table = None
    if config.get('csv'):
        table = root / user_path(config.csv, 'config.data.csv')
    class_names, records, note, skipped_files = read_records(root, config.get('split_seed') or 0, table)
    notes = ([table.name] if table else []) + ([note] if note else [])
    name = root.name + (f' ({", ".join(notes)})' if notes else '')
    return listing.Listing('folder', name, root, class_names, records, skipped_files=skipped_files)


def read_records(
    root: pathlib.Path, split_seed: int = 0, table: pathlib.Path | None = None
) -> tuple[tuple[str, ...], list[listing.Record], str, tuple[str, ...]]:
    """Lists the images.

    Args:
      root: the folder.
      split_seed: seed of the random split, if no split is given. The draw of a class is independent of other classes.
      table: the CSV file, if there is one.

    Returns:
      (class_names, records, note, skipped_files): the sorted class names; one record per image, sorted by split, class
      and path; a note on the split for reports, '' if the split was given; and the skipped files, which are those
      with other file name extensions and images outside the class folders.

    Raises:
      UserError: there are no images, ``train`` without ``test`` or the reverse, a class in ``test`` only, or a
        malformed CSV file.
    """
    found, skipped_files = (_read_table(root, table), []) if table else _read_folders(root)
    source = table or root
    files, note = _choose_splits(found, split_seed, source)
    class_names = tuple(sorted(files['train']))
    if not class_names:
        other = f' ({len(skipped_files)} files skipped, such as {min(skipped_files)})' if skipped_files else ''
        raise UserError(
            f'{source} lists no training images: add some'
            if table
            else f'{root} has no images in class folders{other}: set config.data.dir to {_EXPECTED}, or list the '
            'images in a CSV file and set config.data.csv to it'
        )
    unknown = sorted(set(files['test']) - set(class_names))
    if unknown:
        raise UserError(
            f'{source} has test images of classes without training images, such as {unknown[0]!r}:'
            ' add training images or remove the class'
        )
    label_of = {name: label for label, name in enumerate(class_names)}
    records = [
        listing.Record(
            path=path,
            label=label_of[name],
            split=split,
            # Users may replace a file under the same name.
            mtime_ns=_mtime_ns(root / path),
        )
        for split in listing.SPLITS
        for name in sorted(files[split])
        for path in files[split][name]
    ]
    return class_names, records, note, tuple(sorted(skipped_files))


def _choose_splits(found: dict[str, Files], seed: int, source: pathlib.Path) -> tuple[dict[str, Files], str]:
    """Chooses training and test images among the splits found; '' is the key of images without a split.

    Returns:
      {'train': files, 'test': files} and a note on the split for reports, '' if there is nothing to note.
    """
    if '' in found:
        return _draw_split(found[''], seed), 'random 80/20 split'
    note = ''
    if 'val' in found:
        # Validation images are never used for training, since users do not expect that.
        note = 'val ignored' if 'test' in found else 'tested on val'
        found = {'test': found['val'], **found}
    absent = [split for split in listing.SPLITS if split not in found]
    if absent:
        raise UserError(
            f'{source} has no {absent[0]} split: add it (val, valid or validation also serve as test), or remove'
            ' all splits for a random one'
        )
    return {split: found[split] for split in listing.SPLITS}, note


def _read_folders(root: pathlib.Path) -> tuple[dict[str, Files], list[str]]:
    """Lists the images of each split that has a folder, or all of them under ''; and the skipped files."""
    named = (path for path in sorted(root.iterdir()) if path.name.lower() in _SPLITS)
    folders = {_SPLITS[path.name.lower()]: path for path in named if path.is_dir()}
    if not folders.keys() & {'train', 'test'}:
        folders = {'': root}
    skipped_files: list[str] = []
    return {split: _list_images(root, path, skipped_files) for split, path in folders.items()}, skipped_files


def _list_images(root: pathlib.Path, parent: pathlib.Path, skipped_files: list[str]) -> Files:
    """Lists the images of each class folder in ``parent``, by class; appends other files to ``skipped_files``."""
    found = {}
    relative = lambda path: path.relative_to(root).as_posix()
    for folder in parent.iterdir():
        if folder.name.startswith('.'):
            continue
        if not folder.is_dir():
            if folder.suffix.lower() in IMAGE_SUFFIXES:  # an image outside the class folders
                skipped_files.append(relative(folder))
            continue
        paths = []
        for path in folder.rglob('*'):
            if any(part.startswith('.') for part in path.relative_to(folder).parts):
                continue
            if path.suffix.lower() in IMAGE_SUFFIXES:
                paths.append(relative(path))
            elif not path.is_dir():
                skipped_files.append(relative(path))
        if paths:
            found[folder.name] = sorted(paths)
    return found


def _read_table(root: pathlib.Path, table: pathlib.Path) -> dict[str, Files]:
    """Reads the images of each split from a CSV file, or all of them under ''."""
    if not table.is_file():
        raise UserError(f'{table} is missing: set config.data.csv to a file in config.data.dir, or to a full path')
    rows = _rows(table)
    number, header = next(rows, (1, []))
    columns = [name.lower() for name in header]
    if sorted(columns) not in (sorted(_HEADER), sorted(_HEADER[:2])):
        raise UserError(
            f'{table}, line {number}: expected the header path,label,split or path,label with commas, not {header}:'
            ' add it'
        )
    found: dict[str, Files] = {}
    line_of: dict[str, int] = {}
    for number, row in rows:
        where = f'{table}, line {number}'
        if len(row) != len(columns):
            raise UserError(
                f'{where}: {len(row)} fields, but the header has {len(columns)}: quote fields that contain a comma'
            )
        path, label, split = (dict(zip(columns, row)).get(name, '') for name in _HEADER)
        if not label:
            raise UserError(f'{where}: the label is empty: fill it in or remove the line')
        if 'split' in columns and split.lower() not in _SPLITS:
            raise UserError(f'{where}: unknown split {split!r}: write one of {", ".join(_SPLITS)}')
        path = _normalize_path(root, path, where)
        if path in line_of:
            raise UserError(f'{where}: {path} is already in line {line_of[path]}: remove one of them')
        line_of[path] = number
        found.setdefault(_SPLITS.get(split.lower(), ''), {}).setdefault(label, []).append(path)
    if not found:
        raise UserError(f'{table} lists no images: add a line for each')
    return {split: {label: sorted(paths) for label, paths in files.items()} for split, files in found.items()}


def _rows(table: pathlib.Path) -> Iterator[tuple[int, list[str]]]:
    """Reads the lines of a CSV file that are not empty, with their numbers; strips blanks around fields."""
    # Spreadsheets put a byte order mark before the first field.
    with open(table, encoding='utf-8-sig', newline='') as file:
        reader = csv.reader(file, skipinitialspace=True, strict=True)
        try:
            for row in reader:
                if any(field.strip() for field in row):
                    yield reader.line_num, [field.strip() for field in row]
        except UnicodeDecodeError as error:
            raise UserError(f'{table}, after line {reader.line_num}: not UTF-8: save the file as CSV UTF-8') from error
        except csv.Error as error:
            raise UserError(f'{table}, line {reader.line_num}: {error}: check the quotes of that line') from error


def _normalize_path(root: pathlib.Path, path: str, where: str) -> str:
    """Validates and normalizes a path of a CSV file; raises UserError if it is not a file inside `root`."""
    inner = pathlib.PurePosixPath(path)
    if inner.is_absolute() or '..' in inner.parts:
        raise UserError(f'{where}: {path!r} is not inside {root}: write it relative to that folder, without ..')
    if not (root / inner).is_file():
        raise UserError(
            f'{where}: {path!r} is not a file in {root}: correct it (with forward slashes) or remove the line'
        )
    return str(inner)


def _mtime_ns(path: pathlib.Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # such as a broken link, which is reported when it is read
        return 0


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
