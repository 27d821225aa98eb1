"""Computes the features of augmented views of the training images, for stages with `fit=True`."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from ssanet_jax.data.pipeline import num_steps, train_batches
from ssanet_jax.distributed import processes, sharding
from ssanet_jax.image_progress import ImageProgress
from ssanet_jax.models.inference import optimize_for_inference
from ssanet_jax.models.ssanet import SSANet, merge_model, split_model
from ssanet_jax.training.context import StageContext

Extract = Callable[[SSANet, jax.Array], dict[str, jax.Array]]


class FeatureRows(NamedTuple):
    """Features of augmented views of the training images, the same rows in every process."""

    values: dict[str, np.ndarray]  # each [n, ...]
    labels: np.ndarray  # int32 [n]
    images: np.ndarray  # int32 [n], position of the image in the training set
    views: np.ndarray  # float32 [n, 4], the part of the image that the view shows (`transforms.RandomCropFlip`)
    unreadable: frozenset[int]  # positions of the images that could not be read, of this process


def collect_rows(context: StageContext, model: SSANet, extract: Extract, count: int, task: str) -> FeatureRows:
    """Computes the features of the first augmented views that training would read.

    Args:
      context: the stage.
      model: the network.
      extract: (model, images uint8 `[B, H, W, 3]`) -> features by name, each `[B, ...]`.
      count: number of views. A count above the number of images begins further epochs, with other views.
      task: what this is for, one of the names in `time_left.py`.

    Returns:
      One row per view, n = `count`, in the order in which training would read them. An image that cannot be read is
      replaced by the next readable one, and its position is in `unreadable`.
    """
    batches = list(_batches(context, model, extract, count, task))
    values = {name: np.concatenate([batch.values[name] for batch in batches]) for name in batches[0].values}
    joined = lambda name: np.concatenate([getattr(batch, name) for batch in batches])
    facts = {name: joined(name) for name in ('labels', 'images', 'views')}
    return FeatureRows(values, **facts, unreadable=frozenset().union(*(batch.unreadable for batch in batches)))


def _batches(context: StageContext, model: SSANet, extract: Extract, count: int, task: str) -> Iterator[FeatureRows]:
    """The rows of `collect_rows`, batch by batch."""
    data, source = context.config.data, context.dataset.train
    context.print(f'{task}: {count} views of {len(source)} images')
    label = f'{context.stage.name}: {task}'
    with ImageProgress(context.console, count, task=label, later=context.views_after(task)) as progress:
        graph, params, stats = split_model(optimize_for_inference(model))
        params, stats = sharding.replicate((params, stats), context.mesh)

        @jax.jit
        def call(params, stats, images):
            images = sharding.constrain_batch(images, context.mesh)
            found = extract(merge_model(graph, params, stats), images)
            return jax.lax.with_sharding_constraint(found, NamedSharding(context.mesh, PartitionSpec()))  # for the host

        epochs = -(-count // len(source))
        batches = train_batches(source, data, seed=context.seed, epochs=epochs, process=processes.current())
        on_devices = sharding.prefetch_to_device(batches, context.mesh, ('image',))
        steps = min(-(-count // data.batch_size), num_steps(epochs, len(source), data.batch_size))
        left = count
        for number, (batch, images) in zip(range(steps), on_devices):
            if not number:
                processes.compile_together(call, params, stats, images['image'])
            found = jax.device_get(call(params, stats, images['image']))
            facts = (_gather_rows(batch[name]) for name in ('label', 'index', 'view'))
            labels, indices, views = map(_in_reading_order, facts)
            size = min(left, len(labels))
            left -= size
            progress.advance(size)
            unreadable = frozenset(batch['skipped'][batch['skipped'] >= 0].tolist())
            values = {name: _in_reading_order(value)[:size] for name, value in found.items()}
            yield FeatureRows(values, labels[:size], indices[:size], views[:size], unreadable)


def _gather_rows(rows: np.ndarray) -> np.ndarray:
    """The rows of all processes, in the order of the batch on the devices."""
    if processes.current().count == 1:
        return rows
    return np.asarray(multihost_utils.process_allgather(rows, tiled=True))


def _in_reading_order(rows: np.ndarray) -> np.ndarray:
    """Rows that come process by process, in the order in which a single process reads them.

    Process p of P reads every P-th example, from the p-th. So a batch that is cut short loses the same rows with any
    number of processes.
    """
    return rows[np.arange(len(rows)).reshape(processes.current().count, -1).T.reshape(-1)]
