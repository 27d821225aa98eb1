"""Proposal network: which anchor boxes of an image are worth a closer look (paper, 3.1)."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssanet_jax.models.anchors import boxes_per_cell, overlap_table

WIDTH = 128  # channels of the proposal network, as in NTS-Net


class ProposalNetwork(nnx.Module):
    """Scores every anchor from the last feature map of the backbone (NTS-Net's Navigator).

    Three 3 x 3 convolutions of strides 1, 2, 2, one level of anchors on each. The gradient is
    stopped at the map: the ranking loss must not bend the features it ranks.
    """

    def __init__(self, features: int, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        inputs = (features, WIDTH, WIDTH)
        strides = (1, 2, 2)
        self.convs = nnx.List(
            [nnx.Conv(c, WIDTH, (3, 3), strides=s, padding=1, dtype=dtype, rngs=rngs) for c, s in zip(inputs, strides)]
        )
        self.heads = nnx.List([nnx.Conv(WIDTH, n, (1, 1), dtype=dtype, rngs=rngs) for n in boxes_per_cell()])

    def __call__(self, feature_map: jax.Array) -> jax.Array:
        """Feature map `[B, h, w, C]` -> scores `[B, A]` in the order of `anchors.anchor_boxes`."""
        x = jax.lax.stop_gradient(feature_map)
        scores = []
        for conv, head in zip(self.convs, self.heads):
            x = nnx.relu(conv(x))
            scores.append(head(x).reshape(x.shape[0], -1))  # [B, side * side * boxes_per_cell]
        return jnp.concatenate(scores, 1).astype(jnp.float32)


def top_boxes(scores: jax.Array, anchors: np.ndarray, count: int, iou: float) -> tuple[jax.Array, jax.Array]:
    """The best boxes after greedy non-maximum suppression; fixed shapes, works inside `jit`.

    Takes the best score, drops every box that overlaps it by IoU >= `iou`, and repeats. When
    nothing is left before `count` is reached, the best box not yet taken follows.

    Args:
      scores: `[A]`, one per anchor.
      anchors: `[A, 4]` static boxes (NumPy: the overlap table is a constant of the program).
      count: number of boxes to return, at most A.
      iou: intersection over union from which a box is suppressed.

    Returns:
      indices int32 `[count]` and boxes float32 `[count, 4]`, best first.
    """
    if count > len(anchors):
        raise ValueError(f'{count} boxes wanted of {len(anchors)} anchors')
    overlaps = jnp.asarray(overlap_table(anchors, iou))
    alive = jnp.ones(len(anchors), bool)
    untaken = alive
    indices = []
    for _ in range(count):
        eligible = jnp.where(alive.any(), alive, untaken)
        best = jnp.argmax(jnp.where(eligible, scores, -jnp.inf))
        indices.append(best)
        untaken &= jnp.arange(len(anchors)) != best
        alive &= ~overlaps[best] & untaken
    indices = jnp.stack(indices).astype(jnp.int32)
    return indices, jnp.asarray(anchors)[indices]
