"""`index.npz` of a stage: features of the training images and of their parts, to find those that look alike.

The file is an uncompressed `.npz` archive, so that its rows are read from the disk where they are needed. Features are
float16: an image with four parts of 1,280 channels takes 13 KB, and 34 KB with covariances.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import os
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import jax
import numpy as np

from ssanet_jax.distributed import processes
from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.archives import open_zip
from ssanet_jax.filesystem.atomic_files import atomic_writer
from ssanet_jax.filesystem.regular_files import check_regular_file
from ssanet_jax.runs.files import DAMAGED_ARRAYS, DamagedFile

INDEX_FILE = 'index.npz'
_MAX_NAMES = 1 << 30  # bytes of the names of all files
_LOCAL_HEADER = 30  # bytes of a zip entry's header without its name and its extra field


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureIndex:
    """The features of n training images.

    Attributes:
      rows: structured `[n]`, see `row_type`; on the disk until it is read.
      files: the n image files, relative to the folder of the data set.
      stage: the stage whose network computed the features.
      network: identifies that network, see `network_digest`.
    """

    rows: np.ndarray
    files: Sequence[str]
    stage: str
    network: str

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """int32 `[n]`."""
        return np.array(self.rows['label'])

    @property
    def num_parts(self) -> int:
        """K."""
        return self.rows.dtype['parts'].shape[0]


def row_type(channels: int, num_parts: int, part_channels: int) -> np.dtype:
    """The fields of an image in the index, for `channels` = C, `num_parts` = K and `part_channels` = D."""
    fields: list[Any] = [
        ('image', '<f2', (channels,)),  # the feature vector of the whole image
        ('parts', '<f2', (num_parts, part_channels)),  # that of each part
        ('boxes', '<f4', (num_parts, 4)),  # (y0, x0, y1, x1) of each part, as shares of the image's height and width
        ('present', '?', (num_parts,)),  # whether the part is to be seen
        ('label', '<i4'),
        ('position', '<i4'),  # of the image in the training set
    ]
    return np.dtype(fields)


def network_digest(params: Any, stats: Any) -> str:
    """Identifies the weights and BatchNorm statistics of a network (`models.ssanet.split_model`)."""
    digest = hashlib.blake2b(digest_size=16)
    for leaf in jax.tree.leaves((params, stats)):
        digest.update(np.ascontiguousarray(leaf).view(np.uint8).data)
    return digest.hexdigest()


class IndexWriter:
    """Writes rows as they come; made by `write_index`."""

    def __init__(self, spool: BinaryIO):
        self._spool = spool
        self.dtype: np.dtype | None = None
        self.files: list[bytes] = []

    def add(self, rows: np.ndarray, files: Sequence[str]) -> None:
        """Appends images.

        Args:
          rows: structured `[b]`, of the same `row_type` in each call.
          files: their b files.
        """
        self.dtype = rows.dtype
        self._spool.write(rows.tobytes())
        self.files += [os.fsencode(file) for file in files]


@contextlib.contextmanager
def write_index(path: Path, stage: str, network: str) -> Iterator[IndexWriter]:
    """Writes an index, which appears at the end of the context; after an exception an earlier file is unchanged.

    Only one process may do this. Memory holds the names of the files and what `IndexWriter.add` is given.

    Args:
      path: the file. Its folder is created if it does not exist.
      stage: the stage whose network computes the features.
      network: from `network_digest`.

    Raises:
      UserError: the file cannot be written, or no image was added.
    """
    spool = path.with_name(f'{path.name}.rows.partial')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with spool.open('w+b') as rows:
            writer = IndexWriter(rows)
            yield writer
            if writer.dtype is None:
                raise UserError(f'no training image can be read: {path} is not written')
            rows.seek(0)
            with atomic_writer(path) as file, zipfile.ZipFile(file, 'w') as archive:
                ends = np.cumsum([len(name) for name in writer.files], dtype=np.int64)
                names = np.frombuffer(b''.join(writer.files), np.uint8)
                facts = {'stage': np.array(stage), 'network': np.array(network), 'names': names, 'name_ends': ends}
                for name, array in facts.items():
                    with archive.open(f'{name}.npy', 'w') as entry:
                        np.lib.format.write_array(entry, array, allow_pickle=False)
                with archive.open('rows.npy', 'w', force_zip64=True) as entry:
                    descr = np.lib.format.dtype_to_descr(writer.dtype)
                    header = {'descr': descr, 'fortran_order': False, 'shape': (len(writer.files),)}
                    np.lib.format.write_array_header_1_0(entry, header)
                    shutil.copyfileobj(rows, entry, 1 << 20)
    except OSError as error:
        raise UserError(
            f'cannot write {path} ({error.strerror}): make room, or allow writing to this folder'
        ) from error
    finally:
        spool.unlink(missing_ok=True)


def write_index_once(path: Path, stage: str, network: str, rows: Iterator[tuple[np.ndarray, Sequence[str]]]) -> None:
    """`write_index` for a training: call it in all processes; the primary one writes.

    Args:
      path, stage, network: as for `write_index`.
      rows: what to add; only the primary process iterates it.

    Raises:
      UserError: the file cannot be written.
    """
    if processes.is_primary_process():
        with write_index(path, stage, network) as writer:
            for batch, files in rows:
                writer.add(batch, files)
    processes.barrier(f'written {path}')


def read_index(path: Path, cure: str) -> FeatureIndex | None:
    """Reads an index. Its checksums are compared; the features stay on the disk. Reading runs no code from the file.

    Args:
      path: the file.
      cure: what to do about a damaged file, for the message.

    Returns:
      The index, or None if the file does not exist.

    Raises:
      DamagedFile: the file is damaged.
      UserError: the file cannot be read.
    """
    try:
        check_regular_file(path)
        with path.open('rb') as file:
            return _parse(path, file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error.strerror}): {cure}') from error
    except DAMAGED_ARRAYS as error:
        raise DamagedFile(f'{path} is damaged, it holds no index of features', cure) from error


def _parse(path: Path, file: BinaryIO) -> FeatureIndex:
    with open_zip(file) as archive:
        if damaged := archive.testzip():
            raise ValueError(f'{damaged} differs from its checksum')
        stage, network, names, ends = (
            _small_array(archive, name) for name in ('stage', 'network', 'names', 'name_ends')
        )
        rows = _rows_on_disk(path, file, archive)
    if stage.dtype.kind != 'U' or network.dtype.kind != 'U' or stage.shape or network.shape:
        raise ValueError('no name of a stage or a network')
    if ends.dtype != np.int64 or ends.shape != rows.shape or names.dtype != np.uint8 or names.ndim != 1:
        raise ValueError('other names than rows')
    starts = np.concatenate([[0], ends[:-1]])
    if not len(ends) or ends[-1] != len(names) or (starts > ends).any() or starts.min() < 0:
        raise ValueError('no images, or names that overlap')
    text = names.tobytes()
    files = tuple(os.fsdecode(text[start:end]) for start, end in zip(starts.tolist(), ends.tolist()))
    return FeatureIndex(rows, files, str(stage), str(network))


def _small_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    entry = archive.getinfo(f'{name}.npy')
    if entry.file_size > _MAX_NAMES:
        raise ValueError(f'an array of {entry.file_size} bytes')
    return np.load(io.BytesIO(archive.read(entry)), allow_pickle=False)


def _rows_on_disk(path: Path, file: BinaryIO, archive: zipfile.ZipFile) -> np.ndarray:
    """Maps the rows, which are not compressed, into memory."""
    entry = archive.getinfo('rows.npy')
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError('compressed rows')
    file.seek(entry.header_offset)
    header = file.read(_LOCAL_HEADER)
    name_length, extra_length = int.from_bytes(header[26:28], 'little'), int.from_bytes(header[28:30], 'little')
    start = entry.header_offset + _LOCAL_HEADER + name_length + extra_length
    file.seek(start)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError('rows of another version')
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    fields = cast(Any, dtype.fields) or {}
    sizes = [fields[name][0].shape for name in ('image', 'parts')]
    if len(shape) != 1 or dtype != row_type(*sizes[0], *sizes[1]):
        raise ValueError('other rows than those of images')
    if file.tell() - start + shape[0] * dtype.itemsize != entry.file_size:
        raise ValueError('rows of another size')
    return np.memmap(path, dtype, 'r', file.tell(), shape)
