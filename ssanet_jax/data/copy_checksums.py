"""Checksums of the copy of a data set, so that a damaged one is written again from the images."""

import json
import os
from pathlib import Path

from ssanet_jax.filesystem.atomic_files import write_atomically
from ssanet_jax.filesystem.checksums import compute_checksums, find_difference
from ssanet_jax.filesystem.regular_files import read_regular_file

FILE = 'checksums.json'
_MAX_BYTES = 64 << 20


def write_checksums(folder: Path, records: str) -> None:
    """Writes the checksums of a copy that is complete.

    Args:
      folder: the folder of the copy.
      records: name of the folder in it that holds the records.

    Raises:
      OSError: a file cannot be read or written.
    """
    files = compute_checksums(folder / records, sync=True)
    content = {'files': files, 'times': _times(folder / records, list(files))}
    write_atomically(folder / FILE, json.dumps(content, indent=1) + '\n')


def find_damage(folder: Path, records: str) -> str:
    """Compares a copy with its checksums.

    Files with the time of the copy are compared by their size, since reading all of a large copy takes long: whoever
    reads its records checks them. Other files are read.

    Args:
      folder: the folder of the copy.
      records: name of the folder in it that holds the records.

    Returns:
      What is wrong with it; '' if it is whole, or an early version wrote it without checksums.

    Raises:
      PermissionError: a file may not be read.
    """
    try:
        content = json.loads(read_regular_file(folder / FILE, _MAX_BYTES))
        files, times = dict(content['files']), dict(content['times'])
    except FileNotFoundError:
        return ''
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return f'{FILE} is not valid'
    now = _times(folder / records, list(files))
    unchanged = frozenset(name for name in files if name in times and now.get(name) == times[name])
    large = frozenset(name for name in unchanged if '.array_record' in name)
    return find_difference(folder / records, files, sizes_only=large)


def _times(folder: Path, names: list[str]) -> dict[str, int]:
    """Modification times in ns."""
    return {name: os.stat(folder / name).st_mtime_ns for name in names if (folder / name).exists()}
