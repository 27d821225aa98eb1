"""A small copy of a finished run: its network and its results, without what only training needs."""

import contextlib
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from ssanet_jax import __version__
from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.paths import check_writable_folder
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.runs.checkpoints import Checkpoints, checkpoint_dir
from ssanet_jax.runs.evaluation_count import COUNT_FILE
from ssanet_jax.runs.feature_index import INDEX_FILE
from ssanet_jax.runs.files import (
    CONFIG_BACKUP,
    CONFIG_FILE,
    RESULTS_FILE,
    TRAIN_AGAIN,
    read_arrays,
    read_json,
    write_json,
)
from ssanet_jax.runs.finished_run import FinishedRun, load_finished_run
from ssanet_jax.runs.finished_stages import EVALUATION_FILE
from ssanet_jax.runs.held_out import HELD_OUT_FILE
from ssanet_jax.runs.history import HISTORY_FILE
from ssanet_jax.runs.image_predictions import PREDICTIONS_FILE
from ssanet_jax.runs.run import load_run
from ssanet_jax.runs.workdir import PACKED_FILE

MEASURED = ('robustness', 'keypoints', 'sharing')  # by `ssanet measure`, as NAME.json and NAME.npz
_RUN_FILES = (CONFIG_FILE, CONFIG_BACKUP, RESULTS_FILE, 'evaluation.json', 'test.json', PREDICTIONS_FILE, COUNT_FILE)
_RUN_FILES += tuple(f'{name}{suffix}' for name in MEASURED for suffix in ('.json', '.npz'))
# Without `best.json`, which says which of several checkpoints is the network: the copy has one.
_STAGE_FILES = (EVALUATION_FILE, PREDICTIONS_FILE, HELD_OUT_FILE, HISTORY_FILE)
_MAX_BYTES = 4 << 30  # of a file, and of its arrays


class PackedRun(NamedTuple):
    """What was packed."""

    num_bytes: int  # of the copy
    original_bytes: int  # of the work directory
    stage: str
    step: int  # of the checkpoint


def pack_run(workdir: Path, out: Path, *, index: bool = False) -> PackedRun:
    """Copies what prediction, evaluation, export and report read from a finished run, which stays as it is.

    Args:
      workdir: the run's work directory.
      out: the folder to write, which does not exist or is empty. It appears when it is complete.
      index: also copy the features of the training images.

    Raises:
      UserError: the training is not over, a file of the run is damaged, or the copy cannot be written.
    """
    partial = out.with_name(f'{out.name}.partial')
    check_writable_folder(out, '--out', os.path.join(partial.name, PREDICTIONS_FILE))
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f'{out} is not empty: give a folder that is empty or does not exist as --out')
    finished = load_finished_run(workdir)
    if index:
        finished.run.read_index()  # whole, and of this network
    try:
        shutil.rmtree(partial, ignore_errors=True)
        _write(finished, workdir, partial, index)
        if load_run(partial).network_digest() != finished.run.network_digest():
            raise UserError(f'{partial} was read back with other weights: check the disk')
        size = _folder_size(partial)
        os.replace(partial, out)
    except OSError as error:
        raise UserError(f'cannot write {out} ({error.strerror}): free some space, or give another --out') from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return PackedRun(size, _folder_size(workdir), finished.run.stage, finished.step)


def _write(finished: FinishedRun, workdir: Path, out: Path, index: bool) -> None:
    run = finished.run
    names = [*_RUN_FILES, *(f'{stage["name"]}/{name}' for stage in run.config.stages for name in _STAGE_FILES)]
    if index:
        names.append(f'{run.stage}/{INDEX_FILE}')
    for name in names:
        if (workdir / name).exists():
            _check(workdir / name)
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(workdir / name, out / name)
    _, params, stats = split_model(run.model)
    with contextlib.closing(Checkpoints(checkpoint_dir(out, run.stage), writes=True)) as checkpoints:
        checkpoints.save(finished.step, {'params': params, 'stats': stats})
    facts = {'version': __version__, 'run': workdir.resolve().name, 'stage': run.stage, 'step': finished.step}
    write_json(out / PACKED_FILE, facts)


def _check(path: Path) -> None:
    """Raises `UserError` if a file is damaged. Readers of `.jsonl` files leave damaged lines out by themselves."""
    if path.suffix == '.json':
        read_json(path, TRAIN_AGAIN)
    elif path.suffix == '.npz' and path.name != INDEX_FILE:  # which `read_index` has checked
        read_arrays(path, lambda arrays: arrays, 'arrays', TRAIN_AGAIN, _MAX_BYTES)


def _folder_size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob('*') if not path.is_dir())
