"""Where the arrays live: the device mesh and its shardings."""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ssanet_jax.errors import UserError
from ssanet_jax.models.backbones.batch_norm import shared_statistics

T = TypeVar('T')

DATA, CANDIDATE = 'data', 'candidate'
AUTO = 'auto'
HEADS = ('scale_mining', 'oriented_pooling')  # groups whose weights grow with the number of classes


def make_mesh(devices: Sequence[jax.Device] | None = None, shape: str = AUTO, images: int | None = None) -> Mesh:
    """The devices as a mesh `('data', 'candidate')`.

    Args:
      devices: all of them if not given.
      shape: such as '4x2': 4 devices on the data axis times 2 on the candidate axis. 'auto' gives the data
        axis as many devices as there are images; what is left over shares the candidates of each image.
      images: in a batch; as many as there are devices if not given.

    Raises:
      UserError: the shape is no shape, is not of these devices, or parts a process from its images.
    """
    # Together by process: on a TPU slice their own order may go along the rows of chips, over several hosts.
    devices = sorted(jax.devices() if devices is None else devices, key=lambda device: device.process_index)
    data, candidate = _mesh_shape(devices, shape, images)
    return Mesh(np.array(devices).reshape(data, candidate), (DATA, CANDIDATE), axis_types=(AxisType.Auto,) * 2)


def _mesh_shape(devices: Sequence[jax.Device], shape: str, images: int | None) -> tuple[int, int]:
    count, hosts = len(devices), len({device.process_index for device in devices})
    if shape == AUTO:
        fits = [n for n in range(hosts, count + 1, hosts) if count % n == 0 and n <= (images or count)]
        data = max(fits, default=hosts)
        return data, count // data
    match = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)', shape)
    if not match:
        raise UserError(f"config.mesh.shape={shape}: give {AUTO}, or devices for data x candidates such as '4x2'")
    data, candidate = int(match[1]), int(match[2])
    if data * candidate != count:
        raise UserError(f'config.mesh.shape={shape} is {data * candidate} devices, and there are {count}')
    if data % hosts:
        raise UserError(
            f'config.mesh.shape={shape}: {hosts} processes cannot share the candidates of an image; '
            f'make the first number a multiple of {hosts}'
        )
    return data, candidate


def check_batch(batch_size: int, mesh: Mesh, name: str, hosts: int | None = None) -> None:
    """Raises `UserError` for an empty batch, or one that several processes (by default, those of now) cannot share."""
    if batch_size < 1:
        raise UserError(f'{name} = {batch_size}: a batch needs at least one image')
    count = mesh.shape[DATA]
    if (hosts or jax.process_count()) > 1 and batch_size % count:
        raise UserError(f'{name} = {batch_size} does not divide over {count} devices: make it a multiple of {count}')


def candidate_map(function: Callable[..., tuple[Any, Any]], mesh: Mesh) -> Callable[..., tuple[Any, Any]]:
    """Maps a function over candidates, which the devices of the mesh share.

    What `jax.pmap` over the candidates gives (the paper's "in parallel"), within a larger `jit` program: on
    `jax.shard_map`, since `pmap` takes no arguments that are spread over a mesh already. Images that do not
    divide over the data axis, or candidates over the candidate axis, are padded with zeros. The gradient is
    to be taken outside; inside, `jax.grad` would see one device's share.

    Args:
      function: `(candidates [b, r, ...], images [b, ...], weights) -> (results [b, r, ...], statistics)`, for any
        b and r; each result depends on its own candidate and image alone. BatchNorm may also learn from the
        batch, and gives new statistics; they must be the same on all devices.
      mesh: the devices.

    Returns:
      The function for `candidates [B, R, ...]`, `images [B, ...]` and `weights`, each a tree of arrays.
    """
    rows, columns = mesh.shape[DATA], mesh.shape[CANDIDATE]
    if rows * columns == 1:
        return function

    def on_one_device(candidates, images, weights, counted):
        # Now each device may have a gradient of its own for the weights; outside they are added up.
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
        # What follows needs all candidates of an image together.
        return split_batch(jax.tree.map(lambda x: x[:batch, :count], results), mesh), statistics

    return mapped


def _pad(x: jax.Array, sizes: Sequence[int]) -> jax.Array:
    """Zeros behind the leading axes, up to these sizes."""
    return jnp.pad(x, [(0, size - old) for old, size in zip(x.shape, sizes)] + [(0, 0)] * (x.ndim - len(sizes)))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies a tree to every device of the mesh; the copy may be donated without harm to the original."""
    return place(tree, mesh, shard_heads=False)


def place(tree: Any, mesh: Mesh, shard_heads: bool) -> Any:
    """As `replicate`, with the heads of a network or its optimiser over the data axis where asked for."""
    # By way of the host: on several devices `may_alias=False` does not keep the original out of the copy.
    tree = jax.tree.map(np.array, tree)
    return jax.device_put(tree, shardings(tree, mesh, shard_heads))


def shardings(tree: Any, mesh: Mesh, shard_heads: bool) -> Any:
    """Where each array of a training state lives.

    Args:
      tree: parameters `{group: tree}`, or whatever holds such trees (optimiser, state).
      mesh: the devices.
      shard_heads: DSM and OP have weights for every class, and hold most of what a network of thousands of
        classes holds. True gives each device of the data axis a slice of them, cut where it divides.

    Returns:
      A tree of `NamedSharding`; what is not spread is on every device.
    """

    def sharding(path, leaf):
        heads = shard_heads and any(getattr(key, 'key', None) in HEADS for key in path)
        cuts = [axis for axis, size in enumerate(np.shape(leaf)) if size % mesh.shape[DATA] == 0]
        if not heads or not cuts:
            return NamedSharding(mesh, PartitionSpec())
        longest = max(cuts, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*(None,) * longest, DATA))

    return jax.tree_util.tree_map_with_path(sharding, tree)


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """A tree of this host's arrays -> device arrays, split over the data axis; whole on each if it does not divide."""
    even = all(len(value) * jax.process_count() % mesh.shape[DATA] == 0 for value in jax.tree.leaves(batch))
    sharding = NamedSharding(mesh, PartitionSpec(DATA) if even else PartitionSpec())
    return jax.tree.map(lambda value: jax.make_array_from_process_local_data(sharding, value), batch)


def split_batch(batch: Any, mesh: Mesh) -> Any:
    """Within a program: each device works on its images, some on one less where the batch does not divide."""
    return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec(DATA)))


def prefetch(
    batches: Iterable[dict[str, Any]], mesh: Mesh, names: Sequence[str], ahead: int = 2
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Gives each batch together with its arrays `names` on the devices.

    The copies of the next `ahead` batches are under way while the devices work on this one.
    """
    return look_ahead(((batch, shard_batch({name: batch[name] for name in names}, mesh)) for batch in batches), ahead)


def look_ahead(items: Iterable[T], ahead: int) -> Iterator[T]:
    """The same items, each when the next `ahead` have been asked for: what their making began goes on meanwhile."""
    queue = deque()
    for item in items:
        queue.append(item)
        if len(queue) > ahead:
            yield queue.popleft()
    yield from queue


def device_kind() -> str:
    """What the run ran on, for its results: '2 x cpu' or '8 x NVIDIA H100'."""
    devices = jax.devices()
    return f'{len(devices)} x {devices[0].device_kind}'
