"""The processes that train together: how they find each other and wait for each other."""

import itertools
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from ssanet_jax.errors import UserError

# A process without a heartbeat for this long counts as dead, and the others end.
_HEARTBEAT_TIMEOUT_SECONDS = 30
# Limit of a barrier. Long, because one process may prepare a whole data set while the others wait.
_BARRIER_TIMEOUT_MS = 24 * 3600 * 1000
AUTO = 'auto'
# Where JAX may find the processes (`cluster_detection_method` of `jax.distributed.initialize`): anywhere, the metadata
# server of Cloud TPU VMs, GKE's variables for TPUs, SLURM, Open MPI.
CLUSTERS = (AUTO, 'gcetpu', 'gketpu', 'slurm', 'ompi')
_barrier_ids = itertools.count()  # the coordinator accepts each name once


class Process(NamedTuple):
    """One of the processes that train together."""

    index: int = 0
    count: int = 1


def initialize(coordinator: str | None, count: int | None, index: int | None, cluster: str | None = None) -> None:
    """Connects to the other processes of the job, if there are any. Call it before any device is used.

    Values that are None come from the environment variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
    JAX_PROCESS_ID. If these are not set either, environment variables of SLURM, GKE or a multislice TPU may say that
    there are several processes; otherwise this process trains alone. The workers of a Cloud TPU VM have no such
    variables: they find each other through the metadata server, if `cluster` says so.

    Args:
      coordinator: `host:port` of process 0.
      count: number of processes.
      index: index of this process, from 0.
      cluster: one of `CLUSTERS`: where JAX finds the other three values.

    Raises:
      UserError: only some of the three values are given, one is invalid, or the other processes cannot be reached.
    """
    given = {
        '--coordinator': coordinator or os.environ.get('JAX_COORDINATOR_ADDRESS'),
        '--processes': count if count is not None else os.environ.get('JAX_NUM_PROCESSES'),
        '--process_id': index if index is not None else os.environ.get('JAX_PROCESS_ID'),
    }
    missing = [name for name, value in given.items() if value is None]
    if cluster is not None and len(missing) < len(given):
        found = next(name for name, value in given.items() if value is not None)
        raise UserError(f'--cluster={cluster} finds the processes, and {found} (or its variable) is set: give only one')
    if len(missing) == len(given):
        if cluster is None and not _environment_has_several_processes():
            return
        coordinator = count = index = None  # JAX reads them from the environment
    elif missing:
        raise UserError(f'{missing[0]} is missing: --coordinator, --processes and --process_id are given together')
    else:
        coordinator = str(given['--coordinator'])
        count, index = (_parse_int(name, given[name]) for name in ('--processes', '--process_id'))
        if not 0 <= index < count:
            raise UserError(f'--process_id={index} must lie between 0 and {count - 1} for --processes={count}')
        if ':' not in coordinator:
            raise UserError(f'--coordinator={coordinator} has no port: give host:port, such as 10.0.0.2:1234')
    # Its handler of SIGTERM would replace ours (`terminal.interruptible`).
    jax.config.update('jax_enable_preemption_service', False)
    try:
        jax.distributed.initialize(
            coordinator,
            count,
            index,
            cluster_detection_method=None if cluster == AUTO else cluster,
            heartbeat_timeout_seconds=_HEARTBEAT_TIMEOUT_SECONDS,
            shutdown_timeout_seconds=_HEARTBEAT_TIMEOUT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f'the other processes cannot be reached ({error}): check the address, and that all were started'
        ) from error


def _environment_has_several_processes() -> bool:
    slurm = int(os.environ.get('SLURM_STEP_NUM_TASKS', '1')) > 1 and 'SLURM_PROCID' in os.environ
    hosts = os.environ.get('TPU_WORKER_HOSTNAMES', '')
    return slurm or ',' in hosts or int(os.environ.get('MEGASCALE_NUM_SLICES', '1')) > 1


def _parse_int(name: str, value: Any) -> int:
    try:
        return int(value)
    except ValueError:
        raise UserError(f'{name}={value} is not a number: give an integer') from None


def current() -> Process:
    """This process."""
    return Process(jax.process_index(), jax.process_count())


def is_primary_process() -> bool:
    """Whether this process writes logs and results."""
    return jax.process_index() == 0


def gather_distinct(numbers: Iterable[int]) -> list[int]:
    """Collects the distinct numbers of all processes.

    Args:
      numbers: the numbers of this process, each 0 or more.

    Returns:
      The numbers of all processes, sorted, without duplicates.
    """
    mine = np.array(sorted(set(numbers)), np.int32)
    if jax.process_count() > 1:
        barrier('gather')
        longest = int(multihost_utils.process_allgather(np.int32(len(mine))).max())
        padded = np.concatenate([mine, np.full(longest - len(mine), -1, np.int32)])
        mine = multihost_utils.process_allgather(padded)
    return sorted({int(number) for number in mine.ravel() if number >= 0})


def barrier(name: str) -> None:
    """Blocks until every process has reached the barrier of this name; raises if one has died.

    The coordinator implements it, since a collective operation between CPUs fails if a process is 30 seconds late.
    """
    multihost.get_barrier_sync_fn()(key=f'{name} ({next(_barrier_ids)})', timeout_ms=_BARRIER_TIMEOUT_MS)


def compile_together(program: Any, *arguments: Any) -> None:
    """Compiles `program`, a jitted function, for these arguments and blocks until every process has done so.

    Otherwise the first process to finish would wait for the others inside the program, where waiting times out.
    """
    if jax.process_count() > 1:
        program.lower(*arguments).compile()
        barrier('compiled')
