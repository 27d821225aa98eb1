"""Checksums of the files in a folder: CRC-32, which is faster than any disk."""

import concurrent.futures
import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ssanet_jax.filesystem.atomic_files import sync_descriptor
from ssanet_jax.filesystem.regular_files import check_regular_file

_CHUNK_BYTES = 2**20
_NUM_THREADS = 8
_IGNORED = ('Thumbs.db', 'desktop.ini')  # beside hidden files: what file managers leave everywhere


def find_files(folder: Path) -> list[str]:
    """The files below a folder, relative to it; without those that file managers leave everywhere."""

    def walk() -> Iterator[str]:
        for root, _, names in os.walk(folder):
            for name in names:
                if not name.startswith('.') and name not in _IGNORED:
                    yield os.path.relpath(os.path.join(root, name), folder)

    return sorted(walk())


def compute_checksums(folder: Path, *, sync: bool = False) -> dict[str, list[Any]]:
    """Computes `{file: [size in bytes, checksum]}` of all files below a folder.

    Args:
      folder: the folder.
      sync: also bring the files to the disk.

    Raises:
      OSError: a file cannot be read, or not be written to the disk.
    """
    names = find_files(folder)
    with concurrent.futures.ThreadPoolExecutor(_NUM_THREADS) as pool:
        found = pool.map(lambda name: compute_checksum(folder / name, sync=sync), names)
        return {name: list(each) for name, each in zip(names, found)}


def compute_checksum(path: Path, *, num_bytes: int | None = None, sync: bool = False) -> tuple[int, str]:
    """The size in bytes of a file, and its checksum.

    Args:
      path: the file.
      num_bytes: read only the first bytes.
      sync: also bring the file to the disk.

    Raises:
      OSError: the file cannot be read, or not be written to the disk, or is a pipe or a device.
    """
    size, checksum = 0, 0
    check_regular_file(path)
    with path.open('rb') as file:
        while chunk := file.read(_CHUNK_BYTES if num_bytes is None else min(_CHUNK_BYTES, num_bytes - size)):
            size += len(chunk)
            checksum = zlib.crc32(chunk, checksum)
        if sync:
            sync_descriptor(file.fileno())
    return size, f'{checksum:08x}'


def find_difference(
    folder: Path,
    files: dict[str, Any],
    *,
    unchecked: frozenset[str] = frozenset(),
    sizes_only: frozenset[str] = frozenset(),
) -> str:
    """Compares the files below a folder with their checksums.

    Args:
      folder: the folder.
      files: the result of `compute_checksums`.
      unchecked: files that are not compared.
      sizes_only: files of which only the size is compared.

    Returns:
      The first difference; '' if there is none.

    Raises:
      PermissionError: a file may not be read.
    """

    def compare(name: str) -> str:
        try:
            if name in sizes_only:
                size, checksum = (folder / name).stat().st_size, files[name][1]
            else:
                size, checksum = compute_checksum(folder / name)
            if size != files[name][0]:
                return f'{name} has {size} bytes instead of {files[name][0]}'
            return '' if checksum == files[name][1] else f'{name} differs from its checksum'
        except PermissionError:
            raise
        except OSError as error:
            return f'{name} cannot be read ({error.strerror})'
        except (TypeError, IndexError, KeyError):
            return f'the checksum of {name} is not valid'

    names = set(find_files(folder)) - unchecked
    files = {name: recorded for name, recorded in files.items() if name not in unchecked}
    if missing := sorted(files.keys() - names):
        return f'{missing[0]} is missing'
    if extra := sorted(names - files.keys()):
        return f'{extra[0]} does not belong to it'
    with concurrent.futures.ThreadPoolExecutor(_NUM_THREADS) as pool:
        return next(filter(None, pool.map(compare, sorted(files))), '')


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, which may come from strangers, as 64 hexadecimal digits.

    Raises:
      OSError: the file cannot be read, or is a pipe or a device.
    """
    check_regular_file(path)
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
