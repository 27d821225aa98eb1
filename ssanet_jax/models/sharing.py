"""Where the features of regions come from: what they share is what they need not compute (`config.model.sharing`).

| | shared | of ResNet-50 at 448, K = 4, S = 5 |
|---|---|---|
| 'none' | nothing: each region is cropped and goes through the backbone (the paper) | 98 GMAC |
| 'part' | one crop a part, wide enough for its largest scale; RoIAlign cuts the scales from its map | 33 GMAC |
| 'image' | RoIAlign cuts all regions from the map of the image | 16.4 GMAC, as without parts |
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models import regions

Sharing = Literal['none', 'part', 'image']
REGION = 7  # side of a region's feature map
ROI_SAMPLES = 2  # sampling points per bin and axis of RoIAlign

# (boxes [B, R, 4], images or maps [B, ...], weights) -> (maps [B, R, s, s, C], new BatchNorm statistics)
Describe = Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, Any]]
MapCandidates = Callable[[Describe], Describe]


def crop_maps(
    backbone: nnx.Module,
    images: jax.Array,
    boxes: jax.Array,
    size: int,
    map_candidates: MapCandidates,
    remat: bool = False,
) -> jax.Array:
    """Crops boxes and passes them through the backbone, all in one batch, so that its BatchNorm sees them together.

    Args:
      backbone: `[n, size, size, 3] -> [n, m, m, C]`; its statistics are updated if they learn.
      images: `[B, H, W, 3]`, normalised.
      boxes: `[B, R, 4]`, pixels.
      size: side of a crop, pixels.
      map_candidates: spreads the boxes over devices.
      remat: the backward pass computes the backbone's blocks again, so that crops take less memory in training.

    Returns:
      `[B, R, m, m, C]`.
    """
    graph, weights = nnx.split(backbone)

    def describe(boxes, images, weights):
        crops = jax.vmap(lambda x, b: regions.resample(x, b, size))(images, boxes)  # [b, r, size, size, 3]
        network = nnx.merge(graph, weights, copy=True)
        network.remat = remat
        maps = network(crops.reshape(-1, *crops.shape[2:]))
        return maps.reshape(*boxes.shape[:2], *maps.shape[1:]), nnx.state(network, nnx.BatchStat)

    maps, statistics = map_candidates(describe)(boxes, images, weights)
    nnx.update(backbone, statistics)
    return maps


def part_maps(
    backbone: nnx.Module,
    images: jax.Array,
    parts: jax.Array,
    ranked: jax.Array | None,
    size: int,
    widen: float,
    map_candidates: MapCandidates,
    remat: bool = False,
) -> tuple[jax.Array, jax.Array | None]:
    """The maps of all candidates from one crop a part, and those of boxes without candidates at the same resolution.

    Args:
      backbone, images, map_candidates, remat: as in `crop_maps`.
      parts: `[B, K, S, 4]`, candidates by size, pixels.
      ranked: `[B, R, 4]`, boxes that have no other scales, or None.
      size: side of a crop, pixels; it holds the largest of a part's candidates.
      widen: ratio of the sides of the largest candidate and the part.

    Returns:
      `[B, K, S, 7, 7, C]` and `[B, R, 7, 7, C]` or None.
    """
    batch, count = parts.shape[:2]
    crops = widest(parts)  # [B, K, 4]
    if ranked is not None:
        crops = jnp.concatenate([crops, widened(ranked, widen)], 1)  # [B, K + R, 4]
    maps = crop_maps(backbone, images, crops, size, map_candidates, remat)  # [B, K + R, m, m, C]

    def align(maps, boxes, crops):
        boxes = within(boxes, crops, size)  # [B, n, S, 4]
        flat = lambda x: x.reshape(-1, *x.shape[2:])
        aligned = roi_align(flat(maps), flat(boxes), REGION, backbone.stride, backbone.centre(size))
        return aligned.reshape(batch, -1, *aligned.shape[1:])  # [B, n, S, 7, 7, C]

    described = align(maps[:, :count], parts, crops[:, :count])
    if ranked is None:
        return described, None
    return described, align(maps[:, count:], ranked[:, :, None], crops[:, count:])[:, :, 0]


def roi_align(maps: jax.Array, boxes: jax.Array, size: int, stride: int, centre: float) -> jax.Array:
    """RoIAlign, the same samples at every size.

    Args:
      maps: `[B, h, w, C]`.
      boxes: `[B, R, 4]` in pixels of what the maps were made from.
      size: side of the result; divides 7.
      stride: pixels per cell.
      centre: pixel at which the first cell lies.

    Returns:
      `[B, R, size, size, C]`.
    """
    samples = ROI_SAMPLES * REGION // size
    return jax.vmap(lambda x, b: regions.resample(x, b, size, stride, samples, centre))(maps, boxes)


def widest(boxes: jax.Array) -> jax.Array:
    """The candidate that holds all others of its part, the largest: `[..., S, 4] -> [..., 4]`."""
    return boxes[..., -1, :]


def widened(boxes: jax.Array, factor: float) -> jax.Array:
    """Boxes grown about their centres, `[..., 4]`: for those that have no candidates."""
    low, high = boxes[..., :2], boxes[..., 2:]
    middle, half = (low + high) / 2, (high - low) / 2 * factor
    return jnp.concatenate([middle - half, middle + half], -1)


def within(boxes: jax.Array, crops: jax.Array, size: int) -> jax.Array:
    """Boxes in the pixels of a crop of theirs that was brought to `size`: `[..., S, 4]`, `[..., 4] -> [..., S, 4]`."""
    low, high = crops[..., None, :2], crops[..., None, 2:]
    corners = [(corner - low) / (high - low) * size for corner in (boxes[..., :2], boxes[..., 2:])]
    return jnp.concatenate(corners, -1)
