"""Rematerialization: recompute a block's activations in the backward pass instead of storing them."""

from collections.abc import Callable

import jax
from flax import nnx


def remat_if(enabled: bool, block: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The block, rematerialized if `enabled`: of its activations, only the input is stored for the backward pass.

    Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016: the price is one more forward pass.

    Args:
      enabled: whether to rematerialize.
      block: an NNX module that maps an array to an array, with any further arguments.
    """
    if not enabled:
        return block
    return lambda *inputs: nnx.remat(lambda block, *inputs: block(*inputs))(block, *inputs)
