"""The processes that train together: how they find each other, and who speaks for them."""

import itertools
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from ssanet_jax.errors import UserError

# A process that says nothing for so long is taken for dead, and the others end.
_SILENCE_SECONDS = 30
# How long the living wait for each other, milliseconds: one may have a whole data set to prepare.
_LONGEST_WAIT = 24 * 3600 * 1000
_waits = itertools.count()  # the coordinator counts at each name once


class Process(NamedTuple):
    """Which of the processes that train together this one is."""

    index: int = 0
    count: int = 1


def join(coordinator: str | None, count: int | None, index: int | None) -> None:
    """Joins the other processes of the job, if there are any; to be called before any device is used.

    Args:
      coordinator, count, index: `host:port` of process 0, the number of processes, and which this one is.
        Where they are None they come from JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
        JAX_PROCESS_ID; else from SLURM or from a Cloud TPU, where these run several processes; else
        this process is alone.

    Raises:
      UserError: some of the three are missing or make no sense, or the others cannot be reached.
    """
    given = {
        '--coordinator': coordinator or os.environ.get('JAX_COORDINATOR_ADDRESS'),
        '--processes': count if count is not None else os.environ.get('JAX_NUM_PROCESSES'),
        '--process_id': index if index is not None else os.environ.get('JAX_PROCESS_ID'),
    }
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        if not _environment_has_several():
            return
        coordinator = count = index = None  # JAX reads them from the environment
    elif missing:
        raise UserError(f'{missing[0]} is missing: --coordinator, --processes and --process_id are given together')
    else:
        coordinator, count, index = given['--coordinator'], *(_number(name, given[name]) for name in list(given)[1:])
        if not 0 <= index < count:
            raise UserError(f'--process_id={index} must lie between 0 and --processes={count} less one')
        if ':' not in coordinator:
            raise UserError(f'--coordinator={coordinator} has no port: give host:port, such as 10.0.0.2:1234')
    try:
        jax.distributed.initialize(
            coordinator,
            count,
            index,
            heartbeat_timeout_seconds=_SILENCE_SECONDS,
            shutdown_timeout_seconds=_SILENCE_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f'the other processes cannot be reached ({error}): check the address, and that all were started'
        ) from error


def _environment_has_several() -> bool:
    slurm = int(os.environ.get('SLURM_STEP_NUM_TASKS', '1')) > 1 and 'SLURM_PROCID' in os.environ
    hosts = os.environ.get('TPU_WORKER_HOSTNAMES', '')
    return slurm or ',' in hosts or int(os.environ.get('MEGASCALE_NUM_SLICES', '1')) > 1


def _number(name: str, value: object) -> int:
    try:
        return int(value)
    except ValueError:
        raise UserError(f'{name}={value} is no number') from None


def current() -> Process:
    """Which of how many this one is."""
    return Process(jax.process_index(), jax.process_count())


def is_primary_process() -> bool:
    """Whether this is the process that writes logs and results."""
    return jax.process_index() == 0


def gather(numbers: Iterable[int]) -> list[int]:
    """The numbers of all processes, sorted, each once."""
    mine = np.array(sorted(set(numbers)), np.int32)
    if jax.process_count() > 1:
        barrier('gather')
        longest = int(multihost_utils.process_allgather(np.int32(len(mine))).max())
        padded = np.concatenate([mine, np.full(longest - len(mine), -1, np.int32)])
        mine = multihost_utils.process_allgather(padded)
    return sorted({int(number) for number in mine.ravel() if number >= 0})


def barrier(name: str) -> None:
    """Returns when every process has come to the point of this name, or raises when one has died.

    The coordinator counts them: between CPUs, a collective operation gives up on whoever is 30 seconds behind.
    """
    multihost.get_barrier_sync_fn()(key=f'{name} ({next(_waits)})', timeout_ms=_LONGEST_WAIT)


def compile_together(program: jax.stages.Wrapped, *arguments: Any) -> None:
    """Returns when every process has compiled `program` for these arguments; the next call finds it ready.

    Otherwise the first to be ready would wait for the others within the program, and there not for long.
    """
    if jax.process_count() > 1:
        program.lower(*arguments).compile()
        barrier('compiled')
