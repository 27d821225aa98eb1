"""The device mesh, and the shardings of states and batches on it."""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ssanet_jax.errors import UserError

T = TypeVar('T')

DATA, CANDIDATE = 'data', 'candidate'
AUTO = 'auto'
SHARDED_GROUPS = ('scale_mining', 'oriented_pooling')  # their weights grow with the number of classes


def make_mesh(devices: Sequence[jax.Device] | None = None, shape: str = AUTO, images: int | None = None) -> Mesh:
    """Arranges devices as a mesh `('data', 'candidate')`.

    Args:
      devices: by default all devices.
      shape: such as '4x2': 4 devices on the data axis times 2 on the candidate axis. 'auto' gives the data
        axis up to one device per image; the other devices share the candidates of each image.
      images: images per batch; by default one per device.

    Raises:
      UserError: the shape is malformed, needs another number of devices, or spreads an image over several processes.
    """
    # Sorted by process: on a TPU slice the order of devices may run along rows of chips, across hosts.
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


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies a tree of arrays to every device of the mesh. The copy may be donated without harm to the original."""
    return shard_state(tree, mesh, shard_heads=False)


def shard_state(tree: Any, mesh: Mesh, shard_heads: bool) -> Any:
    """Copies a training state, or a part of it, to the devices as `state_shardings` says.

    As with `replicate`, the copy may be donated.
    """
    tree = to_host(tree)  # on several devices, `may_alias=False` does not keep the original out of the copy
    return jax.device_put(tree, state_shardings(tree, mesh, shard_heads))


def to_host(tree: Any) -> Any:
    """Copies a tree of arrays to this host, as NumPy arrays.

    Call it in all processes: the parts of an array that is split over them, as by `shard_state`, are gathered.
    """

    def copy(leaf):
        if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            return np.array(multihost_utils.process_allgather(leaf, tiled=True))
        return np.array(leaf)

    return jax.tree.map(copy, tree)


def state_shardings(tree: Any, mesh: Mesh, shard_heads: bool) -> Any:
    """The sharding of each array of a training state.

    Args:
      tree: parameters `{group: tree}`, or a tree that holds such parameters (optimizer state, training state).
      mesh: the devices.
      shard_heads: DSM and OP have weights for every class, which is most of a network of thousands of classes. True
        splits them over the data axis, along the longest dimension that it divides.

    Returns:
      A tree of `NamedSharding`. All other arrays are on every device.
    """

    def sharding(path, leaf):
        in_head = any(getattr(key, 'key', None) in SHARDED_GROUPS for key in path)
        divisible = [axis for axis, size in enumerate(np.shape(leaf)) if size % mesh.shape[DATA] == 0]
        if not (shard_heads and in_head and divisible):
            return NamedSharding(mesh, PartitionSpec())
        longest = max(divisible, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*(None,) * longest, DATA))

    return jax.tree_util.tree_map_with_path(sharding, tree)


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Copies a batch from this host to the devices.

    Args:
      batch: a tree of arrays `[b, ...]` with this process's share of the images.
      mesh: the devices.

    Returns:
      A tree of arrays `[B, ...]`, split over the data axis; whole on every device if B does not divide.
    """
    even = all(len(value) * jax.process_count() % mesh.shape[DATA] == 0 for value in jax.tree.leaves(batch))
    sharding = NamedSharding(mesh, PartitionSpec(DATA) if even else PartitionSpec())
    return jax.tree.map(lambda value: jax.make_array_from_process_local_data(sharding, value), batch)


def constrain_batch(batch: Any, mesh: Mesh) -> Any:
    """Splits a batch over the data axis, inside a compiled program; the shares may differ by one image."""
    return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec(DATA)))


def prefetch_to_device(
    batches: Iterable[dict[str, Any]], mesh: Mesh, names: Sequence[str], size: int = 2
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Copies batches to the devices ahead of their use.

    Args:
      batches: dictionaries of arrays on the host.
      mesh: the devices.
      names: the arrays to copy.
      size: number of batches whose copies are under way while the devices work on the current one.

    Yields:
      Each batch, and its named arrays on the devices.
    """
    copied = ((batch, shard_batch({name: batch[name] for name in names}, mesh)) for batch in batches)
    return buffered(copied, size)


def buffered(items: Iterable[T], size: int) -> Iterator[T]:
    """Yields the items in order, each after the next `size` have been requested, so that their work overlaps."""
    queue = deque()
    for item in items:
        queue.append(item)
        if len(queue) > size:
            yield queue.popleft()
    yield from queue


def device_kind() -> str:
    """The devices of a run, for its results: '2 x cpu' or '8 x NVIDIA H100'."""
    devices = jax.devices()
    return f'{len(devices)} x {devices[0].device_kind}'
