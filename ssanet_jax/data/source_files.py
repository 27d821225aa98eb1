"""The state of the image files that a copy was made of, so that changed files are noticed.

The state of a file is its size, its times and its inode. Where they differ from those of the copy, the contents are
compared, since times and inodes also change when a folder is moved, restored or mounted elsewhere.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssanet_jax.data.image_files import read_file
from ssanet_jax.filesystem.archives import load_arrays
from ssanet_jax.filesystem.regular_files import read_regular_file

_NUM_THREADS = 16  # for network file systems, where each call waits
# A file that is changed again within this time may keep its times, since they have a limited resolution.
_UNSETTLED_NS = 2_000_000_000
_MAX_STATE = 150 << 20  # bytes; three million images need as many
_MAX_INT64 = 2**63 - 1

FileStatus = tuple[int, int, int, int]
"""Size, modification time, change time and inode, as in `SourceFiles.status`."""


@dataclasses.dataclass
class SourceFiles:
    """The state and the contents of files."""

    status: np.ndarray
    """int64 [n, 4]: size in bytes, modification and change time in ns, inode. Zeros for a file that is missing,
    and -1 as the size of one that is so new that a change may not show."""
    digests: np.ndarray
    """uint8 [n, 16], a hash of the contents."""
    bit_depths: np.ndarray
    """uint8 [n]: the bits that the values of an image of 16 bits per channel use; 0 for other images."""

    def write(self, path: Path) -> None:
        """Writes the state to a file, atomically."""
        partial = path.with_name(f'{path.name}.{os.getpid()}')
        try:
            with open(partial, 'wb') as file:
                np.savez(file, status=self.status, digests=self.digests, bit_depths=self.bit_depths)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def read(cls, path: Path, count: int) -> SourceFiles | None:
        """Reads the state of `count` files; None if it is missing or damaged."""
        try:
            arrays = load_arrays(read_regular_file(path, _MAX_STATE), _MAX_STATE)
            state = cls(arrays['status'], arrays['digests'], arrays['bit_depths'])
        except Exception:  # NumPy raises almost anything for a damaged file
            return None
        shapes = state.status.shape, state.digests.shape, state.bit_depths.shape
        return state if shapes == ((count, 4), (count, 16), (count,)) else None


def file_status(path: Path) -> FileStatus:
    """The size, modification time, change time and inode of a file; zeros if it is missing."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return 0, 0, 0, 0
    inode = status.st_ino & _MAX_INT64 or 1
    if abs(time.time_ns() - status.st_ctime_ns) < _UNSETTLED_NS:
        return -1, 0, 0, inode
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, inode


def digest(data: bytes) -> np.ndarray:
    """uint8 [16], a hash of a file's contents."""
    return np.frombuffer(hashlib.blake2b(data, digest_size=16).digest(), np.uint8)


NO_DATA = digest(b'')


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How files differ from those that a copy was made of."""

    changed: list[int]
    """Positions of the files with other contents."""
    missing: list[int]
    """Positions of the files that are gone."""
    current: SourceFiles
    """The state to keep, if nothing has changed."""


def compare(before: SourceFiles, paths: Sequence[Path]) -> Comparison:
    """Compares files with those that a copy was made of.

    Args:
      before: their state then.
      paths: the files.
    """
    with concurrent.futures.ThreadPoolExecutor(_NUM_THREADS) as pool:
        status = np.array(list(pool.map(file_status, paths)), np.int64).reshape(-1, 4)
        unsure = np.flatnonzero((status != before.status).any(1) | (status[:, 0] < 0))
        missing = np.flatnonzero(~status.any(1)).tolist()
        present = [int(i) for i in unsure if status[i].any()]
        same = pool.map(lambda i: _same_contents(paths[i], before.digests[i]), present)
        changed = [i for i, equal in zip(present, same) if not equal]
    return Comparison(changed, missing, SourceFiles(status, before.digests, before.bit_depths))


def _same_contents(path: Path, expected: np.ndarray) -> bool:
    try:
        return bool((digest(read_file(path)) == expected).all())
    except OSError:
        return False
