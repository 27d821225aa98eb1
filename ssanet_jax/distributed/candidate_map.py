"""A function mapped over candidate regions, which the devices of the mesh share."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from ssanet_jax.distributed.sharding import CANDIDATE, DATA, constrain_batch
from ssanet_jax.models.backbones.batch_norm import shared_statistics

MappedFunction = Callable[..., tuple[Any, Any]]


def candidate_map(function: MappedFunction, mesh: Mesh) -> MappedFunction:
    """Maps a function over candidates, which the devices of the mesh share.

    This is what `jax.pmap` over the candidates computes (the paper's "in parallel"), but inside a larger `jit`
    program: it is built on `jax.shard_map`, since `pmap` takes no arguments that are already sharded over a mesh.
    Images that do not divide over the data axis, and candidates that do not divide over the candidate axis, are padded
    with zeros. Take gradients outside; inside, `jax.grad` would see the share of one device.

    Args:
      function: `(candidates [b, r, ...], images [b, ...], weights) -> (results [b, r, ...], statistics)`, for any
        b and r. Each result depends on its own candidate and image alone. BatchNorm may also learn from the
        batch and return new statistics, which must be the same on all devices.
      mesh: the devices.

    Returns:
      The function for `candidates [B, R, ...]`, `images [B, ...]` and `weights`, each a tree of arrays.
    """
    rows, columns = mesh.shape[DATA], mesh.shape[CANDIDATE]
    if rows * columns == 1:
        return function

    def on_one_device(candidates, images, weights, counted):
        # Marks the weights as different on each device, so that each has its own gradient; shard_map sums them.
        weights = jax.tree.map(lambda x: jax.lax.pcast(x, (DATA, CANDIDATE), to='varying'), weights)
        with shared_statistics((DATA, CANDIDATE), counted.ravel()):
            results, statistics = function(candidates, images, weights)
        return results, jax.lax.pmean(statistics, (DATA, CANDIDATE))  # equal on all, which the compiler cannot know

    def mapped(candidates, images, weights):
        batch, count = jax.tree.leaves(candidates)[0].shape[:2]
        padded_batch, padded_count = rows * -(-batch // rows), columns * -(-count // columns)
        pad = lambda tree, *sizes: jax.tree.map(lambda x: _pad(x, sizes), tree)
        results, statistics = jax.shard_map(
            on_one_device,
            mesh=mesh,
            in_specs=(
                PartitionSpec(DATA, CANDIDATE),
                PartitionSpec(DATA),
                PartitionSpec(),
                PartitionSpec(DATA, CANDIDATE),
            ),
            out_specs=(PartitionSpec(DATA, CANDIDATE), PartitionSpec()),
        )(
            pad(candidates, padded_batch, padded_count),
            pad(images, padded_batch),
            weights,
            _pad(jnp.ones((batch, count)), (padded_batch, padded_count)),
        )
        # The layers that follow need all candidates of an image together.
        return constrain_batch(jax.tree.map(lambda x: x[:batch, :count], results), mesh), statistics

    return mapped


def _pad(x: jax.Array, sizes: Sequence[int]) -> jax.Array:
    """Appends zeros to the leading axes, up to these sizes."""
    return jnp.pad(x, [(0, size - old) for old, size in zip(x.shape, sizes)] + [(0, 0)] * (x.ndim - len(sizes)))
