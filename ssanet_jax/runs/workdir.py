"""A work directory: its lock, and the settings and data that it belongs to."""

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ssanet_jax.distributed import processes
from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.locks import lock_file
from ssanet_jax.filesystem.paths import check_writable_folder
from ssanet_jax.runs.checkpoints import stage_steps
from ssanet_jax.runs.compatibility import changed_settings, may_be_recorded, setting
from ssanet_jax.runs.evaluation_count import COUNT_FILE
from ssanet_jax.runs.files import CONFIG_BACKUP, CONFIG_FILE, RESULTS_FILE, read_json, read_run, restore_run, write_run

LOCK_FILE = '.lock'
PACKED_FILE = 'packed.json'  # marks what `ssanet pack` wrote
# The longest path of a file of a stage: an array of a checkpoint that Orbax is writing, with room for other versions.
_LONGEST_FILE = f'checkpoints/{10**9}.orbax-checkpoint-tmp-{10**20}/position/ocdbt.process_0/d/{"0" * 32}.__lock'


class WorkdirLocked(UserError):
    """Another process trains in the work directory."""


@contextlib.contextmanager
def lock_workdir(workdir: Path) -> Iterator[None]:
    """Keeps other runs out of a work directory while the context is open.

    The primary process holds an OS lock on `workdir/.lock`, which the system releases when the process ends, even
    if it is killed. The file itself stays. If the file system cannot lock it, a warning is logged instead.

    Args:
      workdir: created if it does not exist.

    Raises:
      WorkdirLocked: another process trains there.
      UserError: the directory cannot be written.
    """
    if not processes.is_primary_process():
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            no_lock = stack.enter_context(lock_file(workdir / LOCK_FILE, wait=False))
        except BlockingIOError:
            raise WorkdirLocked(
                f'another process trains in {workdir}: wait for it, or give another --workdir'
            ) from None
        except OSError as error:
            raise UserError(f'cannot write in {workdir} ({error.strerror}): give another --workdir') from error
        if no_lock:
            logging.warning('%s cannot be locked (%s): make sure that no other run trains there', workdir, no_lock)
        yield


def check_workdir(workdir: Path, stages: Sequence[str], rows: Sequence[str] = ()) -> None:
    """Checks the place of a work directory before anything is read or computed; it creates nothing.

    Args:
      workdir: the work directory, which need not exist.
      stages: names of the stages.
      rows: paths of the work directories of several runs below it.

    Raises:
      UserError: no folder can be there, it cannot be written, or its path is too long with the names of its files.
    """
    if processes.is_primary_process():
        longest = lambda names: max(names, key=lambda name: len(os.fsencode(name)), default='')
        check_writable_folder(workdir, '--workdir', os.path.join(longest(rows), longest(stages), _LONGEST_FILE))


def is_claimed(workdir: Path) -> bool:
    """Whether the directory holds a run with a checkpoint, which a new start continues."""
    return _has_config(workdir) and _has_checkpoints(workdir)


def check_config_is_there(workdir: Path) -> None:
    """Raises `UserError` if the configuration of a run is lost, so that no other one takes its place, or it is packed.

    Stages that were copied from other runs (`experiments.stage_reuse`) are no run yet. Call it before taking the lock.
    """
    if (workdir / PACKED_FILE).exists():
        raise UserError(
            f'{workdir} holds a packed run, whose training cannot go on: give the work directory that it was packed '
            'from, or another --workdir'
        )
    started = any((workdir / name).exists() for name in (LOCK_FILE, COUNT_FILE, RESULTS_FILE))
    if processes.is_primary_process() and started and _has_checkpoints(workdir) and not _has_config(workdir):
        raise UserError(
            f'{workdir / CONFIG_FILE} is missing, though the folder holds checkpoints of a run: restore it from a '
            'copy, or give another --workdir'
        )


def _has_config(workdir: Path) -> bool:
    return any((workdir / name).exists() for name in (CONFIG_FILE, CONFIG_BACKUP))


def _has_checkpoints(workdir: Path) -> bool:
    return any(workdir.glob('*/checkpoints/[0-9]*'))


def claim_workdir(workdir: Path, config: ConfigDict, class_names: Sequence[str], images: str = '') -> None:
    """Claims a work directory for a configuration, or checks that it belongs to the same one.

    A directory without a checkpoint may be claimed again. Every process compares its own settings and images with
    what the directory then holds.

    Args:
      workdir: the run's work directory.
      config: the run's configuration.
      class_names: names of the data set's classes.
      images: digest of the data set's images, labels and splits.

    Raises:
      UserError: the directory belongs to a run with other settings, classes or images.
    """
    content = {
        'config': json.loads(config.to_json_best_effort()),
        'class_names': list(class_names),
        'images': images,
    }
    claimed = is_claimed(workdir)
    processes.barrier('looked for a run')  # before any of them writes
    if claimed:
        restore_run(workdir)
    else:
        write_run(workdir, content)
    before = read_run(workdir)
    processes.barrier('read the settings')  # before any of them changes one
    if before['class_names'] != content['class_names']:
        raise UserError(f'{workdir} holds a run on other classes: give another --workdir')
    if before['images'] != content['images']:
        raise UserError(
            f'{workdir} holds a run on other images or another split of them: give another --workdir, or the old data'
        )
    changed = changed_settings(before['config'], config)
    # The cache of a stage that has not started may still change, such as when the disk is too small for it.
    free = {f'stages[{i}].cache' for i, stage in enumerate(config.stages) if not stage_steps(workdir, stage.name)}
    finished = [(workdir / stage.name / 'evaluation.json').exists() for stage in config.stages]
    recorded = [name for name in changed if may_be_recorded(name, finished)]
    if changed and set(changed) <= free.union(recorded):
        changes = _recorded_changes(workdir / CONFIG_FILE)
        if recorded:
            values = {
                name: [setting(tree, name) for tree in (before['config'], content['config'])] for name in recorded
            }
            steps = {stage.name: max(stage_steps(workdir, stage.name), default=0) for stage in config.stages}
            changes = [*changes, {'steps': steps, 'settings': values}]
            listed = ', '.join(f'config.{name} from {old} to {new}' for name, (old, new) in values.items())
            logging.warning('%s goes on with changed settings, which %s records: %s', workdir, CONFIG_FILE, listed)
        processes.barrier('compared the settings')  # before any of them is written
        write_run(workdir, content | ({'changes': changes} if changes else {}))
    elif changed:
        raise UserError(
            f'{workdir} holds a run with another {", ".join(changed)}: give another --workdir, or the old settings'
        )


def _recorded_changes(path: Path) -> list[Any]:
    """The changes of settings that `config.json` has recorded so far."""
    content = read_json(path, 'restore it from a copy')
    changes = content.get('changes') if content else None
    return changes if isinstance(changes, list) else []
