"""Positions of the patches of a vision transformer: learned ones at any grid size, and rotary ones."""

import math
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

_ROTARY_BASE = 100.0  # of the rotary periods, as in DINOv3


def resize_positions(positions: jax.Array, height: int, width: int, antialias: bool) -> jax.Array:
    """Interpolates learned positions bicubically to another grid, as transformers does for DINOv2.

    Args:
      positions: `[H, W, C]`, float32.
      height: rows of the new grid.
      width: columns of the new grid.
      antialias: see `bicubic_weights`.

    Returns:
      `[height, width, C]`.
    """
    rows = bicubic_weights(positions.shape[0], height, antialias)  # [height, H]
    columns = bicubic_weights(positions.shape[1], width, antialias)  # [width, W]
    # In full precision: the products are small, and their errors would move every patch.
    return jnp.einsum('hH,wW,HWC->hwC', rows, columns, positions, precision=jax.lax.Precision.HIGHEST)


@lru_cache
def bicubic_weights(length: int, size: int, antialias: bool) -> np.ndarray:
    """The weights of bicubic interpolation along one axis, as in `torch.nn.functional.interpolate`.

    Keys, "Cubic convolution interpolation for digital image processing", 1981. Torch takes a = -0.75 and repeats the
    border. With antialiasing, it takes a = -0.5, widens the filter to the step where the axis shrinks, and leaves out
    what lies beyond the border.

    Args:
      length: samples along the axis.
      size: samples of the result.
      antialias: which of the two.

    Returns:
      Float32 `[size, length]`; each row sums to 1.
    """
    step = length / size
    points = (np.arange(size) + 0.5) * step - 0.5  # [size], in samples of the input
    if antialias:
        weights = _cubic((points[:, None] - np.arange(length)) / max(step, 1), -0.5)  # [size, length]
        return (weights / weights.sum(1, keepdims=True)).astype(np.float32)
    weights = np.zeros((size, length))
    for offset in range(-1, 3):
        samples = np.floor(points).astype(int) + offset
        at = np.arange(size), samples.clip(0, length - 1)
        np.add.at(weights, at, _cubic(points - samples, -0.75))
    return weights.astype(np.float32)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """The cubic kernel, nonzero for distances below 2 (Keys, Eq. 8, for any a)."""
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


@lru_cache
def rotary_angles(height: int, width: int, head_size: int) -> np.ndarray:
    """The angles by which DINOv3 turns the queries and keys of each patch.

    Su et al., "RoFormer", 2021, for two axes: half of the angles are those of the row, half those of the column. The
    coordinates of the patches' centers lie in (-1, 1) along each axis, at any grid size (Siméoni et al., "DINOv3",
    2025).

    Args:
      height: rows of patches.
      width: columns of patches.
      head_size: channels of a head, a multiple of 4.

    Returns:
      Float32 `[height * width, head_size / 2]`; `apply_rotary` applies them.
    """
    coordinates = [2 * (np.arange(count) + 0.5) / count - 1 for count in (height, width)]
    grid = np.stack(np.meshgrid(*coordinates, indexing='ij'), -1).reshape(-1, 2, 1)  # [h * w, 2, 1]
    periods = _ROTARY_BASE ** (np.arange(head_size // 4) * 4 / head_size)
    return (2 * math.pi * grid / periods).reshape(len(grid), -1).astype(np.float32)


def apply_rotary(x: jax.Array, angles: np.ndarray | jax.Array) -> jax.Array:
    """Turns pairs of channels, i and i + D / 2, of the last tokens; those before them have no position.

    Args:
      x: queries or keys `[B, T, heads, D]`.
      angles: `[n, D / 2]`, for the last n of the T tokens.

    Returns:
      The same shape and type; computed in float32.
    """
    cos, sin = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]  # [n, 1, D / 2]
    first = x.shape[1] - len(angles)
    low, high = jnp.split(x[:, first:].astype(jnp.float32), 2, -1)
    turned = jnp.concatenate([low * cos - high * sin, high * cos + low * sin], -1).astype(x.dtype)
    return jnp.concatenate([x[:, :first], turned], 1)
