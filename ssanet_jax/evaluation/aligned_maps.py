"""The inputs of oriented pooling: the maps of the parts at the chosen scale, and the features pooled from them."""

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

    maps: np.ndarray  # float32 [B, K, 7, 7, C], at the scale chosen by scale mining
    pooled: np.ndarray  # float32 [B, K, 4, L], in the order of `oriented_features`
    orientation: np.ndarray  # int32 [B, K], the orientation chosen for the predicted class
    boxes: np.ndarray  # float32 [B, K, 4], at the chosen scale, pixels of the input


class AlignedMaps:
    """A trained network as a function from images to `AlignedParts`.

    Args:
      model: the network.
      active: the active groups. Without oriented pooling among them, the maps are those that it would get, and the
        orientations are meaningless.
      batch_size: images per compiled call, and the most per call; fewer are padded.
    """

    def __init__(self, model: SSANet, active: Collection[str], batch_size: int):
        mesh = sharding.make_mesh(jax.local_devices(), images=batch_size)
        graph, params, stats = split_model(optimize_for_inference(model))
        self._weights = sharding.replicate((params, stats), mesh)
        self._batch_size = batch_size

        @jax.jit
        def extract(params, stats, images):
            network = merge_model(graph, params, stats)
            pooling, groups = network.oriented_pooling, {*active, 'oriented_pooling'}
            features = network.extract_features(
                sharding.constrain_batch(images, mesh),
                active=groups,
                map_candidates=partial(candidate_map, mesh=mesh),
            )
            outputs = network.classify(features, active=groups)
            maps = features.aligned_maps  # [B, K, 7, 7, C]
            assert maps is not None
            pool = lambda x: oriented_features(x, pooling.patch, pooling.grid, pooling.orientation)
            pooled = jax.vmap(jax.vmap(pool))(maps)  # [B, K, 4, L]
            return maps.astype('float32'), pooled.astype('float32'), outputs.orientation, outputs.aligned_boxes

        self._extract = extract

    def __call__(self, images: Sequence[np.ndarray]) -> AlignedParts:
        """Extracts the parts of uint8 images `[S, S, 3]` of the network's input size, at least one."""
        padded = np.stack([*images, *[images[-1]] * (self._batch_size - len(images))])
        parts = jax.device_get(self._extract(*self._weights, padded))
        return AlignedParts(*(value[: len(images)] for value in parts))
