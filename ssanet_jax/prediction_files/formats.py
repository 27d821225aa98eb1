"""The formats of `--format`, and the files that they are written to."""

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.atomic_files import atomic_writer
from ssanet_jax.prediction_files import camtrap, coco, csv_table, json_lines
from ssanet_jax.prediction_files.journal import Record


class Format(NamedTuple):
    """A format of predictions."""

    file: str  # its name
    write: Callable[[TextIO, Iterable[Record], str], None]  # (file, records to iterate any number of times, network)


FORMATS = {
    'jsonl': Format('predictions.jsonl', json_lines.write),
    'csv': Format('predictions.csv', csv_table.write),
    'coco': Format('predictions_coco.json', coco.write),
    'camtrap': Format('observations.csv', camtrap.write),
}


def parse_formats(values: Iterable[str]) -> list[Format]:
    """Reads the values of `--format`, each a comma-separated list of names.

    Raises:
      UserError: a name is unknown.
    """
    names = [name.strip() for value in values for name in value.split(',')]
    for name in names:
        if name not in FORMATS:
            raise UserError(f'--format={name}: choose from {", ".join(FORMATS)}; several are separated by commas')
    return [FORMATS[name] for name in dict.fromkeys(names)]


def check_files(out: Path, names: Iterable[str]) -> None:
    """Checks that no folder is in the place of an output file.

    Raises:
      UserError: there is one.
    """
    for name in names:
        if (out / name).is_dir():
            raise UserError(f'cannot write in {out} ({name} is a folder): give another --out')


def write_formats(out: Path, formats: Sequence[Format], records: Iterable[Record], network: str) -> None:
    """Writes the file of each format atomically, one record at a time.

    Args:
      out: the folder.
      formats: the formats.
      records: the records of all images, which can be iterated any number of times.
      network: the name of the network, for formats that hold it.

    Raises:
      UserError: a file cannot be written.
    """
    for chosen in formats:
        write_text(out / chosen.file, lambda file, chosen=chosen: chosen.write(file, records, network))


def write_text(path: Path, write: Callable[[TextIO], None]) -> None:
    r"""Writes a text file atomically; bytes of file names that are not UTF-8 become '\udc80' and the like.

    Args:
      path: the file.
      write: writes its content.

    Raises:
      UserError: the file cannot be written; an earlier file is then unchanged.
    """
    try:
        with atomic_writer(path) as file:
            text = io.TextIOWrapper(file, 'utf-8', errors='backslashreplace', newline='')
            write(text)
            text.detach()  # flushes; the file is closed by its own context
    except OSError as error:
        cure = 'free some space, or allow it, and run the same command again'
        raise UserError(f'cannot write {path} ({error.strerror}): {cure}') from error
