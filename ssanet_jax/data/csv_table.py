"""CSV files that list images, with a label and possibly a split for each."""

from __future__ import annotations

import csv
import os
import pathlib
from collections.abc import Iterator
from typing import TextIO

from ssanet_jax.data.layout import SPLIT_WORDS, Files
from ssanet_jax.errors import UserError

_MAX_ROW = 1_000_000  # characters
_MAX_LABEL = 255  # characters, as of the name of a folder
_HEADER = ['path', 'label', 'split']


def read_table(root: pathlib.Path, table: pathlib.Path) -> dict[str, Files]:
    """Reads the images of each split from a CSV file.

    Args:
      root: the folder that the paths in the file are relative to.
      table: the file.

    Returns:
      {'train', 'val' or 'test': the images of each class}, or {'': ...} without the column ``split``.

    Raises:
      UserError: the file is missing or malformed, lists no image, or names a file that does not exist.
    """
    if not table.is_file():
        raise UserError(f'{table} is missing: set config.data.csv to a file in config.data.dir, or to a full path')
    rows = _rows(table)
    number, header = next(rows, (1, []))
    columns = [name.lower() for name in header]
    if sorted(columns) not in (sorted(_HEADER), sorted(_HEADER[:2])):
        raise UserError(
            f'{table}, line {number}: expected the header path,label,split or path,label with commas, not '
            f'{",".join(header)[:200]!r}: add it'
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
        if len(label) > _MAX_LABEL:
            raise UserError(f'{where}: a label of {len(label)} characters: use at most {_MAX_LABEL}')
        if 'split' in columns and split.lower() not in SPLIT_WORDS:
            raise UserError(f'{where}: unknown split {split[:80]!r}: write one of {", ".join(SPLIT_WORDS)}')
        path = _normalize_path(root, path, where)
        if path in line_of:
            raise UserError(f'{where}: {path} is already in line {line_of[path]}: remove one of them')
        line_of[path] = number
        found.setdefault(SPLIT_WORDS.get(split.lower(), ''), {}).setdefault(label, []).append(path)
    if not found:
        raise UserError(f'{table} lists no images: add a line for each')
    return {split: {label: sorted(paths) for label, paths in files.items()} for split, files in found.items()}


def _rows(table: pathlib.Path) -> Iterator[tuple[int, list[str]]]:
    """Reads the lines of a CSV file that are not empty, with their numbers; strips blanks around fields."""
    # Spreadsheets put a byte order mark before the first field.
    with open(table, encoding='utf-8-sig', newline='') as file:
        lines = _LimitedLines(file, table)
        reader = csv.reader(lines, skipinitialspace=True, strict=True)
        try:
            for row in reader:
                lines.start_row()
                if any(field.strip() for field in row):
                    yield reader.line_num, [field.strip() for field in row]
        except UnicodeDecodeError as error:
            raise UserError(f'{table}, after line {reader.line_num}: not UTF-8: save the file as CSV UTF-8') from error
        except csv.Error as error:
            raise UserError(f'{table}, line {reader.line_num}: {error}: check the quotes of that line') from error


class _LimitedLines:
    """The lines of a file, where a row, which may have several, is not longer than any that a person writes."""

    def __init__(self, file: TextIO, table: pathlib.Path):
        self._file, self._table, self._left, self._number = file, table, _MAX_ROW, 0

    def start_row(self) -> None:
        """Starts to count the characters of the next row."""
        self._left = _MAX_ROW

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(self._left + 1):
            self._number += 1
            self._left -= len(line)
            if self._left < 0:
                raise UserError(
                    f'{self._table}, line {self._number}: more than {_MAX_ROW} characters in a row: check the quotes '
                    'before it, and that the file is a CSV file'
                )
            yield line


def _normalize_path(root: pathlib.Path, path: str, where: str) -> str:
    """Validates and normalizes a path of a CSV file; raises UserError if it is not a file inside `root`."""
    inner = pathlib.PurePosixPath(path)
    if inner.is_absolute() or '..' in inner.parts:
        raise UserError(f'{where}: {path[:200]!r} is not inside {root}: write it relative to that folder, without ..')
    if '\0' in path or not os.path.isfile(root / inner):  # False for names that no file can have, too
        raise UserError(
            f'{where}: {path[:200]!r} is not a file in {root}: correct it (with forward slashes) or remove the line'
        )
    return str(inner)
