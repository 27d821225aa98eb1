"""The file in which one process keeps features of images: its layout, and writing that survives a kill."""

import contextlib
import json
import logging
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import numpy as np

from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.atomic_files import write_atomically
from ssanet_jax.filesystem.checksums import compute_checksum
from ssanet_jax.filesystem.regular_files import read_regular_file
from ssanet_jax.models.outputs import PartFeatures

_BATCH_FIELDS = ('label', 'index', 'skipped')  # what is kept of a batch beside the features of its images


class FeatureLayout(NamedTuple):
    """How the features of one image are laid out in the file."""

    dtype: np.dtype  # one field per array of the features, then one per name in _BATCH_FIELDS
    structure: jax.tree_util.PyTreeDef  # of the features

    @classmethod
    def of(cls, features: PartFeatures) -> Self:
        """The layout for features given as arrays, or as their shapes, `[1, ...]`."""
        leaves, structure = jax.tree.flatten(features)
        fields = [(f'array{number}', leaf.dtype, leaf.shape[1:]) for number, leaf in enumerate(leaves)]
        return cls(np.dtype(fields + [(name, np.int32) for name in _BATCH_FIELDS]), structure)

    def pack(self, features: PartFeatures, batch: dict[str, np.ndarray]) -> bytes:
        """The bytes of a batch, one record per image.

        Args:
          features: arrays `[b, ...]`.
          batch: the rest of the batch, int32 `[b]` each.
        """
        records = np.empty(len(batch['label']), self.dtype)
        arrays = [*jax.tree.leaves(features), *(batch[name] for name in _BATCH_FIELDS)]
        for name, array in zip(self.dtype.names or (), arrays, strict=True):
            records[name] = array
        return records.tobytes()

    def unpack(self, record: np.void) -> dict[str, Any]:
        """One image's part of a batch: `{'features': PartFeatures, 'label', 'index', 'skipped'}`."""
        arrays = [np.array(record[name]) for name in self.dtype.names or ()]
        count = self.structure.num_leaves
        return {
            'features': jax.tree.unflatten(self.structure, arrays[:count]),
            **dict(zip(_BATCH_FIELDS, arrays[count:], strict=True)),
        }


_MAX_NOTE_BYTES = 1 << 20


def features_path(directory: Path, process: int) -> Path:
    """The file of a process."""
    return directory / f'features-{process}'


def _note_path(directory: Path, process: int) -> Path:
    return directory / f'{process}.json'


def delete_other_files(directory: Path, num_processes: int) -> None:
    """Deletes the files of an earlier start that had more processes."""
    kept = {path(directory, number).name for number in range(num_processes) for path in (features_path, _note_path)}
    for path in directory.iterdir():
        if path.name not in kept and not path.name.endswith('.partial'):  # another process may be writing that
            path.unlink()


class FeatureFile:
    """The features that one process wrote, and a note of how many of its bytes are on the disk.

    Args:
      directory: created if it does not exist.
      process: index of the process.
      key: what the features depend on. Features with another key are deleted, and so are damaged ones.
    """

    def __init__(self, directory: Path, process: int, key: dict[str, Any]):
        directory.mkdir(parents=True, exist_ok=True)
        self._path, self._note, self._key = features_path(directory, process), _note_path(directory, process), key
        self.written = self._read_note()
        """Bytes that an earlier start wrote."""
        if not self.written:
            self._path.unlink(missing_ok=True)  # frees its space on the disk

    def _read_note(self) -> int:
        try:
            note = json.loads(read_regular_file(self._note, _MAX_NOTE_BYTES))
            usable, written = note['made_for'] == self._key, int(note['bytes'])
            if not usable or not written:
                return 0
            # Early versions noted no checksum.
            size, checksum = compute_checksum(self._path, num_bytes=written)
            if size == written and note.get('checksum', checksum) == checksum:
                return written
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            if not self._note.exists():  # as after a kill before the first one was written
                return 0
        logging.warning('the features in %s are damaged: they are computed again', self._path)
        return 0

    @contextlib.contextmanager
    def writing(self, start: int) -> Iterator[None]:
        """Opens the file for `append`, after cutting it at byte `start`: a killed process may have left more."""
        with self._error_message():
            self._file = self._path.open('ab')
        with self._file:
            with self._error_message():
                self._file.truncate(start)
                self._file.seek(start)
                self._checksum = int(compute_checksum(self._path, num_bytes=start)[1], 16)
            if start < self.written:  # the note must not promise more, if this process is killed
                self.sync()
            yield

    def append(self, records: bytes) -> None:
        """Writes records at the end."""
        with self._error_message():
            self._file.write(records)
            self._checksum = zlib.crc32(records, self._checksum)

    def sync(self) -> None:
        """Brings all records to the disk, then notes them as written."""
        with self._error_message():
            self._file.flush()
            os.fsync(self._file.fileno())
            note = {'made_for': self._key, 'bytes': self._file.tell(), 'checksum': f'{self._checksum:08x}'}
            write_atomically(self._note, json.dumps(note))

    @contextlib.contextmanager
    def _error_message(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f'cannot write {self._path} ({error.strerror}): make room, or lower cache') from error
