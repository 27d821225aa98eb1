"""Accuracy on rotated and on reduced images (the paper's Tables 1 and 2)."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jax.sharding import Mesh

from ssanet_jax.evaluation.accuracy import evaluate

Classifier = Callable[[jax.Array], jax.Array | np.ndarray]
ORIGINAL = 'original'
FULL, REDUCED = 448, 300  # sides in Table 2; other inputs are reduced by the same share


def turn(images: jax.Array, angles: jax.Array) -> jax.Array:
    """Rotates each image about its centre.

    Args:
      images: uint8 `[B, H, W, 3]`.
      angles: float32 `[B]`, degrees, counter-clockwise.

    Returns:
      uint8 `[B, H, W, 3]`, bilinear; what comes from outside is black.
    """
    height, width = images.shape[1:3]
    middle = jnp.array([(height - 1) / 2, (width - 1) / 2])
    y, x = jnp.meshgrid(jnp.arange(height) - middle[0], jnp.arange(width) - middle[1], indexing='ij')

    def one(image, angle):
        cos, sin = jnp.cos(jnp.radians(angle)), jnp.sin(jnp.radians(angle))
        origin = [y * cos + x * sin + middle[0], x * cos - y * sin + middle[1]]  # where each pixel comes from
        channels = [map_coordinates(image[..., i], origin, order=1, mode='constant') for i in range(image.shape[-1])]
        return jnp.stack(channels, -1)

    return _to_bytes(jax.vmap(one)(images.astype(jnp.float32), angles))


def reduce(images: jax.Array) -> jax.Array:
    """Shrinks each image to 300 / 448 of its side, and puts it in the middle of a black one of the old size.

    Args:
      images: uint8 `[B, H, H, 3]`.

    Returns:
      uint8 `[B, H, H, 3]`; the image in it has `round(H * 300 / 448)` pixels a side, bilinear with antialiasing.
    """
    batch, side, _, channels = images.shape
    small = round(side * REDUCED / FULL)
    shrunk = jax.image.resize(images.astype(jnp.float32), (batch, small, small, channels), 'linear')
    before = (side - small) // 2
    rim = (before, side - small - before)
    return jnp.pad(_to_bytes(shrunk), ((0, 0), rim, rim, (0, 0)))


# What the images go through: (images uint8 [B, H, H, 3], random angles [B]) -> images. Compiled one by one, so that
# only one changed batch lies on the device at a time.
CHANGES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    ORIGINAL: lambda images, angles: images,
    'rotated by 90': jax.jit(lambda images, angles: jnp.rot90(images, 1, (1, 2))),
    'rotated by 180': jax.jit(lambda images, angles: jnp.rot90(images, 2, (1, 2))),
    'rotated by 270': jax.jit(lambda images, angles: jnp.rot90(images, 3, (1, 2))),
    'rotated at random': jax.jit(turn),
    'reduced': jax.jit(lambda images, angles: reduce(images)),
}


@jax.jit
def random_angles(seed: int, index: jax.Array) -> jax.Array:
    """An angle for each image, uniform in [0, 360) degrees, that its position in the set and the seed determine.

    Args:
      seed: in [0, 2**32).
      index: int32 `[B]`, positions in the set.

    Returns:
      float32 `[B]`.
    """
    key = jax.random.key(seed)
    return jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), maxval=360.0))(index)


def robustness(
    classify: Classifier, batches: Iterable[dict[str, np.ndarray]], mesh: Mesh, seed: int = 0
) -> dict[str, Any]:
    """Accuracy of any classifier on images as they are, rotated and reduced.

    The network's input is changed, after resize and crop. The paper says neither by which angle it rotates nor with
    what it fills: here by each quarter turn (exact, nothing is lost), and by an angle drawn for each image, uniform
    in [0, 360) degrees, with black (0, before normalisation) in the corners that come from outside, as every
    evaluation puts black where there is no picture. "Reduced" is Table 2: 300 of 448 pixels, in the middle of black.

    Args:
      classify: images, uint8 `[B, S, S, 3]` on the devices of the mesh -> classes, integers `[B]`, or logits `[B, N]`.
      batches: from `pipeline.eval_batches`. Each image counts once; one that cannot be read counts as wrong.
      mesh: the devices.
      seed: of the random angles, in [0, 2**32).

    Returns:
      `{'accuracy': {change: share in [0, 1]}, 'drop': {change: percentage points lost against the original},
      'examples': number of images, 'unreadable': positions of those that could not be read, 'seed': seed}`.
    """

    def count(params, stats, batch):
        del params, stats  # the classifier has its own
        angles = random_angles(seed, batch['index'])
        readable = batch['mask'] & (batch['skipped'] < 0)
        right = {}
        for name, change in CHANGES.items():
            answer = jnp.asarray(classify(change(batch['image'], angles)))
            chosen = answer.argmax(-1) if answer.ndim == 2 else answer
            right[name] = jnp.sum((chosen == batch['label']) & readable)
        return {**right, 'sum': right[ORIGINAL], 'examples': jnp.sum(batch['mask'])}

    result = evaluate(count, {}, {}, batches, mesh)
    accuracy = result['heads']
    return {
        'accuracy': accuracy,
        'drop': {name: 100 * (accuracy[ORIGINAL] - value) for name, value in accuracy.items() if name != ORIGINAL},
        'examples': result['examples'],
        'unreadable': result['unreadable'],
        'seed': seed,
    }


def _to_bytes(images: jax.Array) -> jax.Array:
    return jnp.clip(jnp.round(images), 0, 255).astype(jnp.uint8)
