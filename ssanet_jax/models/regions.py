"""Resampling of boxes: crops of an image, and RoI features of a feature map.

Both use separable bilinear weights, that is, two small matrix products (as in `jax.image.scale_and_translate`). They
run on the matrix units of an accelerator, which gathers do not. For large crops, where almost all weights are zero,
CPUs and GPUs gather the few pixels that count instead.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp


def _weights(low: jax.Array, high: jax.Array, length: int, size: int, samples: int, clamp: bool) -> jax.Array:
    """Bilinear weights along one axis: `[R]`, `[R]` in map pixels -> `[R, size, length]`."""
    bins = size * samples
    step = (high - low) / bins  # [R]
    # Pixel i covers the interval (i, i + 1): its center lies at i + 0.5.
    points = low[:, None] + step[:, None] * (jnp.arange(bins) + 0.5) - 0.5  # [R, bins]
    inside = (points >= -1) & (points <= length)
    if clamp:
        points = jnp.clip(points, 0, length - 1)
    tent = jnp.maximum(0, 1 - jnp.abs(points[..., None] - jnp.arange(length)))  # [R, bins, length]
    if clamp:
        tent = jnp.where(inside[..., None], tent, 0)
    return tent.reshape(len(low), size, samples, length).mean(2)


def resample(
    image: jax.Array,
    boxes: jax.Array,
    size: int,
    stride: float = 1,
    samples: int = 1,
    center: float | None = None,
    clamp: bool = False,
) -> jax.Array:
    """Resamples boxes of an image or a feature map to one size, bilinearly.

    With the defaults on an image, this is a bilinear crop, padded with zeros as in NTS-Net. With `stride`,
    `samples=2` and `clamp` on a feature map, it is RoIAlign (He et al., ICCV 2017).

    Args:
      image: `[H, W, C]`, image or feature map.
      boxes: `[R, 4]` in pixels of the network's input.
      size: side of the result.
      stride: input pixels per pixel of `image`.
      samples: sampling points per bin and axis; they are averaged.
      center: input pixel at the center of the first pixel of `image`; `stride / 2` if None. That of a feature map is
        `Backbone.center`.
      clamp: the values outside `image`. False: zeros, which bilinear interpolation blends in from the centers of the
        outermost pixels on. True: as in torchvision's `roi_align(..., aligned=True)`, sampling points at most one
        pixel of `image` beyond those centers are moved to the border, and only farther ones read zeros.

    Returns:
      `[R, size, size, C]`.
    """
    height, width, _ = image.shape
    if center is not None:
        boxes = boxes - (center - stride / 2)
    y0, x0, y1, x1 = jnp.moveaxis(boxes / stride, -1, 0)
    rows = _weights(y0, y1, height, size, samples, clamp).astype(image.dtype)  # [R, size, H]
    columns = _weights(x0, x1, width, size, samples, clamp).astype(image.dtype)  # [R, size, W]
    bands = jnp.einsum('rih,hwc->riwc', rows, image)  # [R, size, W, C]
    return jnp.einsum('rjw,riwc->rijc', columns, bands)


def crop(image: jax.Array, boxes: jax.Array, size: int) -> jax.Array:
    """Crops boxes of an image to one size with a triangle filter as wide as a pixel of the result.

    A box that is smaller than the result is enlarged bilinearly; a larger one is averaged, where `resample` would
    alias. The filter is at most as wide as for the whole image. Outside of the image its border is repeated.

    Args:
      image: `[H, W, C]`.
      boxes: `[R, 4]`, pixels.
      size: side of the result.

    Returns:
      `[R, size, size, C]`.
    """
    # All but 4 of the 448 weights per pixel of a 224-pixel crop are zero. As matrix products, a crop would take half as
    # many FLOPs as a small backbone on it, but a TPU gathers slowly.
    by_products, by_gathers = (partial(function, size=size) for function in (crop_by_products, crop_by_gathers))
    return jax.lax.platform_dependent(image, boxes, tpu=by_products, default=by_gathers)


def crop_by_products(image: jax.Array, boxes: jax.Array, *, size: int) -> jax.Array:
    """`crop` by two matrix products."""
    y0, x0, y1, x1 = jnp.moveaxis(boxes, -1, 0)
    height, width, _ = image.shape
    rows = _triangle(y0, y1, height, size, jnp.arange(height)).astype(image.dtype)  # [R, size, H]
    columns = _triangle(x0, x1, width, size, jnp.arange(width)).astype(image.dtype)  # [R, size, W]
    bands = jnp.einsum('rih,hwc->riwc', rows, image)  # [R, size, W, C]
    return jnp.einsum('rjw,riwc->rijc', columns, bands)


def crop_by_gathers(image: jax.Array, boxes: jax.Array, *, size: int) -> jax.Array:
    """`crop` by weighted sums of gathered rows, then columns."""
    y0, x0, y1, x1 = jnp.moveaxis(boxes, -1, 0)

    def cut(rows: jax.Array, row_weights: jax.Array, columns: jax.Array, column_weights: jax.Array) -> jax.Array:
        taps = range(rows.shape[-1])
        terms = [row_weights[:, tap, None, None] * jnp.take(image, rows[:, tap], 0) for tap in taps]
        bands = sum(terms[1:], terms[0])  # [size, W, C]
        taps = range(columns.shape[-1])
        terms = [column_weights[:, tap, None] * jnp.take(bands, columns[:, tap], 1) for tap in taps]
        return sum(terms[1:], terms[0])  # [size, size, C]

    height, width, _ = image.shape
    rows, columns = _taps(y0, y1, height, size), _taps(x0, x1, width, size)  # [R, size, T]
    row_weights = _triangle(y0, y1, height, size, rows).astype(image.dtype)
    column_weights = _triangle(x0, x1, width, size, columns).astype(image.dtype)
    inside = lambda pixels, length: jnp.clip(pixels, 0, length - 1)
    return jax.vmap(cut)(inside(rows, height), row_weights, inside(columns, width), column_weights)


def _triangle(low: jax.Array, high: jax.Array, length: int, size: int, pixels: jax.Array) -> jax.Array:
    """The weights of `crop` along one axis.

    Args:
      low, high: `[R]`, pixels.
      length: pixels of the axis.
      size: pixels of the result.
      pixels: int `[R, size, T]` or `[T]`. Those outside of the image have the weight 0.

    Returns:
      float32 `[R, size, T]`; sums to 1 over the pixels.
    """
    points, radius = _sampling(low, high, length, size)
    tent = jnp.maximum(0, 1 - jnp.abs(points[..., None] - pixels) / radius[..., None])
    tent = jnp.where((pixels >= 0) & (pixels < length), tent, 0)
    return tent / tent.sum(-1, keepdims=True)


def _taps(low: jax.Array, high: jax.Array, length: int, size: int) -> jax.Array:
    """The pixels along one axis with a weight above 0, and perhaps others: int32 `[R, size, T]`."""
    points, radius = _sampling(low, high, length, size)
    first = jnp.floor(points - radius).astype(jnp.int32) + 1
    return first[..., None] + jnp.arange(2 * math.ceil(length / size))


def _sampling(low: jax.Array, high: jax.Array, length: int, size: int) -> tuple[jax.Array, jax.Array]:
    """The centers of the triangle filters `[R, size]`, and half their width `[R, 1]`, pixels."""
    step = (high - low)[:, None] / size  # [R, 1]
    points = low[:, None] + step * (jnp.arange(size) + 0.5) - 0.5
    return jnp.clip(points, 0, length - 1), jnp.clip(step, 1, math.ceil(length / size))
