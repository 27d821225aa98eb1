"""The prediction's logits taken apart: the share of each part, of the image, and of the biases."""

from collections.abc import Collection
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ssanet_jax.models.groups import PART_HEAD
from ssanet_jax.models.heads import ConcatHead
from ssanet_jax.models.outputs import Outputs, PartFeatures
from ssanet_jax.models.ssanet import SSANet


class PartLogits(NamedTuple):
    """Terms of the logits of a batch: those of the parts, summed, + image + bias == Outputs.logits."""

    parts: dict[str, jax.Array]  # [B, K, N] per head that reads parts: what each part adds
    image: jax.Array  # [B, N], what the image as a whole adds: 0 where only parts predict
    bias: jax.Array  # [N], the sum of the biases of the heads that read parts


def part_logits(model: SSANet, features: PartFeatures, outputs: Outputs, active: Collection[str]) -> PartLogits:
    """Takes the logits of a batch apart (Eq. 7 and 13 before their sums over parts).

    In one program with `classify` the compiler merges what both compute.

    Args:
      model: the network.
      features: from `extract_features`.
      outputs: what `classify` makes of them.
      active: the groups that take part.
    """
    parts, biases = {}, []
    if 'scale_mining' in active and features.phi is not None:
        parts['scale_mining'] = model.scale_mining.responses(features.phi.astype(jnp.float32)).max(-1)
        biases.append(model.scale_mining.bias[...])
    if 'oriented_pooling' in active and features.aligned_maps is not None:
        parts['oriented_pooling'] = model.oriented_pooling.responses(features.aligned_maps).max(2)
        biases.append(model.oriented_pooling.bias[...])
    if PART_HEAD in active and features.regions is not None and model.part_head is not None:
        parts[PART_HEAD] = model.part_head.part_logits(features.regions)
        biases.append(model.part_head.bias[...])
    bias = jnp.asarray(sum(biases)) if biases else jnp.zeros(outputs.logits.shape[1])
    # The rest is the image classifier's, or the image's share in the head of NTS-Net.
    reads_image = not parts or outputs.global_logits is not None or isinstance(model.part_head, ConcatHead)
    rest = outputs.logits - jnp.asarray(sum(terms.sum(1) for terms in parts.values())) - bias
    return PartLogits(parts, rest if reads_image else jnp.zeros_like(rest), bias)
