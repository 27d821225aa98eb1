"""How the features of regions are computed, and what they share (`config.model.sharing`).

| sharing | computation | ResNet-50 at 448, K = 4, S = 5 |
|---|---|---|
| 'none' | each region is cropped and passed through the backbone (the paper) | 98 GMAC |
| 'part' | one crop per part, as large as its largest scale; RoIAlign cuts the scales from its map | 33 GMAC |
| 'image' | RoIAlign cuts all regions from the map of the image | 16.4 GMAC, as without parts |
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models import regions
from ssanet_jax.models.backbones.base import Backbone

Sharing = Literal['none', 'part', 'image']
REGION_SIDE = 7  # side of a region's feature map
ROI_SAMPLES = 2  # sampling points per bin and axis of RoIAlign

# (boxes [B, R, 4], images or maps [B, ...], weights) -> (maps [B, R, s, s, C], new BatchNorm statistics)
RegionFunction = Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, Any]]
# Wraps such a function so that its boxes are distributed over devices (`distributed.candidate_map`).
MapCandidates = Callable[[RegionFunction], RegionFunction]


def crop_maps(
    backbone: Backbone,
    images: jax.Array,
    boxes: jax.Array,
    size: int,
    map_candidates: MapCandidates,
    antialias: bool = False,
) -> jax.Array:
    """Crops boxes and passes them through the backbone, in one batch, so that BatchNorm sees all of them.

    Args:
      backbone: `[n, size, size, 3] -> [n, m, m, C]`; its BatchNorm statistics are updated in training mode.
      images: `[B, H, W, 3]`, normalized.
      boxes: `[B, R, 4]`, pixels.
      size: side of a crop, pixels.
      map_candidates: distributes the boxes over devices.
      antialias: crop by `regions.crop` instead of `regions.resample`.

    Returns:
      `[B, R, m, m, C]`.
    """
    graph, weights = nnx.split(backbone)

    def extract(boxes, images, weights):
        cut = regions.crop if antialias else regions.resample
        crops = jax.vmap(lambda x, b: cut(x, b, size))(images, boxes)  # [b, r, size, size, 3]
        network = nnx.merge(graph, weights, copy=True)
        maps = network(crops.reshape(-1, *crops.shape[2:]))
        return maps.reshape(*boxes.shape[:2], *maps.shape[1:]), nnx.state(network, nnx.BatchStat)

    maps, statistics = map_candidates(extract)(boxes, images, weights)
    nnx.update(backbone, statistics)
    return maps


def average_cells(maps: jax.Array) -> jax.Array:
    """Averages square blocks of cells: `[B, R, m, m, C]`, m a multiple of 7 -> `[B, R, 7, 7, C]`."""
    *batch, side, _, channels = maps.shape
    if side == REGION_SIDE:
        return maps
    block = side // REGION_SIDE
    return maps.reshape(*batch, REGION_SIDE, block, REGION_SIDE, block, channels).mean((-4, -2))


def part_maps(
    backbone: Backbone,
    images: jax.Array,
    parts: jax.Array,
    extra_boxes: jax.Array | None,
    size: int,
    enlargement: float,
    map_candidates: MapCandidates,
    antialias: bool = False,
    clamp: bool = True,
) -> tuple[jax.Array, jax.Array | None]:
    """The maps of all candidates from one crop per part, and of boxes without candidates at the same resolution.

    Args:
      backbone, images, map_candidates, antialias: see `crop_maps`.
      parts: `[B, K, S, 4]`, the candidates of each part, smallest first, pixels.
      extra_boxes: `[B, R, 4]`, boxes without other scales, or None.
      size: side of a crop, pixels; it contains the largest candidate of a part.
      enlargement: ratio of the sides of the largest candidate and the part.
      map_candidates: distributes the crops over devices.
      clamp: see `roi_align`.

    Returns:
      `[B, K, S, 7, 7, C]`, and `[B, R, 7, 7, C]` or None.
    """
    batch, count = parts.shape[:2]
    crops = largest_candidate(parts)  # [B, K, 4]
    if extra_boxes is not None:
        crops = jnp.concatenate([crops, enlarge(extra_boxes, enlargement)], 1)  # [B, K + R, 4]
    maps = crop_maps(backbone, images, crops, size, map_candidates, antialias)  # [B, K + R, m, m, C]

    def align(maps, boxes, crops):
        boxes = to_crop_pixels(boxes, crops, size)  # [B, n, S, 4]
        flat = lambda x: x.reshape(-1, *x.shape[2:])
        aligned = roi_align(flat(maps), flat(boxes), REGION_SIDE, backbone.stride, backbone.center(size), clamp)
        return aligned.reshape(batch, -1, *aligned.shape[1:])  # [B, n, S, 7, 7, C]

    maps_of_parts = align(maps[:, :count], parts, crops[:, :count])
    if extra_boxes is None:
        return maps_of_parts, None
    return maps_of_parts, align(maps[:, count:], extra_boxes[:, :, None], crops[:, count:])[:, :, 0]


def roi_align(
    maps: jax.Array, boxes: jax.Array, size: int, stride: int, center: float, clamp: bool = True
) -> jax.Array:
    """RoIAlign (He et al., ICCV 2017) with the same 14 x 14 sampling points at every size.

    Args:
      maps: `[B, h, w, C]`.
      boxes: `[B, R, 4]` in pixels of the image of the maps.
      size: side of the result; divides 7.
      stride: pixels per cell.
      center: pixel at the center of the first cell.
      clamp: read the border of the map for points slightly outside it, as in torchvision (`regions.resample`). False
        reads zeros, as version 0.1.0 did.

    Returns:
      `[B, R, size, size, C]`.
    """
    samples = ROI_SAMPLES * REGION_SIDE // size
    return jax.vmap(lambda x, b: regions.resample(x, b, size, stride, samples, center, clamp))(maps, boxes)


def largest_candidate(boxes: jax.Array) -> jax.Array:
    """The largest candidate of each part, which contains all others: `[..., S, 4]` -> `[..., 4]`."""
    return boxes[..., -1, :]


def enlarge(boxes: jax.Array, factor: float) -> jax.Array:
    """Boxes `[..., 4]` scaled by a factor about their centers."""
    low, high = boxes[..., :2], boxes[..., 2:]
    middle, half = (low + high) / 2, (high - low) / 2 * factor
    return jnp.concatenate([middle - half, middle + half], -1)


def to_crop_pixels(boxes: jax.Array, crops: jax.Array, size: int) -> jax.Array:
    """Converts boxes from pixels of the image to pixels of a crop.

    Args:
      boxes: `[..., S, 4]`, pixels of the image.
      crops: `[..., 4]`, the cropped boxes, pixels of the image.
      size: side of the resized crops, pixels.

    Returns:
      `[..., S, 4]`, pixels of the crop.
    """
    low, high = crops[..., None, :2], crops[..., None, 2:]
    corners = [(corner - low) / (high - low) * size for corner in (boxes[..., :2], boxes[..., 2:])]
    return jnp.concatenate(corners, -1)
