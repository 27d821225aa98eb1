"""Timing of several functions against each other."""

import statistics
import time
from collections.abc import Callable, Mapping

Workload = Callable[[], object]  # blocks until its work is done
Log = Callable[[str], None]  # receives progress messages


def no_log(message: str) -> None:
    """A `Log` that discards the message."""


def time_interleaved(workloads: Mapping[str, Workload], rounds: int, log: Log = no_log) -> dict[str, float]:
    """Times workloads in alternation, so that a temporary slowdown of the machine affects all of them.

    In each round every workload is called twice in a row, and the second call is timed: the first one pays for the
    state of caches and memory that the previous workload left (ResNet-50 right after `sharing='none'` took 8 % longer
    than after itself). Before the first round each is called once, to compile.

    Args:
      workloads: the functions to time, by name.
      rounds: timed calls per workload, at least 1.
      log: receives progress messages.

    Returns:
      Median seconds of a call, by name.
    """
    for name, workload in workloads.items():
        log(f'warming up {name}')
        workload()
    seconds: dict[str, list[float]] = {name: [] for name in workloads}
    for number in range(1, rounds + 1):
        log(f'round {number} of {rounds}')
        for name, workload in workloads.items():
            workload()
            start = time.perf_counter()
            workload()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}
