"""Feature pyramid: the alternative to scale mining in Table 5 of the paper ("FPN").

Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017: the backbone's maps at several resolutions are
combined top-down, and each region is read from the map that fits its size.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models.initializers import LECUN_NORMAL
from ssanet_jax.models.sharing import roi_align

CANONICAL_SIDE, CANONICAL_STRIDE = 224, 16  # a box of ImageNet's crop size is read at stride 16


class FeaturePyramid(nnx.Module):
    """Combines the maps of a backbone top-down into maps of equal width (Lin et al., section 3).

    Each level is a 1x1 convolution of its own map plus the next coarser level, upsampled by nearest neighbor, followed
    by a 3x3 convolution. There are no activations.
    """

    def __init__(self, channels: Sequence[int], num_features: int = 256, *, rngs: nnx.Rngs):
        """Builds the network, which computes in float32.

        Args:
          channels: channels of each level, finest first (`pyramid_features` of the backbone).
          num_features: F, channels of every resulting map.
          rngs: source of the random weights.
        """
        self.num_features = num_features
        self.laterals = nnx.List(
            [nnx.Linear(width, num_features, kernel_init=LECUN_NORMAL, rngs=rngs) for width in channels]
        )
        smooth = lambda: nnx.Conv(num_features, num_features, (3, 3), padding=1, kernel_init=LECUN_NORMAL, rngs=rngs)
        self.outputs = nnx.List([smooth() for _ in channels])

    def __call__(self, maps: Sequence[jax.Array]) -> list[jax.Array]:
        """`[B, h_l, w_l, channels[l]]`, finest first -> `[B, h_l, w_l, F]` in the same order."""
        if len(maps) != len(self.laterals):
            raise ValueError(f'the pyramid was built for {len(self.laterals)} maps; got {len(maps)}')
        merged, coarser = [], None
        for lateral, x in zip(reversed(self.laterals), reversed(maps)):
            x = lateral(x)
            coarser = x if coarser is None else x + _upsample_nearest(coarser, *x.shape[1:3])
            merged.append(coarser)
        return [output(x) for output, x in zip(self.outputs, reversed(merged))]


def _upsample_nearest(x: jax.Array, height: int, width: int) -> jax.Array:
    """Repeats each cell by the step between two levels: `[B, h, w, F]` -> `[B, height, width, F]`.

    If the finer side is not a multiple of the coarser one (29 cells and 15, 15 and 7), the last cells are cropped or
    repeated once more. So cell i always covers the cells from i * step on.
    """
    for axis, length in ((1, height), (2, width)):
        step = max(1, round(length / x.shape[axis]))
        x = jax.lax.slice_in_dim(jnp.repeat(x, step, axis), 0, min(length, step * x.shape[axis]), axis=axis)
        last = jax.lax.slice_in_dim(x, x.shape[axis] - 1, x.shape[axis], axis=axis)
        x = jnp.concatenate([x, jnp.repeat(last, length - x.shape[axis], axis)], axis)
    return x


def pyramid_level(boxes: jax.Array, strides: Sequence[int]) -> jax.Array:
    """The level that a box is read from: Lin et al., Eq. 1, k = floor(4 + log2(sqrt(w h) / 224)), for strides 2^k.

    A box of 224 pixels belongs to stride 16, a box of 112 pixels to stride 8, and so on. In general, it is the
    coarsest level whose stride is at most 16 / 224 of the square root of the box's area, or the finest level.

    Args:
      boxes: `[..., 4]` (y0, x0, y1, x1) in pixels of the input.
      strides: strides of the levels in pixels, ascending. Of equal strides (in a dilated backbone), the last is taken.

    Returns:
      int32 `[...]`, indices into `strides`.
    """
    sides = jnp.maximum(0, boxes[..., 2:] - boxes[..., :2])
    # Areas are compared instead of logarithms, so that the thresholds are exact.
    thresholds = jnp.asarray([(stride * CANONICAL_SIDE / CANONICAL_STRIDE) ** 2 for stride in strides])  # [L]
    reached = (sides[..., 0] * sides[..., 1])[..., None] >= thresholds  # [..., L]
    return jnp.maximum(0, reached.sum(-1, dtype=jnp.int32) - 1)


def pyramid_align(
    maps: Sequence[jax.Array],
    strides: Sequence[int],
    centers: Sequence[float],
    boxes: jax.Array,
    size: int,
    clamp: bool = True,
) -> jax.Array:
    """RoIAlign of each box from the level that fits its size.

    Every box is read from every level and one result is kept: matrix products of static shapes are cheaper than
    sorting the boxes by level.

    Args:
      maps: `[B, h_l, w_l, F]`, finest first.
      strides: pixels per cell of each map, ascending.
      centers: pixel at the center of the first cell of each map.
      boxes: `[B, R, 4]` in pixels of the image of the maps.
      size: side of the result; divides 7.
      clamp: see `sharing.roi_align`.

    Returns:
      `[B, R, size, size, F]`.
    """
    level = pyramid_level(boxes, strides)[..., None, None, None]  # [B, R, 1, 1, 1]
    aligned = roi_align(maps[0], boxes, size, strides[0], centers[0], clamp)
    for index in range(1, len(maps)):
        own = roi_align(maps[index], boxes, size, strides[index], centers[index], clamp)
        aligned = jnp.where(level == index, own, aligned)
    return aligned
