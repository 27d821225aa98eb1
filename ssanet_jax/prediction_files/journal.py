"""The journal of a prediction: what is known of each image so far, so that a killed command can go on.

A file of JSON lines. The first holds the settings of the prediction; each further line holds the records of one batch
of the network, written at once. After a kill, the journal is good up to its last whole line. Output files are written
from it at the end, so they do not depend on where a prediction was interrupted.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.locks import lock_file

JOURNAL_FILE = 'predictions.partial'


@dataclasses.dataclass(frozen=True)
class Record:
    """The result for one image file."""

    file: str
    line: Mapping[str, Any] | None = None  # the fields of its JSON line; None if it cannot be read
    height: int = 0  # of the image, pixels, after its EXIF orientation
    width: int = 0
    reason: str = ''  # why it cannot be read
    version: tuple[int, int] = (0, 0)  # of the file: its size in bytes, and when it was changed, nanoseconds


class Journal:
    """A journal that is open to be continued. It can be iterated any number of times, record by record.

    Attributes:
      done: the number of files, from the first one on, that have records.
      message: what became of the records of an earlier start; '' if there are none.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], files: Sequence[str]):
        self._path = path
        self.done, self.message, length = _resume(path, settings, files)
        self._file = path.open('r+b')
        self._file.truncate(length)
        self._file.seek(length)
        if not length:
            self._write(settings)

    def add(self, records: Sequence[Record]) -> None:
        """Appends the records of a batch, in the order of the files."""
        self._write([_without_defaults(record) for record in records])
        self.done += len(records)

    def __iter__(self) -> Iterator[Record]:
        with self._path.open('rb') as file:
            next(file)
            for line in file:
                for fields in json.loads(line):
                    yield Record(**fields)

    def close(self, *, finished: bool) -> None:
        """Closes the file. It is removed if the prediction is finished, or if there are no records."""
        self._file.close()
        if finished or not self.done:
            self._path.unlink(missing_ok=True)

    def _write(self, content: Any) -> None:
        self._file.write(json.dumps(content).encode() + b'\n')
        self._file.flush()


@contextlib.contextmanager
def open_journal(out: Path, settings: Mapping[str, Any], files: Sequence[str]) -> Iterator[Journal]:
    """Opens the journal in a folder. It is removed at the end of the context, and kept after an exception.

    The records of an earlier start are kept up to the first file that is another one now, or has changed, if the
    settings are the same.

    Args:
      out: the folder; it is created if it does not exist.
      settings: whatever the predictions depend on, by the name that a message uses.
      files: the image files, in order.

    Raises:
      UserError: the folder cannot be written, or another process predicts into it.
    """
    path = out / JOURNAL_FILE
    with contextlib.ExitStack() as stack:
        try:
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock_file(path, wait=False))
            journal = Journal(path, settings, files)
        except BlockingIOError as error:
            raise UserError(f'another process predicts into {out}: wait for it, or give another --out') from error
        except OSError as error:
            raise UserError(f'cannot write in {out} ({error.strerror}): give another --out') from error
        finished = False
        try:
            yield journal
            finished = True
        finally:
            journal.close(finished=finished)


def file_version(file: str) -> tuple[int, int]:
    """What changes when a file does: its size and the time of the change; zeros for a missing file."""
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _resume(path: Path, settings: Mapping[str, Any], files: Sequence[str]) -> tuple[int, str, int]:
    """Reads the journal of an earlier start.

    Returns:
      The number of files that are done, a message, and the bytes of the journal that are kept.
    """
    done = length = 0
    stop = ''
    with path.open('rb') as file:
        if not (first := file.readline()):
            return 0, '', 0
        if different := _different_settings(first, settings):
            return 0, f'the unfinished predictions in {path.parent} are dropped ({different}): starting again', 0
        length = len(first)
        for line in file:
            records = _parse(line)
            if records is None:
                break  # the process was killed while it wrote this line
            if changed := _first_change(records, files[done : done + len(records)]):
                stop = f' ({changed} is new or has changed since)'
                break
            done += len(records)
            length += len(line)
    if not done and not stop:
        return 0, '', length
    return done, f'going on after {done} of {len(files)} images of an earlier start{stop}', length


def _different_settings(line: bytes, settings: Mapping[str, Any]) -> str:
    found = _load_json(line)
    if not isinstance(found, dict):
        return 'they are damaged'
    names = [name for name, value in json.loads(json.dumps(settings)).items() if found.get(name) != value]
    return f'changed since: {", ".join(names)}' if names else ''


def _parse(line: bytes) -> list[Record] | None:
    content = _load_json(line) if line.endswith(b'\n') else None
    try:
        return [Record(**fields) for fields in content] if isinstance(content, list) else None
    except TypeError:
        return None


def _load_json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _first_change(records: Sequence[Record], files: Sequence[str]) -> str:
    """The first file that is another one than that of its record, or has changed since; '' if none has."""
    for record, file in zip(records, files):
        if record.file != file or tuple(record.version) != file_version(file):
            return file
    return '' if len(records) == len(files) else records[len(files)].file


def _without_defaults(record: Record) -> dict[str, Any]:
    fields = dataclasses.fields(Record)
    return {field.name: value for field in fields if (value := getattr(record, field.name)) != field.default}
