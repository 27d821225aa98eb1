"""A work directory: its lock, and the settings and data that it was claimed with."""

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from ssanet_jax.distributed import processes
from ssanet_jax.errors import UserError
from ssanet_jax.runs.checkpoints import stage_steps
from ssanet_jax.runs.compatibility import changed_settings
from ssanet_jax.runs.files import CONFIG_FILE, read_run, write_json


class Locked(UserError):
    """Another process works in the directory."""


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Keeps a second run out of a work directory; the system opens the lock when the process ends.

    Raises:
      Locked: another process trains there.
      UserError: it cannot be written.
    """
    if not processes.is_primary_process():
        yield
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        directory = os.open(workdir, os.O_RDONLY)
    except OSError as error:
        raise UserError(f'cannot write in {workdir} ({error.strerror}): give another --workdir') from error
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(directory)
        raise Locked(f'another process trains in {workdir}: wait for it, or give another --workdir') from None
    except OSError as error:  # some network file systems have no locks
        logging.warning('%s cannot be locked (%s): see to it that one run alone trains there', workdir, error.strerror)
    try:
        yield
    finally:
        os.close(directory)


def is_claimed(workdir: Path) -> bool:
    """Whether the directory holds a run with a checkpoint, which a new start continues."""
    return (workdir / CONFIG_FILE).exists() and any(workdir.glob('*/checkpoints/[0-9]*'))


def claim_workdir(workdir: Path, config: ConfigDict, class_names: Sequence[str], images: str = '') -> None:
    """Claims a work directory for a configuration, or finds it claimed by the same one.

    One that holds no checkpoint yet may be claimed anew. Every process compares its own settings and
    images with what the directory holds then.

    Args:
      workdir, config: of the run.
      class_names: of the data set.
      images: digest of its images, labels and splits.

    Raises:
      UserError: if it belongs to a run with other settings, classes or images.
    """
    content = {
        'config': json.loads(config.to_json_best_effort()),
        'class_names': list(class_names),
        'images': images,
    }
    path = workdir / CONFIG_FILE
    claimed = is_claimed(workdir)
    processes.barrier('looked for a run')  # before any of them writes
    if not claimed:
        write_json(path, content)
    before = read_run(workdir)
    processes.barrier('read the settings')  # before any of them changes one
    if before['class_names'] != content['class_names']:
        raise UserError(f'{workdir} holds a run on other classes: give another --workdir')
    if before['images'] != content['images']:
        raise UserError(
            f'{workdir} holds a run on other images or another split of them: give another --workdir, or the old data'
        )
    changed = changed_settings(before['config'], config)
    # Whether a stage that has not begun keeps features may be thought over, as when the disk has no room for them.
    free = {f'stages[{i}].cache' for i, row in enumerate(config.stages) if not stage_steps(workdir, row.name)}
    if changed and free >= set(changed):
        write_json(path, content)
    elif changed:
        raise UserError(
            f'{workdir} holds a run with another {", ".join(changed)}: give another --workdir, or the old settings'
        )
