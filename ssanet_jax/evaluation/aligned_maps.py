"""What oriented pooling gets of an image: the maps of its parts at the chosen scale, and what it pools from them."""

from collections.abc import Collection, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from ssanet_jax.distributed import sharding
from ssanet_jax.distributed.candidate_map import candidate_map
from ssanet_jax.models.inference import optimize_for_inference
from ssanet_jax.models.oriented_pooling import oriented_features
from ssanet_jax.models.ssanet import SSANet, merge_model, split_model


class AlignedParts(NamedTuple):
    """The parts of B images."""

    maps: np.ndarray  # float32 [B, K, 7, 7, C], at the scale that scale mining chose
    pooled: np.ndarray  # float32 [B, K, 4, L], in the order of `oriented_features`
    orientation: np.ndarray  # int32 [B, K], the one chosen for the predicted class
    boxes: np.ndarray  # float32 [B, K, 4], at the chosen scale, pixels of the input


class AlignedMaps:
    """A trained network as a function from images to `AlignedParts`.

    Args:
      model: the network.
      active: the groups that take part. Oriented pooling need not be among them: then the maps are those that it
        would get, and the orientations mean nothing.
      batch_size: images a compiled call, and the most a call takes; fewer are padded.
    """

    def __init__(self, model: SSANet, active: Collection[str], batch_size: int):
        mesh = sharding.make_mesh(jax.local_devices(), images=batch_size)
        graph, params, stats = split_model(optimize_for_inference(model))
        self._weights = sharding.replicate((params, stats), mesh)
        self._batch_size = batch_size

        @jax.jit
        def look(params, stats, images):
            network = merge_model(graph, params, stats)
            pooling, reads = network.oriented_pooling, {*active, 'oriented_pooling'}
            features = network.extract_features(
                sharding.constrain_batch(images, mesh),
                active=reads,
                map_candidates=partial(candidate_map, mesh=mesh),
            )
            outputs = network.classify(features, active=reads)
            maps = features.aligned_maps
            pool = lambda x: oriented_features(x, pooling.patch, pooling.grid, pooling.orientation)
            pooled = jax.vmap(jax.vmap(pool))(maps)
            to_float = lambda x: x.astype('float32')
            return AlignedParts(to_float(maps), to_float(pooled), outputs.orientation, outputs.aligned_boxes)

        self._look = look

    def __call__(self, images: Sequence[np.ndarray]) -> AlignedParts:
        """Looks at uint8 images `[S, S, 3]` of the network's input size, at least one."""
        padded = np.stack([*images, *[images[-1]] * (self._batch_size - len(images))])
        parts = jax.device_get(self._look(*self._weights, padded))
        return AlignedParts(*(value[: len(images)] for value in parts))
