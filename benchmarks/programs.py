"""What is timed: compiled programs, and PyTorch where it is installed."""

import importlib.util
from typing import Any, NamedTuple

import jax

from ssanet_jax.experiments.timing import Timed


class Program(NamedTuple):
    """Something compiled, ready to be timed."""

    run: Timed  # returns when the result is there
    compiled: jax.stages.Compiled

    @property
    def cost(self) -> dict[str, Any]:
        """The compiler's count: 'flops' and 'bytes accessed' of a call; empty where it does not say."""
        return self.compiled.cost_analysis() or {}


def why_no_torch() -> str:
    """Why PyTorch cannot take part, and the cure; '' where it can."""
    if importlib.util.find_spec('torch') is None:
        return "PyTorch is not installed: pip install -e '.[torch-parity]'"
    import torch

    backend = jax.default_backend()
    if backend != 'cpu' and not (backend == 'gpu' and torch.cuda.is_available()):
        return f'PyTorch has no {backend} here, on which JAX runs: set JAX_PLATFORMS=cpu to compare both on the CPU'
    return ''
