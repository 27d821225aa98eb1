"""Zip archives that may come from strangers: a few bytes can declare any number of entries, of any size."""

import io
import zipfile
from typing import Any, BinaryIO, cast

import numpy as np

_MAX_DIRECTORY = 1 << 21  # bytes of the list of entries; an archive of weights has a tenth


def open_zip(file: BinaryIO) -> zipfile.ZipFile:
    """Opens a zip archive for reading.

    Raises:
      ValueError: its list of entries is enormous.
      Exception: the file is damaged or not a zip archive.
    """
    limited = _LimitedReads(file)
    archive = zipfile.ZipFile(cast(Any, limited))
    limited.limit = None
    return archive


def load_arrays(data: bytes, max_bytes: int) -> dict[str, np.ndarray]:
    """Reads the arrays of an `.npz` file, without running code from it.

    Args:
      data: the contents of the file.
      max_bytes: the largest size of all arrays together.

    Raises:
      ValueError: the arrays are larger, or hold Python objects.
      Exception: the file is damaged; NumPy and zipfile raise a different error for each kind of damage.
    """
    with open_zip(io.BytesIO(data)) as archive:
        declared = sum(entry.file_size for entry in archive.infolist())
    if declared > max_bytes:
        raise ValueError(f'arrays of {declared} bytes')
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)


class _LimitedReads:
    """A file from which `zipfile` cannot read a list of very many entries."""

    def __init__(self, file: BinaryIO):
        self.limit: int | None = _MAX_DIRECTORY
        self._file = file
        self._size = file.seek(0, io.SEEK_END)
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, count: int = -1) -> bytes:
        if self.limit is None:
            return self._file.read(count)
        # No more than there is left: a file allocates what it is asked for before it reads.
        left = max(self._size - self._file.tell(), 0)
        data = self._file.read(min(left if count < 0 else count, left, self.limit + 1))
        if len(data) > self.limit:
            raise ValueError(f'a list of entries of more than {self.limit} bytes')
        return data
