"""Where the arrays live: the device mesh and its shardings."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ssanet_jax.errors import UserError

DATA, CANDIDATE = 'data', 'candidate'


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh `('data', 'candidate')` over all devices, all of them on the data axis."""
    devices = np.array(jax.devices() if devices is None else devices)
    return Mesh(devices.reshape(-1, 1), (DATA, CANDIDATE), axis_types=(AxisType.Auto,) * 2)


def check_batch(batch_size: int, mesh: Mesh, name: str) -> None:
    """Raises `UserError` if a batch is empty or does not divide over the data axis."""
    if batch_size < 1:
        raise UserError(f'{name} = {batch_size}: a batch needs at least one image')
    count = mesh.shape[DATA]
    if batch_size % count:
        raise UserError(f'{name} = {batch_size} does not divide over {count} devices: make it a multiple of {count}')


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies a tree to every device of the mesh; the copy may be donated without harm to the original."""
    # By way of the host: on several devices `may_alias=False` does not keep the original out of the copy.
    return jax.device_put(jax.tree.map(np.array, tree), NamedSharding(mesh, PartitionSpec()))


def shard_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """A batch of this host -> device arrays, split over the data axis."""
    sharding = NamedSharding(mesh, PartitionSpec(DATA))
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}


def prefetch(
    batches: Iterable[dict[str, np.ndarray]], mesh: Mesh, names: Sequence[str], ahead: int = 2
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, jax.Array]]]:
    """Gives each batch together with its arrays `names` on the devices.

    The copies of the next `ahead` batches are under way while the devices work on this one.
    """
    queue = deque()
    for batch in batches:
        queue.append((batch, shard_batch({name: batch[name] for name in names}, mesh)))
        if len(queue) > ahead:
            yield queue.popleft()
    yield from queue
