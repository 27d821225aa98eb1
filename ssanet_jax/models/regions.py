"""Resampling of boxes: crops of an image, and RoI features of a feature map.

Both use separable bilinear weights, that is, two small matrix products (as in `jax.image.scale_and_translate`). They
run on the matrix units of an accelerator, which gathers do not.
"""

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
    alias. Outside of the image its border is repeated.

    Args:
      image: `[H, W, C]`.
      boxes: `[R, 4]`, pixels.
      size: side of the result.

    Returns:
      `[R, size, size, C]`.
    """
    y0, x0, y1, x1 = jnp.moveaxis(boxes, -1, 0)
    rows = _triangle_weights(y0, y1, image.shape[0], size).astype(image.dtype)  # [R, size, H]
    columns = _triangle_weights(x0, x1, image.shape[1], size).astype(image.dtype)  # [R, size, W]
    bands = jnp.einsum('rih,hwc->riwc', rows, image)  # [R, size, W, C]
    return jnp.einsum('rjw,riwc->rijc', columns, bands)


def _triangle_weights(low: jax.Array, high: jax.Array, length: int, size: int) -> jax.Array:
    """Weights of `crop` along one axis: `[R]`, `[R]` -> `[R, size, length]`; each row sums to 1."""
    step = (high - low) / size  # [R]
    points = low[:, None] + step[:, None] * (jnp.arange(size) + 0.5) - 0.5  # [R, size]
    points = jnp.clip(points, 0, length - 1)
    width = jnp.maximum(step, 1)[:, None, None]
    tent = jnp.maximum(0, 1 - jnp.abs(points[..., None] - jnp.arange(length)) / width)  # [R, size, length]
    return tent / tent.sum(-1, keepdims=True)
