"""What the benchmarks share: competitors that take turns, and how figures are printed."""

import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version

import jax
import numpy as np

from ssanet_jax.training import experiment

Timed = Callable[[], object]


def take_turns(competitors: Mapping[str, Timed], rounds: int) -> dict[str, float]:
    """Median seconds of each competitor; each is called twice before the first round."""
    seconds: dict[str, list[float]] = {name: [] for name in competitors}
    for run in competitors.values():
        run()
        run()
    for _ in range(rounds):
        for name, run in competitors.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def machine() -> str:
    """The device and the versions of what ran on it."""
    try:
        torch = f', torch {version("torch")}'
    except PackageNotFoundError:
        torch = ''
    return f'{experiment.device_kind()}, jax {jax.__version__}{torch}, numpy {np.__version__}'


def milliseconds(seconds: float | None) -> str:
    """A cell of the table; empty for what was not measured."""
    return '' if seconds is None else f'{1e3 * seconds:.1f} ms'


def ratio(a: float | None, b: float | None) -> str:
    """A cell with a / b; empty where one was not measured."""
    return '' if a is None or b is None else f'{a / b:.2f}'
