"""Blocks whose activations are computed again in the backward pass instead of kept."""

from collections.abc import Callable

import jax
from flax import nnx


def rematerialised(block: nnx.Module, really: bool) -> Callable[[jax.Array], jax.Array]:
    """A block that keeps its input alone for the backward pass, or the block itself.

    Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016: one more forward pass for the memory of
    everything between the inputs of the blocks.
    """
    if not really:
        return block
    return lambda x: nnx.remat(lambda block, x: block(x))(block, x)
