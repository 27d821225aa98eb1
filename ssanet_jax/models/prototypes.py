"""Parts by prototypes: the j-th part of every image is where the j-th prototype fits best (section 3.1, MAC).

Eq. 2 asks that the j-th part mean the same in every image. Here that holds by construction: the cells of the feature
map are assigned to J prototypes, K' of which are parts; the others stand for what is not informative. The prototypes
start as the clusters of foreground cells (k-means, `training/part_discovery.py`), which need no labels, and can be
trained: the part classifier and Eq. 2 read the features that each prototype attends to, so that their gradient reaches
the selection of the parts, which Eq. 1 alone gives none.

Prototypes over the cells of a map are those of PDiscoNet (van der Klis et al., ICCV 2023) and of Huang and Li (CVPR
2020).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models.initializers import variance_scaling

EXTRA_PROTOTYPES = 8  # those that are no parts
PROTOTYPE_LENGTH = 64  # dimensions of the space in which cells are compared
_TEMPERATURE = 0.1  # of the assignment; cosines of similar cells differ by about as much
OBJECT_SHARE = 0.85  # side of the object's crop, as a share of the longer side of the box around its cells
_NEVER = -2.0  # below every cosine


class LocatedParts(NamedTuple):
    """The object and the parts of a batch of images; part 0 is the object."""

    boxes: jax.Array  # [B, K, 4], squares in pixels of the image, within the image if they fit
    scores: jax.Array  # [B, K], how well each fits: a cosine; 1 for the object
    present: jax.Array  # bool [B, K], whether the score reaches the part's threshold; the object always is
    attention: jax.Array  # [B, h, w, K], >= 0, sums to 1 over the cells


class LocalFeatures(NamedTuple):
    """What each of J prototypes sees where it fits best."""

    features: jax.Array  # float32 [B, J, C], the mean of the 3 x 3 cells there
    cells: jax.Array  # int32 [B, J, 2], row and column
    scores: jax.Array  # [B, J], the mean cosine of these cells and the prototype


class PrototypeParts(nnx.Module):
    """Locates an object and K - 1 of its parts in a feature map.

    Args:
      num_features: C, channels of the map.
      num_parts: K, with the object.
      part_size: side of a part's box, as a share of the image's side.
      random: whether boxes of these sizes lie at random places instead, as a control.
      rngs: source of the random weights; `training/part_discovery.py` replaces them.
    """

    def __init__(self, num_features: int, num_parts: int, part_size: float, *, random: bool = False, rngs: nnx.Rngs):
        count = num_parts - 1 + EXTRA_PROTOTYPES  # J
        init = variance_scaling(1.0, 'fan_in', 'normal')
        self.mean = nnx.Param(jnp.zeros(num_features))
        self.projection = nnx.Param(init(rngs.params(), (num_features, PROTOTYPE_LENGTH)))
        self.prototypes = nnx.Param(init(rngs.params(), (count, PROTOTYPE_LENGTH)))  # the first K - 1 are the parts
        # The least score of a part that is there; -1 takes every part as present.
        self.threshold = nnx.BatchStat(jnp.full(num_parts - 1, -1.0))
        self.num_parts, self.part_size, self.random = num_parts, part_size, random

    def __call__(self, feature_map: jax.Array, image_size: int, center: float, stride: float) -> LocatedParts:
        """Locates the parts.

        Args:
          feature_map: `[B, h, w, C]`.
          image_size: side of the image, pixels.
          center: pixel of the image at the center of the first cell.
          stride: pixels of the image per cell.
        """
        mask = foreground(feature_map)  # [B, h, w]
        similarity = self.similarity(feature_map)  # [B, h, w, J]
        count = self.num_parts - 1
        cells, scores = best_cells(jax.lax.stop_gradient(similarity), mask)  # [B, J, 2], [B, J]
        middles = center + stride * cells[:, :count].astype(jnp.float32)  # [B, K - 1, 2]
        half = jnp.full((*middles.shape[:2], 1), self.part_size * image_size / 2)
        parts = jnp.concatenate([middles - half, middles + half], -1)
        objects = object_boxes(mask, center, stride)[:, None]  # [B, 1, 4]
        boxes = jnp.concatenate([objects, parts], 1)
        boxes = _scatter(boxes, feature_map, image_size) if self.random else move_inside(boxes, image_size)

        assignment = jax.nn.softmax(similarity / _TEMPERATURE, -1) * mask[..., None]  # [B, h, w, J]
        weights = jnp.concatenate([mask[..., None].astype(assignment.dtype), assignment[..., :count]], -1)
        attention = weights / (weights.sum((1, 2), keepdims=True) + 1e-6)
        ones = jnp.ones((boxes.shape[0], 1))
        return LocatedParts(
            boxes=boxes,
            scores=jnp.concatenate([ones, scores[:, :count]], 1),
            present=jnp.concatenate([ones > 0, scores[:, :count] >= self.threshold[...]], 1),
            attention=attention,
        )

    def similarity(self, feature_map: jax.Array) -> jax.Array:
        """The cosine of each cell and each prototype: `[B, h, w, C]` -> float32 `[B, h, w, J]`."""
        projected = (feature_map.astype(jnp.float32) - self.mean[...]) @ self.projection[...]
        return _unit(projected) @ _unit(self.prototypes[...]).T

    def local_features(self, feature_map: jax.Array) -> LocalFeatures:
        """What each of the J prototypes sees at its place: `[B, h, w, C]` -> `LocalFeatures`."""
        cells, scores = best_cells(self.similarity(feature_map), foreground(feature_map))
        smooth = _mean_3x3(feature_map.astype(jnp.float32))
        features = jax.vmap(lambda cells, smooth: smooth[cells[:, 0], cells[:, 1]])(cells, smooth)
        return LocalFeatures(features, cells, scores)


def foreground(feature_map: jax.Array) -> jax.Array:
    """The cells of the object: of the connected regions of cells above the mean activation, the one with most of it.

    Args:
      feature_map: `[B, h, w, C]`.

    Returns:
      bool `[B, h, w]`, without a gradient; never empty.
    """
    activation = jax.lax.stop_gradient(feature_map).astype(jnp.float32).mean(-1)  # [B, h, w]
    excess = activation - activation.mean((1, 2), keepdims=True)
    above = excess >= 0
    batch, height, width = above.shape
    regions = _label_regions(above).reshape(batch, height * width)  # [B, h w]
    same = regions[:, :, None] == regions[:, None]  # [B, h w, h w]
    totals = jnp.einsum('bij,bj->bi', same.astype(jnp.float32), excess.reshape(regions.shape))
    best = jnp.where(regions >= 0, totals, -jnp.inf).argmax(1)  # [B], a cell of the region
    largest = jnp.take_along_axis(regions, best[:, None], 1)  # [B, 1]
    return (regions == largest).reshape(above.shape)


def _label_regions(above: jax.Array) -> jax.Array:
    """Numbers the connected regions (4 neighbors per cell): bool `[B, h, w]` -> int32 `[B, h, w]`, -1 elsewhere."""
    _, height, width = above.shape
    numbers = jnp.where(above, jnp.arange(height * width).reshape(height, width), -1)

    def spread(_, regions):
        padded = jnp.pad(regions, ((0, 0), (1, 1), (1, 1)), constant_values=-1)
        upper, lower = padded[:, :-2, 1:-1], padded[:, 2:, 1:-1]
        left, right = padded[:, 1:-1, :-2], padded[:, 1:-1, 2:]
        largest = jnp.maximum(jnp.maximum(upper, lower), jnp.maximum(left, right))
        return jnp.where(above, jnp.maximum(regions, largest), -1)

    # The longest path without detours through half of the cells; a spiral might be longer, an object is not.
    return jax.lax.fori_loop(0, 2 * (height + width), spread, numbers)


def best_cells(similarity: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The cell of the foreground that each prototype fits best, by the mean similarity of the 3 x 3 cells around it.

    Args:
      similarity: `[B, h, w, J]`.
      mask: bool `[B, h, w]`, the foreground.

    Returns:
      int32 `[B, J, 2]`, row and column, and the mean similarity `[B, J]`.
    """
    batch, height, width, count = similarity.shape
    smooth = jnp.where(mask[..., None], _mean_3x3(similarity), _NEVER).reshape(batch, height * width, count)
    best = smooth.argmax(1)  # [B, J]
    cells = jnp.stack([best // width, best % width], -1)
    return cells.astype(jnp.int32), smooth.max(1)


def object_boxes(mask: jax.Array, center: float, stride: float) -> jax.Array:
    """A square around the object: bool `[B, h, w]` -> `[B, 4]`, pixels of the image.

    Its side is `OBJECT_SHARE` of the longer side of the box around the cells: a square around the whole of a long
    object would be background for the most part.
    """
    bounds = [_range(mask.any(axis)) for axis in (2, 1)]  # rows, columns
    low = jnp.stack([first for first, _ in bounds], -1)
    high = jnp.stack([last for _, last in bounds], -1)  # [B, 2]
    middle = center + stride * (low + high) / 2
    side = stride * (high - low + 1).max(-1, keepdims=True) * OBJECT_SHARE
    return jnp.concatenate([middle - side / 2, middle + side / 2], -1)


def _range(occupied: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The first and the last true index of each row: bool `[B, n]` -> `[B]`, `[B]`."""
    last = occupied.shape[1] - 1 - occupied[:, ::-1].argmax(1)
    return occupied.argmax(1), last


def move_inside(boxes: jax.Array, image_size: int) -> jax.Array:
    """Moves square boxes `[..., 4]` into the image, and shrinks those that are larger than it."""
    low, high = boxes[..., :2], boxes[..., 2:]
    side = jnp.minimum(high - low, image_size)
    middle = jnp.clip((low + high) / 2, side / 2, image_size - side / 2)
    return jnp.concatenate([middle - side / 2, middle + side / 2], -1)


def _scatter(boxes: jax.Array, feature_map: jax.Array, image_size: int) -> jax.Array:
    """Boxes `[B, K, 4]` at random places, which are always the same for the same map.

    Rounding moves them: the map of an image differs in its last bits between devices and batch sizes.
    """
    seeds = jax.lax.bitcast_convert_type(feature_map.astype(jnp.float32).mean((1, 2, 3)), jnp.uint32)
    draw = lambda seed: jax.random.uniform(jax.random.fold_in(jax.random.key(0), seed), (boxes.shape[1], 2))
    side = jnp.minimum(boxes[..., 2:] - boxes[..., :2], image_size)  # [B, K, 2]
    low = jax.vmap(draw)(seeds) * (image_size - side)
    return jnp.concatenate([low, low + side], -1)


def attention_pool(feature_map: jax.Array, attention: jax.Array) -> jax.Array:
    """The mean feature that each part attends to: `[B, h, w, C]`, `[B, h, w, K]` -> `[B, K, C]`."""
    return jnp.einsum('bhwc,bhwk->bkc', feature_map, attention.astype(feature_map.dtype))


def _unit(x: jax.Array) -> jax.Array:
    """Vectors `[..., D]` of length 1."""
    return x / jnp.sqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-12)  # the gradient is finite at zero


def _mean_3x3(x: jax.Array) -> jax.Array:
    """The mean of the 3 x 3 cells around each cell, those outside of the map left out: `[B, h, w, C]`."""
    window = (1, 3, 3, 1)
    sums = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, (1, 1, 1, 1), 'SAME')
    counts = jax.lax.reduce_window(jnp.ones((1, *x.shape[1:3], 1)), 0.0, jax.lax.add, window, (1, 1, 1, 1), 'SAME')
    return sums / counts
