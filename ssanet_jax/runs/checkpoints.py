"""Orbax checkpoints of one stage, and the way back from a damaged one."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from ssanet_jax.errors import UserError

_PARTIAL = ocp.options.PyTreeOptions(loading=ocp.options.PyTreeOptions.Loading(partial_load=True))
KEEP = 2  # one more than needed, in case the newest is damaged


class Checkpoints:
    """The checkpoints under one directory, each of named items (`params`, `stats`, `opt`, `position`).

    The items are separate, so that the next stage loads what it needs and no more. A save that
    was killed is never seen again: Orbax commits it by a rename.
    """

    def __init__(self, directory: Path, *, writes: bool = False):
        """Opens the checkpoints in `directory`.

        Args:
          directory: made if it is missing.
          writes: this process saves here, and no other: what a killed save left is removed. A reader must
            not do that, since it may be the save of a run that is still going on.
        """
        self.directory = Path(directory).absolute()
        # Orbax reports every save at length, and a failure from each of its threads; that comes as an exception too.
        logging.getLogger('absl').setLevel(logging.CRITICAL)
        self._orbax = ocp.training.Checkpointer(
            self.directory,
            preservation_policy=ocp.training.preservation_policies.LatestN(KEEP),
            cleanup_tmp_directories=writes,
        )

    @property
    def steps(self) -> list[int]:
        """Steps of the committed checkpoints, oldest first."""
        return [checkpoint.step for checkpoint in self._orbax.checkpoints]

    def save(self, step: int, items: dict[str, Any]) -> None:
        """Writes the items as checkpoint `step` and waits until they are committed."""
        # Orbax refuses an item without arrays, such as the statistics of a network without BatchNorm.
        items = {name: tree for name, tree in items.items() if not _is_empty(tree)}
        self._orbax.save_checkpointables(step, items, overwrite=step in self.steps)

    def restore(self, like: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Loads the newest checkpoint that can be read.

        Args:
          like: the items wanted, each a tree of arrays of the shapes, dtypes and shardings
            expected, or None for an item to be taken as it comes. A checkpoint may hold more than these.

        Returns:
          (step, items).

        Raises:
          UserError: if there is none, or none that can be read or fits.
        """
        if not self.steps:
            raise UserError(f'no checkpoint in {self.directory}: train first, or give another --workdir')
        empty = {name: tree for name, tree in like.items() if _is_empty(tree)}
        abstract = {name: _abstract(tree) for name, tree in like.items() if name not in empty}
        for step in reversed(self.steps):
            try:
                with ocp.Context(pytree_options=_PARTIAL):
                    items = self._orbax.load_checkpointables(step, abstract)
                if missing := _missing(items):
                    raise ValueError(f'it lacks {", ".join(missing)}')
                return step, {**empty, **items}
            except Exception as error:  # Orbax raises many types for a damaged file, and misnames most
                chain = _chain(error)
                # These are not the files' fault, which must not be taken for damaged and removed.
                for e in chain:
                    if isinstance(e, MemoryError) or 'RESOURCE_EXHAUSTED' in str(e):
                        raise e from None
                if any(isinstance(e, PermissionError) or 'PERMISSION_DENIED' in str(e) for e in chain):
                    raise UserError(f'no permission to read {self.directory}: ask for it, or read a copy') from error
                cause = chain[-1]
                logging.warning('checkpoint %s of %s cannot be read', step, self.directory)
        raise UserError(
            f'no checkpoint in {self.directory} can be read with this configuration: it is damaged, or its shapes '
            f'differ ({cause if type(cause) is ValueError else type(cause).__name__}); restore the folder from a copy or remove it to '
            'train this stage anew'
        )

    def close(self) -> None:
        """Releases Orbax's threads."""
        self._orbax.close()


def _is_empty(tree: Any) -> bool:
    return tree is not None and not jax.tree.leaves(tree)


def _missing(items: dict[str, Any]) -> list[str]:
    """Names such as `params/backbone` of what the checkpoint does not have; a partial load leaves it abstract."""
    leaves = jax.tree_util.tree_leaves_with_path(items)
    paths = [path for path, leaf in leaves if isinstance(leaf, jax.ShapeDtypeStruct)]
    return sorted({'/'.join(str(key.key) for key in path[:2]) for path in paths})


def _abstract(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def _chain(error: BaseException) -> list[BaseException]:
    """An error and its causes, the first one last."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    return chain


def checkpoint_dir(workdir: Path, stage: str) -> Path:
    """Where a stage keeps its checkpoints."""
    return workdir / stage / 'checkpoints'


def best_dir(workdir: Path, stage: str) -> Path:
    return workdir / stage / 'best'


def stage_steps(workdir: Path, stage: str) -> list[int]:
    """Steps of the checkpoints of a stage, oldest first; empty if it has not begun."""
    return _steps(checkpoint_dir(workdir, stage))


def _steps(directory: Path) -> list[int]:
    if not directory.is_dir():
        return []
    checkpoints = Checkpoints(directory)
    steps = checkpoints.steps
    checkpoints.close()
    return steps


def restore_stage(workdir: Path, stage: str, like: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Items of the newest readable checkpoint of a stage; see `Checkpoints.restore`."""
    return _restore(checkpoint_dir(workdir, stage), like)


def restore_network(
    workdir: Path, stage: str, params: dict[str, Any], stats: dict[str, Any], *, groups: Iterable[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The network that a stage hands on: the one that validation chose, else its newest.

    Args:
      workdir, stage: of the run.
      params, stats: of a network as it was built.
      groups: groups of parameters to restore. All of them must be in the checkpoint; the others are returned as
        they were built.

    Returns:
      (params, stats).

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
