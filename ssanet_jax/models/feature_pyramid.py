"""Feature pyramids: what the paper compares scale mining with (Table 5, "FPN").

Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017: the maps that a backbone makes on its way,
each enriched by the coarser ones that know more, and each region read from the map that fits its size.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models.sharing import roi_align

CANONICAL_SIDE, CANONICAL_STRIDE = 224, 16  # a box as large as ImageNet's crops belongs to this stride


class FeaturePyramid(nnx.Module):
    """Maps of a backbone -> maps of one width, the finer ones joined by all coarser ones (Lin et al., section 3).

    The top-down pathway adds the next coarser map, upsampled to the nearest cell, to a 1x1 convolution of each
    level; a 3x3 convolution then smooths what was added. No activation stands between them.
    """

    def __init__(self, channels: Sequence[int], features: int = 256, *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        """Builds the network.

        Args:
          channels: of each level, finest first: `pyramid_features` of the backbone.
          features: channels of every map that comes out.
          dtype: of the computation and the maps; parameters are float32.
          rngs: source of the random weights.
        """
        self.features = features
        self.laterals = nnx.List([nnx.Linear(width, features, dtype=dtype, rngs=rngs) for width in channels])
        self.outputs = nnx.List(
            [nnx.Conv(features, features, (3, 3), padding=1, dtype=dtype, rngs=rngs) for _ in channels]
        )

    def __call__(self, maps: Sequence[jax.Array]) -> list[jax.Array]:
        """`[B, h_l, w_l, channels[l]]`, finest first -> `[B, h_l, w_l, features]` in the same order."""
        if len(maps) != len(self.laterals):
            raise ValueError(f'the pyramid was built for {len(self.laterals)} maps; got {len(maps)}')
        merged, coarser = [], None
        for lateral, x in zip(reversed(self.laterals), reversed(maps)):
            x = lateral(x)
            coarser = x if coarser is None else x + _nearest(coarser, *x.shape[1:3])
            merged.append(coarser)
        return [output(x) for output, x in zip(self.outputs, reversed(merged))]


def _nearest(x: jax.Array, height: int, width: int) -> jax.Array:
    """Repeats each cell by the step between two levels: `[B, h, w, F] -> [B, height, width, F]`.

    Where the finer map is no multiple of the coarser one (29 cells to 15, 15 to 7), the last cells are cropped or
    repeated once more, so that cell i lies over the cells i * step and following everywhere.
    """
    for axis, length in ((1, height), (2, width)):
        step = max(1, round(length / x.shape[axis]))
        x = jax.lax.slice_in_dim(jnp.repeat(x, step, axis), 0, min(length, step * x.shape[axis]), axis=axis)
    missing = [(0, 0), (0, height - x.shape[1]), (0, width - x.shape[2]), (0, 0)]
    return jnp.pad(x, missing, mode='edge')


def pyramid_level(boxes: jax.Array, strides: Sequence[int]) -> jax.Array:
    """Which level a box is read from: Lin et al., Eq. 1, k = floor(4 + log2(sqrt(w h) / 224)), in strides 2^k.

    A box of 224 pixels belongs to stride 16, from half of it to stride 8, and so on: to the coarsest level whose
    stride is at most 16 / 224 of the root of its area, or to the finest if there is none.

    Args:
      boxes: `[..., 4]` (y0, x0, y1, x1) in pixels of the input.
      strides: of the levels, pixels, ascending. Of equal ones, which dilation makes, the last is taken.

    Returns:
      int32 `[...]`, indices into `strides`.
    """
    sides = jnp.maximum(0, boxes[..., 2:] - boxes[..., :2])
    # Areas are compared, not logarithms: those of the steps themselves are exact.
    least = jnp.asarray([(stride * CANONICAL_SIDE / CANONICAL_STRIDE) ** 2 for stride in strides])  # [L]
    reached = (sides[..., 0] * sides[..., 1])[..., None] >= least  # [..., L]
    return jnp.maximum(0, reached.sum(-1, dtype=jnp.int32) - 1)


def pyramid_align(
    maps: Sequence[jax.Array], strides: Sequence[int], centres: Sequence[float], boxes: jax.Array, size: int
) -> jax.Array:
    """RoIAlign of each box from the level that fits it.

    Every level is read for every box, and one is kept: matrix products of fixed shapes are cheaper than sorting.

    Args:
      maps: `[B, h_l, w_l, F]`, finest first.
      strides: pixels per cell of each, ascending.
      centres: pixel at which the first cell of each lies.
      boxes: `[B, R, 4]` in pixels of what the maps were made from.
      size: side of the result; divides 7.

    Returns:
      `[B, R, size, size, F]`.
    """
    level = pyramid_level(boxes, strides)[..., None, None, None]  # [B, R, 1, 1, 1]
    aligned = roi_align(maps[0], boxes, size, strides[0], centres[0])
    for index in range(1, len(maps)):
        own = roi_align(maps[index], boxes, size, strides[index], centres[index])
        aligned = jnp.where(level == index, own, aligned)
    return aligned
