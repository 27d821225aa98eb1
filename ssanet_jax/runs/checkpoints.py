"""Orbax checkpoints of one stage, with checksums and fallback from a damaged one to the one before."""

import contextlib
import logging
import re
import shutil
from concurrent import futures
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from ssanet_jax import terminal
from ssanet_jax.distributed import processes
from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.atomic_files import set_aside, sync_folder
from ssanet_jax.filesystem.plain_path import plain_path
from ssanet_jax.runs.checksums import (
    CUSTOM_METADATA,
    OF_ANOTHER_STEP,
    find_damage,
    has_checksums,
    is_checkpoint,
    write_checksums,
)
from ssanet_jax.runs.load_errors import reason_of_failure
from ssanet_jax.runs.unmerged import merge_unmerged

_PARTIAL = ocp.options.PyTreeOptions(loading=ocp.options.PyTreeOptions.Loading(partial_load=True))
# Otherwise Orbax's threads wait five minutes for a folder that could not be made, and the process with them.
_FOLDERS_FIRST = ocp.options.AsyncOptions(create_directories_asynchronously=False)
KEEP = 2  # one more than needed, in case the newest is damaged
# Remains of a killed process: saves that were not complete, and checkpoints that were being deleted.
_REMAINS = re.compile(r'\d+(\.partial|\.deleted|.*\.orbax-checkpoint-tmp.*)')


class DamagedCheckpoints(UserError):
    """No checkpoint of a folder is whole."""


class Checkpoints:
    """The checkpoints in one directory, each of named items (`params`, `stats`, `opt`, `position`).

    Items are stored separately, so that the next stage loads only those that it needs. A save is committed, together
    with its checksums, by a rename: one that was killed is never listed.

    Args:
      directory: created if it does not exist.
      writes: this process saves here, and no other one does: removes what killed saves left, and sets damaged
        checkpoints aside. A reader must not do that, since it may be the unfinished save of a run that is still
        training.
      asynchronous: `save` returns before the checkpoint is on the disk. Not for several processes, which wait for each
        other in `save`.
    """

    def __init__(self, directory: Path, *, writes: bool = False, asynchronous: bool = False):
        self.directory = Path(directory).absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        # Orbax logs every save at length, and a failure from each of its threads; failures are raised as well.
        logging.getLogger('absl').setLevel(logging.CRITICAL)
        self._writes = writes
        self._resources = contextlib.ExitStack()
        self._path: Path = self._resources.enter_context(plain_path(self.directory))
        self._thread = self._resources.enter_context(futures.ThreadPoolExecutor(1)) if asynchronous else None
        self._write: futures.Future[None] | None = None  # in progress, or failed
        if writes:
            if processes.is_primary_process():
                self._remove_remains()
            processes.barrier(f'opened {self.directory}')

    def _remove_remains(self) -> None:
        for path in self._path.iterdir():
            if _REMAINS.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)
        for step in self._numbered():
            if not is_checkpoint(self._path / str(step)):
                new = self._set_aside(step)
                logging.warning('%s/%s is not a checkpoint: set aside as %s', self.directory, step, new)

    @property
    def steps(self) -> list[int]:
        """Steps of the committed checkpoints, oldest first."""
        self.wait()
        return self._committed()

    def _committed(self) -> list[int]:
        return [step for step in self._numbered() if is_checkpoint(self._path / str(step))]

    def _numbered(self) -> list[int]:
        """The numbers that name folders, checkpoints or not."""
        names = [path.name for path in self._path.iterdir() if path.is_dir()]
        return sorted(int(name) for name in names if re.fullmatch('0|[1-9][0-9]*', name))

    def save(self, step: int, items: dict[str, Any]) -> None:
        """Saves items as checkpoint `step`.

        Blocks until they are committed, and on the disk. With `asynchronous`, it blocks only until the save before is,
        and the items have been copied off the devices: the caller may donate them. All other methods then wait for this
        save, and the first that is called after it has failed raises its error.
        """
        self.wait()
        # Orbax refuses an item without arrays, such as the statistics of a network without BatchNorm.
        items = {name: tree for name, tree in items.items() if not _is_empty(tree)}
        partial = self._path / f'{step}.partial'
        # On a CPU, Orbax's copies are views. XLA then does not reuse these buffers, also if the caller donates them.
        with ocp.Context(async_options=_FOLDERS_FIRST):
            response = ocp.save_checkpointables_async(
                partial,  # pyright: ignore[reportArgumentType]
                items,
                overwrite=True,
                custom_metadata=CUSTOM_METADATA,  # pyright: ignore[reportArgumentType]
            )
        if self._thread is None:
            self._finish(response, partial, step)
        else:
            self._write = self._thread.submit(self._finish, response, partial, step)

    def _finish(self, response: ocp.AsyncResponse[None], partial: Path, step: int) -> None:
        """Waits until Orbax has written all items, and commits them."""
        try:
            response.result()
            if processes.is_primary_process():
                write_checksums(partial, step)
                self._commit(partial, step)
        finally:
            if processes.is_primary_process():
                shutil.rmtree(partial, ignore_errors=True)
        processes.barrier(f'saved {partial}')

    def _commit(self, partial: Path, step: int) -> None:
        """Gives a complete checkpoint its name, and deletes those that it replaces."""
        older = [other for other in self._committed() if other < step]
        self._delete(step)
        partial.rename(self._path / str(step))
        sync_folder(self._path)
        for other in older[: 1 - KEEP]:
            self._delete(other)

    def wait(self) -> None:
        """Waits for the save in progress, if any, and raises its error."""
        if self._write is not None:
            futures.wait([self._write])  # if a signal interrupts it, the save is still in progress
            write, self._write = self._write, None
            write.result()

    def raise_failure(self) -> None:
        """Raises the error of a save that has failed; does not wait for one in progress."""
        if self._write is not None and self._write.done():
            self.wait()

    def _delete(self, step: int) -> None:
        path = self._path / str(step)
        if path.exists():
            # Renamed first, so that a killed process leaves no half of a checkpoint under its name.
            shutil.rmtree(partial := path.with_name(f'{step}.deleted'), ignore_errors=True)
            path.rename(partial)
            shutil.rmtree(partial, ignore_errors=True)

    def restore(self, like: dict[str, Any], *, step: int | None = None) -> tuple[int, dict[str, Any]]:
        """Loads the newest checkpoint that is whole. Call it in all processes.

        Damaged checkpoints are reported, and with `writes` set aside: renamed to `STEP.damaged`.

        Args:
          like: the items to load. Each is a tree of arrays with the expected shapes, dtypes and shardings, or None to
            load the item as it was saved. The checkpoint may hold more.
          step: load this checkpoint and no other one.

        Returns:
          `(step, items)`.

        Raises:
          DamagedCheckpoints: there are checkpoints, but their files differ from their checksums.
          UserError: there is no checkpoint, none can be read, or none has these shapes.
        """
        self.wait()
        numbered = [number for number in self._numbered() if step in (None, number)]
        if not numbered:
            raise UserError(f'no checkpoint in {self.directory}: train first, or give another --workdir')
        empty = {name: tree for name, tree in like.items() if _is_empty(tree)}
        abstract = {name: _abstract(tree) for name, tree in like.items() if name not in empty}
        damaged: dict[int, str] = {}
        unreadable: dict[int, str] = {}
        for number in reversed(numbered):
            if problem := self._find_damage(number):
                damaged[number] = problem
                continue
            try:
                items = self._load(number, abstract)
            except Exception as error:
                terminal.interrupts().raise_pending()  # Orbax turns an interrupt into an error of its own
                unreadable[number] = reason_of_failure(error, self.directory, self._path)
                continue
            self._report(damaged | unreadable, number)
            return number, {**empty, **items}
        if not all((self._path / str(number)).exists() for number in numbered):
            return self.restore(like, step=step)  # a run that is training has deleted them meanwhile
        if unreadable:
            reason = list(unreadable.values())[-1]
            raise UserError(
                f'no checkpoint in {self.directory} can be read with this configuration: it is damaged, or its shapes '
                f'differ ({reason}); restore the folder from a copy, or train in another --workdir'
            )
        self._report(damaged)
        listed = '; '.join(f'{number}: {problem}' for number, problem in damaged.items())
        raise DamagedCheckpoints(
            f'no checkpoint in {self.directory} is whole ({listed}): restore it from a copy, or run the '
            'training command again'
        )

    def _load(self, step: int, abstract: dict[str, Any]) -> dict[str, Any]:
        folder: Any = self._path / str(step)  # Orbax's own types do not accept pathlib's paths
        if not has_checksums(folder):
            merge_unmerged(folder)
        with ocp.Context(pytree_options=_PARTIAL):
            items = dict(ocp.load_checkpointables(folder, abstract))
        if missing := _missing(items):
            raise ValueError(f'it lacks {", ".join(missing)}')
        return items

    def newest_whole(self) -> int | None:
        """The step of the newest checkpoint that is whole, if any. Call it in all processes.

        Damaged ones are reported, and with `writes` set aside.
        """
        self.wait()
        damaged: dict[int, str] = {}
        found = None
        for number in reversed(self._numbered()):
            if not (problem := self._find_damage(number)):
                found = number
                break
            damaged[number] = problem
        self._report(damaged, found)
        return found

    def is_whole(self, step: int) -> bool:
        """Whether the files of a checkpoint agree with its checksums, if it has any. Call it in all processes."""
        self.wait()
        return not self._find_damage(step)

    def _find_damage(self, step: int) -> str:
        """What is wrong with a checkpoint, for all processes; only the primary one reads it, and knows details."""
        problem = ''
        if processes.is_primary_process():
            try:
                problem = find_damage(self._path / str(step))
            except PermissionError as error:
                raise UserError(f'no permission to read {self.directory}: ask for it, or read a copy') from error
        found = 1 in processes.gather_distinct([int(bool(problem))])
        return problem or ('damaged' if found else '')

    def _report(self, damaged: dict[int, str], found: int | None = None) -> None:
        """Warns of damaged checkpoints, and sets them aside if this run writes here.

        Args:
          damaged: what is wrong, by step.
          found: the checkpoint that is used in their place, if any.
        """
        if not damaged:
            return
        if processes.is_primary_process():
            for step, problem in damaged.items():
                path = self._path / str(step)
                if not path.exists():  # a run that is training has deleted it meanwhile
                    continue
                foreign = not is_checkpoint(path) or problem.startswith(OF_ANOTHER_STEP)
                aside = f', set aside as {self._set_aside(step)}' if self._writes else ''
                instead = '' if found is None else self._fallback(found, 0 if foreign else step - found)
                logging.warning(f'checkpoint {step} of {self.directory} is damaged ({problem}){aside}{instead}')
        if self._writes:
            processes.barrier(f'set aside in {self.directory}')

    def _fallback(self, found: int, lost: int) -> str:
        count = f'{lost} step{"" if lost == 1 else "s"} {"lost" if self._writes else "earlier"}'
        used = f'going on from checkpoint {found}' if self._writes else f'checkpoint {found} is used'
        return f': {used}, {count}' if lost else f': {used}'

    def _set_aside(self, step: int) -> str:
        try:
            return set_aside(self._path / str(step)).name
        except OSError as error:
            raise UserError(
                f'{self.directory / str(step)} is damaged and cannot be renamed ({error.strerror}): allow writing to '
                'this folder'
            ) from error

    def close(self) -> None:
        """Waits for the save in progress, if any, releases the path, and raises the error of the save."""
        with self._resources:
            self.wait()


def _is_empty(tree: Any) -> bool:
    return tree is not None and not jax.tree.leaves(tree)


def _missing(items: dict[str, Any]) -> list[str]:
    """Names, such as `params/backbone`, of arrays that the checkpoint lacks: a partial load leaves them abstract."""
    leaves = jax.tree_util.tree_leaves_with_path(items)
    paths = [path for path, leaf in leaves if isinstance(leaf, jax.ShapeDtypeStruct)]
    return sorted({'/'.join(str(getattr(key, 'key', key)) for key in path[:2]) for path in paths})


def _abstract(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def checkpoint_dir(workdir: Path, stage: str) -> Path:
    """The folder of a stage's checkpoints."""
    return workdir / stage / 'checkpoints'


def best_dir(workdir: Path, stage: str) -> Path:
    """The folder of the network that a stage selected on the validation images."""
    return workdir / stage / 'best'


def stage_steps(workdir: Path, stage: str) -> list[int]:
    """Steps of the checkpoints of a stage, oldest first; empty if it has none."""
    return checkpoint_steps(checkpoint_dir(workdir, stage))


def checkpoint_steps(directory: Path) -> list[int]:
    """Steps of the checkpoints in a folder, oldest first; empty if it does not exist."""
    if not directory.is_dir():
        return []
    with contextlib.closing(Checkpoints(directory)) as checkpoints:
        return checkpoints.steps


def restore_stage(workdir: Path, stage: str, like: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Loads the newest whole checkpoint of a stage to go on from it; see `Checkpoints.restore`."""
    return restore(checkpoint_dir(workdir, stage), like, writes=True)


def restore(
    directory: Path, like: dict[str, Any], *, step: int | None = None, writes: bool = False
) -> tuple[int, dict[str, Any]]:
    """Loads a checkpoint from a folder; see `Checkpoints` and `Checkpoints.restore`."""
    with contextlib.closing(Checkpoints(directory, writes=writes)) as checkpoints:
        return checkpoints.restore(like, step=step)
