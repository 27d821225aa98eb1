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
    """Terms of the logits of a batch: `parts.sum(1) + image + bias == Outputs.logits`."""

    parts: jax.Array  # [B, K, N], what each part adds, summed over DSM, OP and a baseline's head
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
    terms, biases = [], []
    if 'scale_mining' in active and features.phi is not None:
        terms.append(model.scale_mining.responses(features.phi.astype(jnp.float32)).max(-1))
        biases.append(model.scale_mining.bias[...])
    if 'oriented_pooling' in active and features.aligned_maps is not None:
        terms.append(model.oriented_pooling.responses(features.aligned_maps).max(2))
        biases.append(model.oriented_pooling.bias[...])
    if PART_HEAD in active and features.regions is not None and model.part_head is not None:
        terms.append(model.part_head.part_logits(features.regions))
        biases.append(model.part_head.bias[...])
    batch, num_classes = outputs.logits.shape
    parts = jnp.asarray(sum(terms)) if terms else jnp.zeros((batch, 0, num_classes))  # [B, K, N]
    bias = jnp.asarray(sum(biases)) if biases else jnp.zeros(num_classes)
    # The rest is the image classifier's, or the image's share in the head of NTS-Net.
    reads_image = not terms or outputs.global_logits is not None or isinstance(model.part_head, ConcatHead)
    rest = outputs.logits - parts.sum(1) - bias
    return PartLogits(parts, rest if reads_image else jnp.zeros_like(rest), bias)
