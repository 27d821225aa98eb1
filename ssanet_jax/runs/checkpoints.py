"""Orbax checkpoints of one stage, with fallback from a damaged one to the one before."""

import contextlib
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.plain_path import plain_path
from ssanet_jax.runs.unmerged import merge_unmerged

_PARTIAL = ocp.options.PyTreeOptions(loading=ocp.options.PyTreeOptions.Loading(partial_load=True))
KEEP = 2  # one more than needed, in case the newest is damaged


class Checkpoints:
    """The checkpoints in one directory, each of named items (`params`, `stats`, `opt`, `position`).

    Items are stored separately, so that the next stage loads only those that it needs. Orbax commits a save by a
    rename: one that was killed is never listed.

    Args:
      directory: created if it does not exist.
      writes: this process saves here, and no other one does: removes what killed saves left. A reader must not do
        that, since it may be the unfinished save of a run that is still training.
    """

    def __init__(self, directory: Path, *, writes: bool = False):
        self.directory = Path(directory).absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        # Orbax logs every save at length, and a failure from each of its threads; failures are raised as well.
        logging.getLogger('absl').setLevel(logging.CRITICAL)
        self._resources = contextlib.ExitStack()
        # Orbax's own types do not accept its policies, nor pathlib's paths.
        path: Any = self._resources.enter_context(plain_path(self.directory))
        self._path: Path = path
        policy: Any = ocp.training.preservation_policies.LatestN(KEEP)
        self._orbax = ocp.training.Checkpointer(
            path,
            preservation_policy=policy,
            cleanup_tmp_directories=writes,
        )

    @property
    def steps(self) -> list[int]:
        """Steps of the committed checkpoints, oldest first."""
        return [checkpoint.step for checkpoint in self._orbax.checkpoints]

    def save(self, step: int, items: dict[str, Any]) -> None:
        """Saves items as checkpoint `step`. Blocks until they are committed."""
        # Orbax refuses an item without arrays, such as the statistics of a network without BatchNorm.
        items = {name: tree for name, tree in items.items() if not _is_empty(tree)}
        self._orbax.save_checkpointables(step, items, overwrite=step in self.steps)

    def restore(self, like: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Loads the newest readable checkpoint.

        Args:
          like: the items to load. Each is a tree of arrays with the expected shapes, dtypes and shardings, or None to
            load the item as it was saved. The checkpoint may hold more.

        Returns:
          `(step, items)`.

        Raises:
          UserError: there is no checkpoint, none can be read, or none has these shapes.
        """
        if not self.steps:
            raise UserError(f'no checkpoint in {self.directory}: train first, or give another --workdir')
        empty = {name: tree for name, tree in like.items() if _is_empty(tree)}
        abstract = {name: _abstract(tree) for name, tree in like.items() if name not in empty}
        reason = ''
        for step in reversed(self.steps):
            try:
                merge_unmerged(self._path / str(step))
                with ocp.Context(pytree_options=_PARTIAL):
                    items = self._orbax.load_checkpointables(step, abstract)
                if missing := _missing(items):
                    raise ValueError(f'it lacks {", ".join(missing)}')
                return step, {**empty, **items}
            except Exception as error:  # Orbax raises many types for a damaged file, and most of them mislead
                cause = self._cause_of_damage(error)
                reason = self._shown(cause) if type(cause) is ValueError else type(cause).__name__
                logging.warning('checkpoint %s of %s cannot be read', step, self.directory)
        raise UserError(
            f'no checkpoint in {self.directory} can be read with this configuration: it is damaged, or its shapes '
            f'differ ({reason}); restore the folder from a copy, or train in another --workdir'
        )

    def _shown(self, cause: BaseException) -> str:
        """The message of an error without TensorStore's specifications, which are longer than a page."""
        message = str(cause).replace(str(self._path), str(self.directory))
        return re.sub(r'\s*\[tensorstore_spec.*', '', message, flags=re.DOTALL)

    def _cause_of_damage(self, error: Exception) -> BaseException:
        """The first cause of a failed load; raises if it is not the file's fault."""
        chain = _causes(error)
        for cause in chain:
            if isinstance(cause, MemoryError) or 'RESOURCE_EXHAUSTED' in str(cause):
                raise cause from None
        if any(isinstance(cause, PermissionError) or 'PERMISSION_DENIED' in str(cause) for cause in chain):
            raise UserError(f'no permission to read {self.directory}: ask for it, or read a copy') from error
        return chain[-1]

    def close(self) -> None:
        """Releases Orbax's threads."""
        self._orbax.close()
        self._resources.close()


def _is_empty(tree: Any) -> bool:
    return tree is not None and not jax.tree.leaves(tree)


def _missing(items: dict[str, Any]) -> list[str]:
    """Names, such as `params/backbone`, of arrays that the checkpoint lacks: a partial load leaves them abstract."""
    leaves = jax.tree_util.tree_leaves_with_path(items)
    paths = [path for path, leaf in leaves if isinstance(leaf, jax.ShapeDtypeStruct)]
    return sorted({'/'.join(str(getattr(key, 'key', key)) for key in path[:2]) for path in paths})


def _abstract(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def _causes(error: BaseException) -> list[BaseException]:
    """An error and its causes, the first cause last."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    return chain


def checkpoint_dir(workdir: Path, stage: str) -> Path:
    """The folder of a stage's checkpoints."""
    return workdir / stage / 'checkpoints'


def best_dir(workdir: Path, stage: str) -> Path:
    """The folder of the network that a stage selected on the validation images."""
    return workdir / stage / 'best'


def stage_steps(workdir: Path, stage: str) -> list[int]:
    """Steps of the checkpoints of a stage, oldest first; empty if it has none."""
    return _steps(checkpoint_dir(workdir, stage))


def _steps(directory: Path) -> list[int]:
    if not directory.is_dir():
        return []
    checkpoints = Checkpoints(directory)
    steps = checkpoints.steps
    checkpoints.close()
    return steps


def restore_stage(workdir: Path, stage: str, like: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Loads the newest readable checkpoint of a stage; see `Checkpoints.restore`."""
    return _restore(checkpoint_dir(workdir, stage), like)


def restore_network(
    workdir: Path, stage: str, params: dict[str, Any], stats: dict[str, Any], *, groups: Iterable[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Loads the network that a stage passes on: the one that validation images selected, else its newest.

    Args:
      workdir: the run's work directory.
      stage: name of the stage.
      params: parameters by group, of a network as it was built.
      stats: BatchNorm statistics by group, of the same network.
      groups: groups of parameters to load. The checkpoint must hold all of them. The others are returned as they are
        in `params`.

    Returns:
      `(params, stats)`.

    Raises:
      UserError: the checkpoint lacks one of the groups, or cannot be read.
    """
    best = best_dir(workdir, stage)
    like = {'params': {group: params[group] for group in groups}, 'stats': stats}
    items = _restore(best if _steps(best) else checkpoint_dir(workdir, stage), like)[1]
    return params | items['params'], items['stats']


def _restore(directory: Path, like: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    checkpoints = Checkpoints(directory)
    try:
        return checkpoints.restore(like)
    finally:
        checkpoints.close()
