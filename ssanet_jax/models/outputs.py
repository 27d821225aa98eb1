"""The results of the two halves of SSANet: the features of the parts, and the logits of the classifiers."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ssanet_jax.models.heads import Regions


class PartFeatures(NamedTuple):
    """The inputs of the classifiers: the result of `SSANet.extract_features` for a batch.

    A field is None if no active group needs it. The features depend on the backbone, the proposals and (through the
    choice of scales) scale mining, and on no other group: while these are frozen, the features can be cached
    (`training/feature_cache.py`).
    """

    image: jax.Array  # [B, C], averaged feature map of the image; longer with covariances or the class token
    scores: jax.Array | None = None  # [B, M], scores of the proposals, best first
    boxes: jax.Array | None = None  # [B, M, 4], the proposals; the first K are the parts
    present: jax.Array | None = None  # bool [B, K], whether the part is to be seen (prototypes only)
    phi: jax.Array | None = None  # [B, K, S, D], features of the candidates of each part (Eq. 6)
    aligned_boxes: jax.Array | None = None  # [B, K, 4], the parts at the scale selected by scale mining
    aligned_scale: jax.Array | None = None  # int32 [B, K], index of that scale
    aligned_maps: jax.Array | None = None  # [B, K, 7, 7, C], maps of the aligned boxes, for oriented pooling
    regions: Regions | None = None  # for a baseline head
    pooled: jax.Array | None = None  # [B, M, C], averaged map of each proposal (training only)
    image_orientation: jax.Array | None = None  # int32 [B], from which the image was turned upright (`upright.py`)

    def part_vectors(self) -> jax.Array:
        """`[B, K, D]`, the average of each part's map at the chosen scale; K = 0 without parts."""
        if self.phi is not None and self.aligned_scale is not None:
            return jnp.take_along_axis(self.phi, self.aligned_scale[..., None, None], axis=2)[:, :, 0]
        if self.aligned_maps is not None:
            return self.aligned_maps.mean((2, 3))
        if self.regions is not None:
            return self.regions.maps.mean((2, 3))
        return self.image[:, None, :][:, :0]


class Outputs(NamedTuple):
    """The result of SSANet for a batch. A field is None if the group that computes it is not active."""

    image_logits: jax.Array  # [B, N], image classifier (an auxiliary loss)
    scores: jax.Array | None = None  # [B, M], scores of the proposals, best first
    boxes: jax.Array | None = None  # [B, M, 4], the proposals; the first K are the parts
    present: jax.Array | None = None  # bool [B, K], whether the part is to be seen (prototypes only)
    part_features: jax.Array | None = None  # [B, M, C], averaged map of each proposal (training only)
    part_logits: jax.Array | None = None  # [B, M, N], part classifier (training only)
    aligned_boxes: jax.Array | None = None  # [B, K, 4], the parts at the scale selected by scale mining
    aligned_scale: jax.Array | None = None  # int32 [B, K], index of that scale
    scale_logits: jax.Array | None = None  # [B, N], scale mining, summed over parts
    orientation: jax.Array | None = None  # int32 [B, K], orientation selected by oriented pooling
    oriented_logits: jax.Array | None = None  # [B, N], oriented pooling, summed over parts
    head_logits: jax.Array | None = None  # [B, N], a baseline head
    global_logits: jax.Array | None = None  # [B, N], `image_logits` if fusion is 'global+parts'
    image_angle: jax.Array | None = None  # [B], degrees, clockwise, by which the image was turned upright

    @property
    def logits(self) -> jax.Array:
        """The prediction `[B, N]`: the sum of all active heads, or the image classifier if there is none."""
        heads = (self.scale_logits, self.oriented_logits, self.head_logits, self.global_logits)
        active = [head for head in heads if head is not None]
        if not active:
            return self.image_logits
        total: Any = sum(active)  # typed as if it could be sum's start, 0
        return total
