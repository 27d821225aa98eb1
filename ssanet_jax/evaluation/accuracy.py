"""Accuracy over a whole set; every image is counted exactly once."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from ssanet_jax.distributed import processes, sharding
from ssanet_jax.distributed.candidate_map import candidate_map
from ssanet_jax.models.groups import PART_HEAD
from ssanet_jax.models.outputs import Outputs
from ssanet_jax.models.ssanet import SSANet, merge_model, split_model

HEADS = ('image_classifier', 'scale_mining', 'oriented_pooling', PART_HEAD, 'sum')


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
      accuracy: accuracy of the prediction, the sum of the fused heads.
      examples: number of images.
      heads: accuracy of each head.
      unreadable: positions of the images that could not be read; they count as wrong.
    """

    accuracy: float
    examples: int
    heads: dict[Any, float]
    unreadable: list[int]


def make_predict(model: SSANet, active: Collection[str], mesh: Mesh) -> Callable[..., Outputs]:
    """Makes a compiled function `(params, stats, images) -> Outputs` that uses the running statistics of BatchNorm.

    Args:
      model: provides the structure; the weights are passed with each call, as `split_model` returns them.
      active: the groups that contribute to the outputs.
      mesh: the devices; those along its candidate axis share the regions of each image.
    """
    graph, _, _ = split_model(nnx.view(model, use_running_average=True, raise_if_not_found=False))

    @jax.jit
    def predict(params, stats, images):
        images = sharding.constrain_batch(images, mesh)
        return merge_model(graph, params, stats)(
            images, active=active, map_candidates=partial(candidate_map, mesh=mesh)
        )

    return predict


def head_logits(outputs: Outputs) -> dict[str, jax.Array]:
    """Logits `[B, N]` of each active head, and of their sum, the prediction."""
    heads = (outputs.image_logits, outputs.scale_logits, outputs.oriented_logits, outputs.head_logits, outputs.logits)
    return {name: logits for name, logits in zip(HEADS, heads) if logits is not None}


def make_count_correct(model: SSANet, active: Collection[str], mesh: Mesh) -> Callable[..., dict[str, jax.Array]]:
    """Makes a compiled function `(params, stats, batch) -> {head: correct predictions, 'examples': images}`.

    Masked images are not counted. An unreadable image counts as wrong, whatever is predicted for the black image in
    its place.
    """
    predict = make_predict(model, active, mesh)

    @jax.jit
    def count(params, stats, batch):
        logits = head_logits(predict(params, stats, batch['image']))
        readable = batch['mask'] & (batch['skipped'] < 0)
        correct = {name: (value.argmax(-1) == batch['label']) & readable for name, value in logits.items()}
        return {name: jnp.sum(value) for name, value in {**correct, 'examples': batch['mask']}.items()}

    return count


def evaluate(
    count_correct: Callable[..., Mapping[Any, jax.Array]],
    params: dict[str, Any],
    stats: dict[str, Any],
    batches: Iterable[dict[str, np.ndarray]],
    mesh: Mesh,
) -> Evaluation:
    """Computes the accuracy of each head over `batches`.

    Args:
      count_correct: from `make_count_correct`. With several processes it must be a `jax.jit` function.
      params, stats: the model's parameters and statistics, on the devices of the mesh.
      batches: from `pipeline.eval_batches`.
      mesh: the devices.
    """
    counts: dict[Any, Any] = {}
    unreadable: list[int] = []
    for batch, on_device in sharding.prefetch_to_device(batches, mesh, ('image', 'label', 'index', 'mask', 'skipped')):
        if not counts:
            processes.compile_together(count_correct, params, stats, on_device)  # pyright: ignore[reportArgumentType]
        new = count_correct(params, stats, on_device)
        counts = {name: counts.get(name, 0) + value for name, value in new.items()}
        unreadable += batch['skipped'][(batch['skipped'] >= 0) & batch['mask']].tolist()
    examples = int(counts.pop('examples'))
    heads = {name: int(value) / examples for name, value in counts.items()}
    return Evaluation(
        accuracy=heads.pop('sum'), examples=examples, heads=heads, unreadable=processes.gather_distinct(unreadable)
    )
