"""A stage that fits groups instead of training them by gradient descent: `stage(..., fit=True)`.

The backbone is frozen and each image passes through it a few times: prototypes are the clusters of feature maps
(`part_discovery.py`), and the classifiers are linear, so that L-BFGS finds their optimum (`linear_probe.py`). It takes
a few minutes on a laptop where gradient descent takes an hour, has no learning rate, and is the starting point of the
stages that tune the backbone.

Each classifier is fitted alone, so that none leans on another that reads the same training images. Their weights in
the sum come from held-out folds: a part that does not improve the sum gets the weight 0.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssanet_jax.activity import activity
from ssanet_jax.data.pipeline import list_unreadable
from ssanet_jax.data.preprocessing import boxes_of_view
from ssanet_jax.distributed import processes, sharding
from ssanet_jax.distributed.candidate_map import candidate_map
from ssanet_jax.evaluation.explanation import part_name
from ssanet_jax.models.groups import UPRIGHT, summed_classifiers
from ssanet_jax.models.prototypes import LocalFeatures, PrototypeParts, foreground
from ssanet_jax.models.ssanet import SSANet, merge_model, split_model
from ssanet_jax.models.standardize import StandardizedLinear, standardized
from ssanet_jax.runs.feature_index import INDEX_FILE, network_digest, write_index_once
from ssanet_jax.training.context import StageContext
from ssanet_jax.training.feature_indexing import index_rows
from ssanet_jax.training.feature_rows import FeatureRows, collect_rows
from ssanet_jax.training.held_out import keep_held_out
from ssanet_jax.training.linear_probe import (
    LinearClassifier,
    assign_folds,
    fit_softmax,
    fusion_weights,
    log_softmax,
    out_of_fold,
)
from ssanet_jax.training.part_discovery import MAX_IMAGES, NUM_FOLDS, cluster_cells, information, select_parts
from ssanet_jax.training.stages import FITTED_GROUPS
from ssanet_jax.training.time_left import FEATURES, ORIENTATIONS, PARTS
from ssanet_jax.training.upright_fit import fit_upright, orientation_features, set_weights

L2 = (0.01, 0.03, 0.1, 0.3)  # strengths of the penalty that are tried on the held-out folds
L2_COVARIANCE = (0.001, 0.003, *L2)  # for the longer vectors of covariance pooling
_CELLS_PER_IMAGE = 50
_HIDDEN_SHARE = 0.02  # of the training images, in which a part is taken to be hidden
_INDEX_ROWS = 1000  # of the index that are written at a time


def fit_groups(context: StageContext, params: Any, stats: Any) -> tuple[Any, Any]:
    """Fits the groups of a stage.

    Args:
      context: the stage; its `epochs` is the number of augmented views of each image that classifiers are fitted to.
      params: parameters by group.
      stats: BatchNorm statistics by group.

    Returns:
      The parameters and the statistics with those of the fitted groups.
    """
    graph, _, _ = split_model(nnx.view(context.model, use_running_average=True, raise_if_not_found=False))
    model = merge_model(graph, *sharding.to_host((params, stats)))  # with `shard_heads`, they are split over processes
    groups = context.stage.train
    heads = [group for group in FITTED_GROUPS if group in groups and group not in ('proposals', UPRIGHT)]
    finds_parts = isinstance(model.proposals, PrototypeParts) and 'proposals' in groups and model.num_parts > 1
    pooling = None if model.covariance is None or model.covariance.is_fitted or not heads else model.covariance
    if finds_parts or pooling is not None:
        seen = _collect_maps(context, model)
        if finds_parts:
            with activity(context.console, f'{context.stage.name}: choosing parts'):
                _choose_parts(context, model, seen)
        if pooling is not None:
            pooling.fit(_sample_cells(seen, np.random.default_rng(context.config.seed), foreground_only=False))
    if UPRIGHT in groups:
        _fit_upright(context, model)
    if heads:
        _fit_classifiers(context, model, heads)
    _, params, stats = split_model(model)
    return params, stats


def _collect_maps(context: StageContext, model: SSANet) -> FeatureRows:
    """The maps of training images and their foreground."""
    num_images = len(context.dataset.train)

    def maps(model: SSANet, images: jax.Array) -> dict[str, jax.Array]:
        feature_map = model.global_map(model.normalize(images))
        return {'map': feature_map.astype(jnp.float16), 'mask': foreground(feature_map)}

    return collect_rows(context, model, maps, min(MAX_IMAGES, num_images), PARTS)


def _sample_cells(seen: FeatureRows, rng: np.random.Generator, foreground_only: bool) -> np.ndarray:
    """Some cells of each map, `[n, C]`."""
    pairs = zip(seen.values['map'], seen.values['mask'])
    cells = [feature_map[mask if foreground_only else np.ones_like(mask)] for feature_map, mask in pairs]
    return np.concatenate([rng.permutation(each)[:_CELLS_PER_IMAGE] for each in cells])


def _choose_parts(context: StageContext, model: SSANet, seen: FeatureRows) -> None:
    """Sets the prototypes of a model, from the maps and the foreground of training images."""
    parts, seed = cast(PrototypeParts, model.proposals), context.config.seed
    cells = _sample_cells(seen, np.random.default_rng(seed), foreground_only=True)
    clusters = cluster_cells(cells, len(parts.prototypes[...]), seed)
    parts.mean.set_value(jnp.asarray(clusters.mean))
    parts.projection.set_value(jnp.asarray(clusters.projection))
    parts.prototypes.set_value(jnp.asarray(clusters.prototypes))

    graph, state = nnx.split(parts)

    @jax.jit
    def read(feature_map: jax.Array) -> LocalFeatures:
        return nnx.merge(graph, state).local_features(feature_map)

    batch_size = context.config.data.batch_size
    batches = [seen.values['map'][start : start + batch_size] for start in range(0, len(seen.labels), batch_size)]
    found = [jax.device_get(read(batch)) for batch in batches]
    features, places, scores = (np.concatenate(each) for each in zip(*found))
    num_classes = len(context.dataset.class_names)
    accuracy = information(features, seen.labels, num_classes, l2=0.2, seed=seed)
    stride = model.backbone.stride * model.image_size / model.global_size
    part_cells = parts.part_size * model.image_size / stride
    chosen = select_parts(accuracy, places, model.num_parts - 1, part_cells)
    others = [index for index in range(len(accuracy)) if index not in chosen]
    parts.prototypes.set_value(jnp.asarray(clusters.prototypes[chosen + others]))
    parts.threshold.set_value(jnp.asarray(np.quantile(scores[:, chosen], _HIDDEN_SHARE, axis=0), jnp.float32))
    listed = ', '.join(f'{100 * accuracy[index]:.0f}' for index in chosen)
    context.print(f'parts of {len(accuracy)} prototypes, by what their cells alone say about the class: {listed} %')


def _fit_upright(context: StageContext, model: SSANet) -> None:
    """Sets the weights by which images are turned upright. Training images are taken to be upright."""
    assert model.upright is not None

    def read(model: SSANet, images: jax.Array) -> dict[str, jax.Array]:
        assert model.upright is not None
        features = orientation_features(model.upright, model.backbone, model.normalize(images))
        return {'orientations': features.astype(jnp.float16)}

    rows = collect_rows(context, model, read, len(context.dataset.train), ORIENTATIONS)
    set_weights(model.upright, fit_upright(rows.values['orientations']))


def _fit_classifiers(context: StageContext, model: SSANet, heads: list[str]) -> None:
    """Sets the weights of classifiers, and their share in the sum."""
    active = context.active - {UPRIGHT}  # training images are upright

    def read(model: SSANet, images: jax.Array) -> dict[str, jax.Array]:
        features = model.extract_features(
            images,
            active=active,
            training='part_classifier' in heads,
            map_candidates=partial(candidate_map, mesh=context.mesh),
        )
        found = {'image': features.image, 'phi': features.phi, 'pooled': features.pooled}
        if features.phi is None:
            found['parts'] = features.part_vectors()
        found = {name: value.astype(jnp.float16) for name, value in found.items() if value is not None}
        located = {'boxes': features.aligned_boxes, 'present': features.present}
        return found | {name: value for name, value in located.items() if value is not None}

    count = context.stage.epochs * len(context.dataset.train)
    rows = collect_rows(context, model, read, count, FEATURES)
    for problem in list_unreadable(context.dataset.train, processes.gather_distinct(rows.unreadable)):
        context.print(f'skipped: {problem}')
    with activity(context.console, f'{context.stage.name}: fitting classifiers'):
        _fit_to_rows(context, model, heads, rows, active)
    _write_index(context, model, rows)


def _fit_to_rows(
    context: StageContext, model: SSANet, heads: list[str], rows: FeatureRows, active: frozenset[str]
) -> None:
    """Sets the weights of classifiers by features of the training images."""
    num_classes = len(context.dataset.class_names)
    if 'part_classifier' in heads:
        # All parts share one classifier, which no prediction reads: it only trains the prototypes.
        classifier = cast(StandardizedLinear, model.part_classifier)
        pooled = rows.values['pooled']  # [n, K, C]
        repeated = np.repeat(rows.labels, pooled.shape[1])
        flat = pooled.reshape(-1, pooled.shape[-1]).astype(np.float32)
        classifier.standardize.fit(flat)
        _set_linear(classifier, fit_softmax(standardized(flat), repeated, num_classes, l2=0.3))

    inputs = []  # one [n, D] for each linear classifier
    if 'image_classifier' in heads:
        cast(StandardizedLinear, model.image_classifier).standardize.fit(rows.values['image'])
        inputs.append(rows.values['image'])
    if 'scale_mining' in heads:
        phi = rows.values['phi']  # [n, K, 1, D]
        assert model.scale_mining.standardize is not None
        model.scale_mining.standardize.fit(phi)
        inputs += list(np.moveaxis(phi[:, :, 0], 1, 0))
    if not inputs:
        return
    folds = assign_folds(_labels_of_images(rows), NUM_FOLDS, context.config.seed)[rows.images]
    features = [standardized(each) for each in inputs]
    strengths = L2 if model.covariance is None else L2_COVARIANCE
    l2 = _choose_l2(features[0], rows.labels, num_classes, folds, strengths)
    scores = np.stack([out_of_fold(each, rows.labels, num_classes, folds, l2=l2) for each in features])  # [H, n, N]
    accuracy = 100 * (scores.argmax(-1) == rows.labels).mean(-1)
    names = [part_name(part, has_object=model.proposal != 'ranking') for part in range(model.num_parts)]
    names = ['image'] * ('image_classifier' in heads) + names
    said = [f'{name} {a:.1f} %' for name, a in zip(names, accuracy)]
    # The others share the sum, so that an image classifier outside it has no part in their weights.
    summed = summed_classifiers(model.fusion, active)
    first = int('image_classifier' in heads and 'image_classifier' not in summed)
    shares = np.ones(len(scores), np.float32)
    fused = None
    if first < len(scores):
        shares[first:] = fusion_weights(scores[first:], rows.labels, len(np.unique(rows.images)))
        fused = np.tensordot(shares[first:], scores[first:], 1)  # [n, N]
        said[first:] = [f'{each} (weight {share:.2f})' for each, share in zip(said[first:], shares[first:])]
    if first:
        said[0] += ' (not in the sum)'
    together = '' if fused is None else f'; together {100 * (fused.argmax(1) == rows.labels).mean():.1f} %'
    context.print(f'on {NUM_FOLDS} held-out folds of the training images: {", ".join(said)}{together}')
    if fused is not None and summed <= set(heads):  # else the prediction sums another one, which has seen all images
        _write_held_out(context, rows, fused)

    classifiers = [
        LinearClassifier(share * kernel, share * bias)
        for share, (kernel, bias) in zip(
            shares, (fit_softmax(each, rows.labels, num_classes, l2=l2) for each in features), strict=True
        )
    ]
    if 'image_classifier' in heads:
        _set_linear(cast(StandardizedLinear, model.image_classifier), classifiers.pop(0))
    if 'scale_mining' in heads:
        kernels = np.stack([each.kernel.T[:, None] for each in classifiers])  # [K, N, 1, D]
        cast(nnx.Param, model.scale_mining.weights).set_value(jnp.asarray(kernels))
        model.scale_mining.bias.set_value(jnp.asarray(sum(each.bias for each in classifiers)))


def _write_index(context: StageContext, model: SSANet, rows: FeatureRows) -> None:
    """Keeps the features of one view of each training image."""
    _, first = np.unique(rows.images, return_index=True)
    parts = rows.values['phi'][:, :, 0] if 'phi' in rows.values else rows.values['parts']

    def batches() -> Iterator[tuple[np.ndarray, list[str]]]:
        for start in range(0, len(first), _INDEX_ROWS):
            chosen = first[start : start + _INDEX_ROWS]
            boxes = np.zeros((len(chosen), 0, 4), np.float32)
            if 'boxes' in rows.values:
                boxes = boxes_of_view(rows.values['boxes'][chosen], rows.views[chosen], model.image_size)
            yield index_rows(
                context.dataset.train,
                rows.images[chosen],
                rows.values['image'][chosen],
                parts[chosen],
                boxes,
                rows.values['present'][chosen] if 'present' in rows.values else None,
            )

    network = network_digest(*split_model(model)[1:])
    write_index_once(context.directory / INDEX_FILE, context.stage.name, network, batches())


def _write_held_out(context: StageContext, rows: FeatureRows, log_probabilities: np.ndarray) -> None:
    """Keeps what classifiers predict for one view of each training image by which they were not fitted."""
    _, first = np.unique(rows.images, return_index=True)
    keep_held_out(
        context.directory, log_softmax(log_probabilities[first]), rows.labels[first], rows.images[first], 'train'
    )


def _choose_l2(
    features: np.ndarray, labels: np.ndarray, num_classes: int, folds: np.ndarray, strengths: Sequence[float]
) -> float:
    """The penalty with the lowest cross-entropy on the first fold."""
    held_out = folds == folds.min()

    def score(l2: float) -> float:
        classifier = fit_softmax(features, labels, num_classes, l2=l2, weights=~held_out)
        found = log_softmax(classifier.logits(features[held_out]))
        return float(found[np.arange(len(found)), labels[held_out]].mean())

    return max(strengths, key=score)


def _labels_of_images(rows: FeatureRows) -> np.ndarray:
    """The label of each training image; 0 for those that no row shows."""
    labels = np.zeros(int(rows.images.max()) + 1, np.int32)
    labels[rows.images] = rows.labels
    return labels


def _set_linear(module: StandardizedLinear, classifier: LinearClassifier) -> None:
    module.kernel.set_value(jnp.asarray(classifier.kernel))
    module.bias.set_value(jnp.asarray(classifier.bias))
