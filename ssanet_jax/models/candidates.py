"""Scale candidates: each part's box at S scales (section 3.2 of the paper)."""

import jax
import jax.numpy as jnp
import numpy as np

# Columns of a box (y0, x0, y1, x1) that form its corners. The order breaks ties of distance:
# top-left, top-right, bottom-left, bottom-right.
_CORNER_Y = np.array([0, 0, 2, 2])
_CORNER_X = np.array([1, 3, 1, 3])


def scale_factors(scales: int, alpha: float) -> np.ndarray:
    """The factors `alpha ** e`, e = -(S-1)/2 ... (S-1)/2: float32 `[S]`, from the smallest to the largest.

    Args:
      scales: S, odd.
      alpha: ratio of neighboring factors, > 1.

    Raises:
      ValueError: S is even, or alpha is not greater than 1.
    """
    if scales < 1 or scales % 2 == 0:
        raise ValueError(f'num_scales must be odd, so that one of the scales is the original; got {scales}')
    if not alpha > 1:
        raise ValueError(f'alpha must be greater than 1; got {alpha}')
    return (alpha ** (np.arange(scales) - (scales - 1) / 2)).astype(np.float32)


def scale_candidates(boxes: jax.Array, scales: int, alpha: float) -> jax.Array:
    """Shrinks and expands the boxes of one image towards the object (section 3.2 of the paper).

    The center of the object is estimated as the mean of the centers of the K boxes. psi, the corner of a box farthest
    from it, stays fixed when the box expands; eta, the nearest corner, stays fixed when the box shrinks.

    Args:
      boxes: `[K, 4]`, the boxes of one image, pixels.
      scales: S, odd.
      alpha: ratio of the sides between neighboring scales, > 1.

    Returns:
      `[K, S, 4]`, smallest first; the candidate at index (S-1)/2 is the box itself.

    Raises:
      ValueError: S is even, or alpha is not greater than 1.
    """
    factors = scale_factors(scales, alpha)
    center = ((boxes[:, :2] + boxes[:, 2:]) / 2).mean(0)  # [2]
    corners = jnp.stack([boxes[:, _CORNER_Y], boxes[:, _CORNER_X]], -1)  # [K, 4, 2]
    distance = jnp.square(corners - center).sum(-1)  # [K, 4]
    part = jnp.arange(len(boxes))
    psi = corners[part, distance.argmax(1)]  # [K, 2]
    eta = corners[part, distance.argmin(1)]  # [K, 2]

    expanded = factors >= 1
    fixed = jnp.where(expanded[None, :, None], psi[:, None], eta[:, None])  # [K, S, 2]
    low = fixed + (boxes[:, None, :2] - fixed) * factors[None, :, None]
    high = fixed + (boxes[:, None, 2:] - fixed) * factors[None, :, None]
    return jnp.concatenate([low, high], -1)  # [K, S, 4]


def centered_candidates(boxes: jax.Array, scales: int, alpha: float) -> jax.Array:
    """Shrinks and expands boxes about their centers, for parts whose centers are known (`models/prototypes.py`).

    Args:
      boxes: `[..., 4]`.
      scales, alpha: see `scale_candidates`.

    Returns:
      `[..., S, 4]`, smallest first; the candidate at index (S-1)/2 is the box itself.

    Raises:
      ValueError: S is even, or alpha is not greater than 1.
    """
    low, high = boxes[..., None, :2], boxes[..., None, 2:]
    middle, half = (low + high) / 2, (high - low) / 2 * scale_factors(scales, alpha)[:, None]
    return jnp.concatenate([middle - half, middle + half], -1)
