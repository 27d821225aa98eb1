"""Differences between two runs of one configuration, bit for bit."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ssanet_jax.runs.checkpoints import KEEP, Checkpoints
from ssanet_jax.runs.history import EVALUATION, HISTORY_FILE, read_history
from ssanet_jax.runs.image_predictions import PREDICTIONS_FILE

# In paths of unfinished files.
_REMAINS = ('.partial', '.deleted', 'tmp', 'incomplete.', '__lock', '/features/', '/downloads/')
_ITEMS = ('params', 'stats', 'opt')


def differences(expected: Path, found: Path) -> Iterator[str]:
    """Compares two work directories: one line for each difference, none if the runs are the same.

    Times are not compared, nor what TensorBoard has, nor the means of an epoch within which a run was resumed.
    """
    for path in sorted(expected.rglob('*.json')):
        name = path.relative_to(expected)
        if (
            not _is_in_checkpoint(name)
            and name.name not in ('config.json', 'config_backup.json')
            and _timeless(path) != _timeless(found / name)
        ):
            yield f'{name} differs'
    for path in sorted(expected.rglob(PREDICTIONS_FILE)):
        name = path.relative_to(expected)
        if not _equal_arrays(_read_arrays(path), _read_arrays(found / name)):
            yield f'{name} differs'
    for path in sorted(expected.rglob(HISTORY_FILE)):
        name = path.relative_to(expected)
        if _events(path) != _events(found / name):
            yield f'{name} differs'
    if _bytes(expected / 'parts.png') != _bytes(found / 'parts.png'):
        yield 'parts.png differs'
    for kind in ('checkpoints', 'best'):
        for folder in sorted(expected.glob(f'*/{kind}')):
            yield from _checkpoint_differences(folder, found / folder.relative_to(expected))
    yield from remains(found)


def copy_differences(expected: Path, found: Path) -> Iterator[str]:
    """Compares two prepared copies of the same images."""
    for path in sorted(expected.rglob('*')):
        name = path.relative_to(expected)
        if (
            path.is_file()
            and path.suffix != '.npz'
            and path.name != 'checksums.json'
            and path.read_bytes() != _bytes(found / name)
        ):
            yield f'prepared {name} differs'
    yield from remains(found)
    extra = {path.relative_to(found) for path in found.rglob('*')} - {
        path.relative_to(expected) for path in expected.rglob('*')
    }
    yield from (f'prepared {name} is left over' for name in sorted(extra))


def remains(folder: Path) -> Iterator[str]:
    """Names the files that an unfinished write has left, and folders with more checkpoints than are kept."""
    for path in sorted(folder.rglob('*')):
        if any(word in f'/{path.relative_to(folder)}/' for word in _REMAINS):
            yield f'{path.relative_to(folder)} is left over'
    yield from surplus_checkpoints(folder, KEEP)


def surplus_checkpoints(folder: Path, most: int) -> Iterator[str]:
    """Names the folders below `folder` that hold more than `most` checkpoints."""
    for checkpoints in sorted([*folder.glob('*/checkpoints'), *folder.glob('*/best')]):
        count = sum(path.is_dir() for path in checkpoints.iterdir())
        if count > most:
            yield f'{checkpoints.relative_to(folder)} holds {count} checkpoints'


def _is_in_checkpoint(name: Path) -> bool:
    return bool({'checkpoints', 'best'} & set(name.parts[:-1]))


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b''


def _timeless(path: Path) -> Any:
    def strip(tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        return {name: strip(value) for name, value in tree.items() if name not in ('wall_seconds', 'checksum')}

    return strip(json.loads(path.read_text())) if path.exists() else None


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def _events(path: Path) -> list[Any]:
    """The evaluations with their values, and the epochs without: images per second are those of the machine."""
    return [
        (line['kind'], line['step'], line['values'] if line['kind'] == EVALUATION else None)
        for line in read_history(path)
    ]


def _checkpoint_differences(expected: Path, found: Path) -> Iterator[str]:
    name = '/'.join(expected.parts[-2:])
    (one, wanted), (other, items) = (_newest(folder) for folder in (expected, found))
    if one != other:
        yield f'{name} ends at step {other} instead of {one}'
    elif not _equal_arrays(wanted, items):
        yield f'{name}/{one} differs'


def _newest(folder: Path) -> tuple[int, dict[str, np.ndarray]]:
    """The step and the arrays, by name, of the newest checkpoint."""
    steps = [int(path.name) for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []
    if not steps:
        return -1, {}
    newest = folder / str(max(steps))
    checkpoints = Checkpoints(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', UserWarning)  # Orbax, about devices that are not named
            step, items = checkpoints.restore({name: None for name in _ITEMS if (newest / name).is_dir()})
    finally:
        checkpoints.close()
    leaves = jax.tree_util.tree_leaves_with_path(items)
    return step, {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def _equal_arrays(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    def same(a: np.ndarray, b: np.ndarray) -> bool:
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()

    return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
