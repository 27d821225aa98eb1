"""What the network hands on: a features of a batch, and what its classifiers say of it."""

from typing import NamedTuple

import jax

from ssanet_jax.models.heads import Regions


class Outputs(NamedTuple):
    """What the network says of a batch; None where the group it needs is not active."""

    image_logits: jax.Array  # [B, N], the image-level classifier (an auxiliary loss)
    scores: jax.Array | None = None  # [B, M], of the proposals
    boxes: jax.Array | None = None  # [B, M, 4], proposals, best first; the first K are the parts
    part_features: jax.Array | None = None  # [B, M, C], pooled over each proposal
    part_logits: jax.Array | None = None  # [B, M, N], the part classifier on each proposal (training only)
    aligned_boxes: jax.Array | None = None  # [B, K, 4], the parts at the scale that DSM chose
    aligned_scale: jax.Array | None = None  # int32 [B, K], index of that scale
    scale_logits: jax.Array | None = None  # [B, N], DSM summed over parts
    orientation: jax.Array | None = None  # int32 [B, K], orientation that OP chose
    oriented_logits: jax.Array | None = None  # [B, N], OP summed over parts
    head_logits: jax.Array | None = None  # [B, N], a baseline's head
    global_logits: jax.Array | None = None  # [B, N], image_logits where they are fused with the parts

    @property
    def logits(self) -> jax.Array:
        """The prediction `[B, N]`: the sum of DSM and OP, whichever is active; without any, the image classifier."""
        heads = (self.scale_logits, self.oriented_logits, self.head_logits, self.global_logits)
        heads = [head for head in heads if head is not None]
        return sum(heads) if heads else self.image_logits


class PartFeatures(NamedTuple):
    """What the classifiers read of a batch; None where no group that is active asks for it.

    It depends on the backbone, the proposals and, through the choice of scales, on DSM, and on no other group:
    while these are frozen it may be kept (`training/feature_cache.py`).
    """

    image: jax.Array  # [B, C], the map of the image, averaged
    scores: jax.Array | None = None  # [B, M], of the proposals
    boxes: jax.Array | None = None  # [B, M, 4], proposals, best first; the first K are the parts
    phi: jax.Array | None = None  # [B, K, S, D], of the candidates of each part (Eq. 6)
    aligned_boxes: jax.Array | None = None  # [B, K, 4], the parts at the scale that DSM chose
    aligned_scale: jax.Array | None = None  # int32 [B, K], index of that scale
    aligned_maps: jax.Array | None = None  # [B, K, 7, 7, C], for OP
    regions: Regions | None = None  # for a baseline's head
    pooled: jax.Array | None = None  # [B, M, C], for the part classifier (training only)
