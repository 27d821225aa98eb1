"""Accuracy over a whole set; every image is counted exactly once."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ssanet_jax.distributed import processes, sharding
from ssanet_jax.distributed.candidate_map import candidate_map
from ssanet_jax.models.groups import PART_HEAD
from ssanet_jax.models.outputs import Outputs
from ssanet_jax.models.ssanet import SSANet, merge_model, split_model
from ssanet_jax.runs.image_predictions import NO_CLASS, SUM, ImagePredictions

HEADS = ('image_classifier', 'scale_mining', 'oriented_pooling', PART_HEAD, SUM)


class HeadPredictions(NamedTuple):
    """What a head predicts for each image of a batch."""

    classes: jax.Array  # int [B]
    log_probabilities: jax.Array | None = None  # float32 [B], of the label; None if the classifier has none


Classify = Callable[..., Mapping[Any, HeadPredictions]]  # (params, stats, batch on the devices) -> {head: predictions}


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
      accuracy: accuracy of the prediction, the sum of the fused heads.
      examples: number of images.
      heads: accuracy of each head.
      unreadable: positions of the images that could not be read; they count as wrong.
      images: the predictions for every image.
    """

    accuracy: float
    examples: int
    heads: dict[Any, float]
    unreadable: list[int]
    images: ImagePredictions = field(compare=False, repr=False)


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


def make_classify(model: SSANet, active: Collection[str], mesh: Mesh) -> Classify:
    """Makes a compiled function `(params, stats, batch) -> {head: HeadPredictions}` with all heads and their sum."""
    predict = make_predict(model, active, mesh)

    @jax.jit
    def classify(params, stats, batch):
        logits = head_logits(predict(params, stats, batch['image']))
        return {name: _head_predictions(value, batch['label']) for name, value in logits.items()}

    return classify


def _head_predictions(logits: jax.Array, labels: jax.Array) -> HeadPredictions:
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))  # [B, N]
    return HeadPredictions(
        logits.argmax(-1).astype(jnp.int32), jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]
    )


def evaluate(
    classify: Classify,
    params: dict[str, Any],
    stats: dict[str, Any],
    batches: Iterable[dict[str, np.ndarray]],
    mesh: Mesh,
) -> Evaluation:
    """Computes the accuracy of each head over `batches`.

    Masked images are not counted. An unreadable image counts as wrong, whatever is predicted for the black image in
    its place.

    Args:
      classify: such as `make_classify` makes; its head `SUM` is the prediction. With several processes it must be a
        `jax.jit` function.
      params, stats: the model's parameters and statistics, on the devices of the mesh.
      batches: from `pipeline.eval_batches`.
      mesh: the devices.
    """
    facts = ('label', 'index', 'mask', 'skipped')
    gather = make_gather(mesh)
    names: list[Any] = []
    found: list[Any] = []
    for _, on_device in sharding.prefetch_to_device(batches, mesh, ('image', *facts)):
        if not found:
            processes.compile_together(classify, params, stats, on_device)
        predicted = classify(params, stats, on_device)
        names = list(predicted)
        results = list(predicted.values()), {name: on_device[name] for name in facts}
        if not found:
            processes.compile_together(gather, results)
        found.append(gather(results))
    predictions, batch = jax.tree.map(lambda *parts: np.concatenate(parts), *jax.device_get(found))
    images, positions = _in_order(dict(zip(names, predictions)), batch)
    accuracies = {name: float(images.correct(name).mean()) for name in images.classes}
    return Evaluation(
        accuracy=accuracies.pop(SUM),
        examples=len(images.labels),
        heads=accuracies,
        unreadable=positions[images.unreadable].tolist(),
        images=images,
    )


def make_gather(mesh: Mesh) -> Callable[[Any], Any]:
    """A function that brings the predictions of all processes to each of them; with one process, the identity."""
    if jax.process_count() == 1:
        return lambda tree: tree
    return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _in_order(predictions: Mapping[Any, Any], batch: Mapping[str, np.ndarray]) -> tuple[ImagePredictions, np.ndarray]:
    """Removes the padding and sorts by the position in the set.

    Args:
      predictions: `HeadPredictions` by head, of all batches.
      batch: their labels, indices, masks and unreadable images.

    Returns:
      The predictions, and the positions of the images in the set, int `[n]`.
    """
    order = np.flatnonzero(batch['mask'])
    order = order[np.argsort(batch['index'][order])]
    unreadable = batch['skipped'][order] >= 0
    images = ImagePredictions(
        labels=batch['label'][order],
        unreadable=unreadable,
        classes={
            name: np.where(unreadable, NO_CLASS, head.classes[order]).astype(np.int32)
            for name, head in predictions.items()
        },
        log_probabilities={
            name: np.where(unreadable, np.nan, head.log_probabilities[order]).astype(np.float32)
            for name, head in predictions.items()
            if head.log_probabilities is not None
        },
    )
    return images, batch['index'][order]
