"""The JSON files of a work directory: atomic writes, and reads that report damaged files."""

import io
import json
import logging
import lzma
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import numpy as np

from ssanet_jax.distributed import processes
from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.archives import load_arrays
from ssanet_jax.filesystem.atomic_files import set_aside, write_atomically
from ssanet_jax.filesystem.paths import check_folder
from ssanet_jax.filesystem.regular_files import read_regular_file
from ssanet_jax.runs.aliases import upgrade_config
from ssanet_jax.runs.config_fields import find_damage
from ssanet_jax.runs.json_checksums import ChecksumError, add_checksum, remove_checksum

CONFIG_FILE = 'config.json'
CONFIG_BACKUP = 'config_backup.json'
RESULTS_FILE = 'results.json'
TRAIN_AGAIN = 'restore it from a copy, or rename it and run the training command again'
_MAX_JSON = 8 << 20  # bytes
# What NumPy and zipfile raise for files that are not archives of arrays, or damaged ones.
DAMAGED_ARRAYS = (ValueError, TypeError, KeyError, EOFError, MemoryError, NotImplementedError, RuntimeError)
DAMAGED_ARRAYS += (SyntaxError, OverflowError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)

Parsed = TypeVar('Parsed')

_MAX_DEPTH = 20  # of nested values


class DamagedFile(UserError):
    """The content of a file is damaged.

    Args:
      problem: names the file and what is wrong with it.
      cure: what to do about it.
    """

    def __init__(self, problem: str, cure: str):
        super().__init__(f'{problem}: {cure}')
        self.problem = problem


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file atomically; an object gets a checksum.

    Call it in all processes: the primary one writes, and the others wait until the file is there.

    Args:
      path: the file. Its folder is created if it does not exist.
      content: a tree that JSON can represent.

    Raises:
      UserError: the file cannot be written. An existing file is then unchanged.
    """
    content = add_checksum(content) if isinstance(content, dict) else content
    _write_in_primary_process(path, lambda: json.dumps(content, indent=2) + '\n')


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a compressed `.npz` file atomically, for `np.load`.

    Call it in all processes: the primary one writes, and the others wait until the file is there.

    Args:
      path: the file. Its folder is created if it does not exist.
      arrays: the arrays by name.

    Raises:
      UserError: the file cannot be written. An existing file is then unchanged.
    """

    def encode() -> bytes:
        buffer = io.BytesIO()
        named: dict[str, Any] = dict(arrays)
        np.savez_compressed(buffer, **named)
        return buffer.getvalue()

    _write_in_primary_process(path, encode)


def read_arrays(
    path: Path, parse: Callable[[dict[str, np.ndarray]], Parsed], kind: str, cure: str, max_bytes: int
) -> Parsed | None:
    """Reads what `write_arrays` wrote. Whatever the file holds, reading it runs no code from it.

    Args:
      path: the file.
      parse: converts the arrays; raises ValueError, TypeError or KeyError if they do not fit together.
      kind: what the file holds, for the error message.
      cure: what to do about a damaged file, for the error message.
      max_bytes: the largest size of the file, and of its arrays.

    Returns:
      The result of `parse`, or None if the file does not exist.

    Raises:
      DamagedFile: the file is damaged.
      UserError: the file cannot be read.
    """
    try:
        content = read_regular_file(path, max_bytes)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error.strerror}): {cure}') from error
    try:
        return parse(load_arrays(content, max_bytes))
    except DAMAGED_ARRAYS as error:
        raise DamagedFile(f'{path} is damaged, it holds no {kind}', cure) from error


def _write_in_primary_process(path: Path, encode: Callable[[], str | bytes]) -> None:
    if processes.is_primary_process():
        try:
            write_atomically(path, encode())
        except OSError as error:
            raise UserError(
                f'cannot write {path} ({error.strerror}): make room, or allow writing to this folder'
            ) from error
    processes.barrier(f'written {path}')


def read_json(path: Path, cure: str) -> dict[str, Any] | None:
    """Reads a JSON object from a file.

    Args:
      path: the file.
      cure: what to do about a damaged file, for the error message.

    Returns:
      The object, or None if the file does not exist.

    Raises:
      DamagedFile: the file holds something else, or its content differs from its checksum.
      UserError: the file cannot be read.
    """
    try:
        content = json.loads(read_regular_file(path, _MAX_JSON))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error.strerror}): {cure}') from error
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f'{path} is damaged, it is not JSON', cure) from error
    if not isinstance(content, dict):
        raise DamagedFile(f'{path} is damaged, it is not a JSON object', cure)
    if _is_deep(content):
        raise DamagedFile(f'{path} is damaged, its values are nested more than {_MAX_DEPTH} times', cure)
    try:
        return remove_checksum(content)
    except ChecksumError as error:
        raise DamagedFile(f'{path} is damaged, {error}', cure) from error


def _is_deep(content: Any) -> bool:
    """Whether a JSON tree has more levels than recursive functions should have to deal with."""
    level: list[Any] = [content]
    for _ in range(_MAX_DEPTH):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list) and child
        ]
    return bool(level)


def _is_config(tree: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a JSON tree has the structure of a configuration, as far as readers of old and new runs rely on it."""
    if not isinstance(tree, dict) or not {'data', 'model', 'stages'} <= tree.keys():
        return False
    stages = tree['stages']
    sections = [tree[name] for name in ('data', 'model', 'mesh', 'loss', 'optimizer') if name in tree]
    return isinstance(stages, list) and all(isinstance(part, dict) for part in [*sections, *stages])


def read_run(workdir: Path) -> dict[str, Any]:
    """Reads what a work directory was claimed with.

    Args:
      workdir: the run's work directory.

    Returns:
      `{'config': the configuration as a JSON tree, 'class_names': list, 'images': digest of the data set}`.

    Raises:
      UserError: the directory holds no run, or a damaged one.
    """
    check_folder(workdir, '--workdir')
    path, backup = workdir / CONFIG_FILE, workdir / CONFIG_BACKUP
    try:
        content, problem = _read_run(path), f'{path} is missing'
    except DamagedFile as error:
        if not backup.exists():
            raise
        content, problem = None, error.problem
    if content is None and (content := _read_run(backup)):
        logging.warning('%s: its copy %s is used', problem, backup.name)
    if content is None:
        raise UserError(f'{workdir} holds no run ({path.name} is missing): check --workdir')
    return content


def write_run(workdir: Path, content: dict[str, Any]) -> None:
    """Writes what a work directory is claimed with, and a copy of it. Call it in all processes."""
    write_json(workdir / CONFIG_BACKUP, content)  # first: a killed process must not leave an older copy beside it
    write_json(workdir / CONFIG_FILE, content)


def restore_run(workdir: Path) -> None:
    """Replaces a damaged or lost `config.json` by its copy, if there is one. Call it in all processes."""
    path, backup = workdir / CONFIG_FILE, workdir / CONFIG_BACKUP
    try:
        whole = _read_run(path) is not None or not backup.exists()
    except DamagedFile:
        whole = not backup.exists()
    processes.barrier(f'read {path}')
    if whole:
        return
    if processes.is_primary_process():
        if path.exists():
            set_aside(path)
        write_atomically(path, read_regular_file(backup, _MAX_JSON))
    processes.barrier(f'restored {path}')


def _read_run(path: Path) -> dict[str, Any] | None:
    cure = 'restore it from a copy, or train in another --workdir'
    content = read_json(path, cure)
    if content is None:
        return None
    config, names = content.get('config'), content.get('class_names')
    if not _is_config(config) or len(content) < 3:
        raise DamagedFile(f'{path} is damaged, it holds no configuration', cure)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DamagedFile(f'{path} is damaged, it holds no class names', cure)
    try:
        content['config'] = upgrade_config(config)
    except (KeyError, TypeError) as error:  # an old field that cannot be converted
        raise DamagedFile(f'{path} is damaged, it holds no configuration', cure) from error
    if damage := find_damage(content['config']):
        raise DamagedFile(f'{path} is damaged ({damage})', cure)
    return {name: content.get(name) for name in ('config', 'class_names', 'images')}
