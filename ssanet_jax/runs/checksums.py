"""Checksums of all files of a checkpoint, in its `checksums.json`.

Orbax and TensorStore check their indices only: a flipped bit in the bulk of an array, or an item taken from another
checkpoint, loads without an error. CRC-32 of 92 MB takes 0.03 s; with the sync of all files, about a tenth of a save.
"""

import json
from pathlib import Path
from typing import Any

from ssanet_jax.filesystem.atomic_files import sync_folder, write_atomically
from ssanet_jax.filesystem.checksums import compute_checksums, find_difference
from ssanet_jax.filesystem.regular_files import read_regular_file

CHECKSUMS_FILE = 'checksums.json'
METADATA_FILE = '_CHECKPOINT_METADATA'  # Orbax's
# Orbax records this in the checkpoint, so that a lost file of checksums is not taken for a checkpoint without any, as
# version 0.1.0 wrote them.
CUSTOM_METADATA = {'checksums': CHECKSUMS_FILE}
_MAX_BYTES = 64 << 20  # of a file of checksums: a million files need as many
OF_ANOTHER_STEP = 'it belongs to step'  # begins the description of a renamed checkpoint


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder looks like a checkpoint, whole or damaged."""
    return (folder / METADATA_FILE).is_file() or (folder / CHECKSUMS_FILE).is_file()


def write_checksums(folder: Path, step: int) -> None:
    """Writes the checksums of a checkpoint that is complete, and brings all its files to the disk.

    Args:
      folder: the checkpoint.
      step: its step, which the name of the folder may not show yet.

    Raises:
      OSError: a file cannot be read or written.
    """
    files = compute_checksums(folder, sync=True)
    write_atomically(folder / CHECKSUMS_FILE, json.dumps({'step': step, 'files': files}, indent=1) + '\n')
    for parent in sorted({(folder / name).parent for name in files}):
        sync_folder(parent)


def find_damage(folder: Path) -> str:
    """Compares all files of a checkpoint with its checksums.

    Args:
      folder: the checkpoint, whose name is its step.

    Returns:
      What is wrong with it; '' if it is whole, or an early version wrote it without checksums.

    Raises:
      PermissionError: a file may not be read.
    """
    if not is_checkpoint(folder):
        return f'it has neither {METADATA_FILE} nor {CHECKSUMS_FILE}'
    try:
        text = read_regular_file(folder / CHECKSUMS_FILE, _MAX_BYTES)
    except FileNotFoundError:
        return _find_damage_without_checksums(folder)
    except PermissionError:
        raise
    except OSError as error:
        return f'{CHECKSUMS_FILE} cannot be read ({error.strerror})'
    recorded = _parse(text)
    if recorded is None:
        return f'{CHECKSUMS_FILE} is not valid'
    step, files = recorded
    if str(step) != folder.name:
        return f'{OF_ANOTHER_STEP} {step}'
    return find_difference(folder, files, unchecked=frozenset([CHECKSUMS_FILE]))


def has_checksums(folder: Path) -> bool:
    """Whether the checkpoint has checksums, so that `find_damage` is certain."""
    return (folder / CHECKSUMS_FILE).exists()


def _find_damage_without_checksums(folder: Path) -> str:
    try:
        metadata = json.loads(read_regular_file(folder / METADATA_FILE, _MAX_BYTES))
        expected = metadata['custom_metadata'] == CUSTOM_METADATA
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        return f'{METADATA_FILE} is not valid'
    return f'{CHECKSUMS_FILE} is missing' if expected else ''


def _parse(text: bytes) -> tuple[Any, dict[str, Any]] | None:
    try:
        content = json.loads(text)
        step, files = content['step'], content['files']
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return (step, files) if isinstance(files, dict) else None
