"""Proposals (section 3.1 of the paper): scores of the anchor boxes, and selection of the best ones."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssanet_jax.models.anchors import boxes_per_cell, overlap_table
from ssanet_jax.models.initializers import LECUN_NORMAL

WIDTH = 128  # channels of the proposal network, as in NTS-Net


class ProposalNetwork(nnx.Module):
    """Scores every anchor from the last feature map of the backbone (the "Navigator" of NTS-Net).

    Three 3x3 convolutions with strides 1, 2 and 2; each feeds one level of anchors. The gradient is stopped at the
    feature map, so that the ranking loss does not train the backbone.
    """

    def __init__(self, num_features: int, *, rngs: nnx.Rngs):
        """Builds the network, which computes in float32.

        Args:
          num_features: C, channels of the feature map.
          rngs: source of the random weights.
        """
        inputs = (num_features, WIDTH, WIDTH)
        strides = (1, 2, 2)
        self.convs = nnx.List(
            [
                nnx.Conv(c, WIDTH, (3, 3), strides=s, padding=1, kernel_init=LECUN_NORMAL, rngs=rngs)
                for c, s in zip(inputs, strides)
            ]
        )
        self.heads = nnx.List(
            [nnx.Conv(WIDTH, n, (1, 1), kernel_init=LECUN_NORMAL, rngs=rngs) for n in boxes_per_cell()]
        )

    def __call__(self, feature_map: jax.Array) -> jax.Array:
        """Feature map `[B, h, w, C]` -> float32 scores `[B, A]` in the order of `anchors.anchor_boxes`."""
        x = jax.lax.stop_gradient(feature_map)
        scores = []
        for conv, head in zip(self.convs, self.heads):
            x = nnx.relu(conv(x))
            scores.append(head(x).reshape(x.shape[0], -1))  # [B, side * side * boxes_per_cell]
        return jnp.concatenate(scores, 1).astype(jnp.float32)


def top_boxes(scores: jax.Array, anchors: np.ndarray, count: int, iou: float) -> tuple[jax.Array, jax.Array]:
    """The best boxes after greedy non-maximum suppression, with static shapes for use inside `jit`.

    Repeatedly selects the box with the highest score and drops all boxes that overlap it by IoU >= `iou`. If all
    boxes are dropped before `count` are selected, it continues with the best boxes not yet selected.

    Args:
      scores: `[A]`, one per anchor.
      anchors: `[A, 4]`; NumPy, because the table of overlaps is a constant of the program.
      count: number of boxes to select, at most A.
      iou: intersection over union at which a box is suppressed.

    Returns:
      indices int32 `[count]` and boxes float32 `[count, 4]`, best first.

    Raises:
      ValueError: there are fewer than `count` anchors.
    """
    if count > len(anchors):
        raise ValueError(f'cannot select {count} boxes from {len(anchors)} anchors')
    overlaps = jnp.asarray(overlap_table(anchors, iou))
    alive = jnp.ones(len(anchors), bool)
    unselected = alive
    selected = []
    for _ in range(count):
        eligible = jnp.where(alive.any(), alive, unselected)
        best = jnp.argmax(jnp.where(eligible, scores, -jnp.inf))
        selected.append(best)
        unselected &= jnp.arange(len(anchors)) != best
        alive &= ~overlaps[best] & unselected
    indices = jnp.stack(selected).astype(jnp.int32)
    return indices, jnp.asarray(anchors)[indices]
