"""Compiled programs to be timed, the CPU time of a workload, and the check for PyTorch."""

import importlib.util
import time
from typing import Any, NamedTuple

import jax

from ssanet_jax.experiments.timing import Workload


class Program(NamedTuple):
    """A compiled program, ready to be timed."""

    run: Workload
    compiled: jax.stages.Compiled

    @property
    def cost(self) -> dict[str, Any]:
        """The compiler's count of a call: 'flops' and 'bytes accessed'; empty if it gives none."""
        return self.compiled.cost_analysis() or {}


def torch_problem() -> str:
    """Why PyTorch cannot be timed, and the cure; '' if it can."""
    if importlib.util.find_spec('torch') is None:
        return "PyTorch is not installed: pip install -e '.[torch-parity]'"
    import torch

    backend = jax.default_backend()
    if backend != 'cpu' and not (backend == 'gpu' and torch.cuda.is_available()):
        return f'PyTorch does not support the {backend} that JAX runs on: set JAX_PLATFORMS=cpu to compare on the CPU'
    return ''


def cpu_seconds(workload: Workload) -> float:
    """The CPU time of a workload in all threads, which other programs hardly affect: the least of three calls."""
    times = []
    for _ in range(3):
        start = time.process_time()
        workload()
        times.append(time.process_time() - start)
    return min(times)
