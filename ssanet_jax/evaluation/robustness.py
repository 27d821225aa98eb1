"""Accuracy on rotated and downscaled images (the paper's Tables 1 and 2)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ssanet_jax.evaluation.accuracy import HeadPredictions, evaluate
from ssanet_jax.models import upright
from ssanet_jax.runs.image_predictions import SUM, ImagePredictions

Classifier = Callable[[jax.Array], jax.Array | np.ndarray]
ORIGINAL = 'original'
FULL_SIDE, REDUCED_SIDE = 448, 300  # in Table 2; other inputs are reduced in the same ratio


@dataclass(frozen=True)
class RobustnessResult:
    """Accuracies under perturbations of the images.

    Attributes:
      accuracy: accuracy in [0, 1], by name of the perturbation.
      drop: percentage points lost against the original images.
      examples: number of images.
      unreadable: positions of the images that could not be read.
      seed: the seed of the random angles.
      images: the predictions for every image, by name of the perturbation.
    """

    accuracy: dict[str, float]
    drop: dict[str, float]
    examples: int
    unreadable: list[int]
    seed: int
    images: ImagePredictions = field(compare=False, repr=False)


def rotate(images: jax.Array, angles: jax.Array) -> jax.Array:
    """Rotates each image about its center.

    Args:
      images: uint8 `[B, H, W, 3]`.
      angles: float32 `[B]`, degrees, counter-clockwise.

    Returns:
      uint8 `[B, H, W, 3]`, bilinearly interpolated, black outside of the original image.
    """
    return _to_uint8(jax.vmap(upright.rotate)(images.astype(jnp.float32), jnp.radians(angles)))


def shrink_and_pad(images: jax.Array) -> jax.Array:
    """Shrinks each image to 300 / 448 of its side and pads it with black to the original size.

    Args:
      images: uint8 `[B, H, H, 3]`.

    Returns:
      uint8 `[B, H, H, 3]`; the shrunk image in the middle has side `round(H * 300 / 448)`, bilinearly interpolated
      with antialiasing.
    """
    batch, side, _, channels = images.shape
    small = round(side * REDUCED_SIDE / FULL_SIDE)
    shrunk = jax.image.resize(images.astype(jnp.float32), (batch, small, small, channels), 'linear')
    before = (side - small) // 2
    padding = (before, side - small - before)
    return jnp.pad(_to_uint8(shrunk), ((0, 0), padding, padding, (0, 0)))


# Perturbations: (images uint8 [B, H, H, 3], random angles [B]) -> images. Each is compiled separately, so that only
# one perturbed batch is on the device at a time.
PERTURBATIONS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    ORIGINAL: lambda images, angles: images,
    'rotated by 90': jax.jit(lambda images, angles: jnp.rot90(images, 1, (1, 2))),
    'rotated by 180': jax.jit(lambda images, angles: jnp.rot90(images, 2, (1, 2))),
    'rotated by 270': jax.jit(lambda images, angles: jnp.rot90(images, 3, (1, 2))),
    'rotated at random': jax.jit(rotate),
    'reduced': jax.jit(lambda images, angles: shrink_and_pad(images)),
}


def random_angles(seed: int, index: jax.Array) -> jax.Array:
    """Draws an angle for each image, uniform in [0, 360) degrees, from the seed and its position in the set.

    Args:
      seed: the seed, in [0, 2**32).
      index: int32 `[B]`, positions in the set.

    Returns:
      float32 `[B]`.
    """
    return _draw_angles(np.uint32(seed), index)  # seeds from 2**31 on do not fit int32, the default


@jax.jit
def _draw_angles(seed: np.uint32, index: jax.Array) -> jax.Array:
    key = jax.random.key(seed)
    return jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), maxval=360.0))(index)


def evaluate_robustness(
    classify: Classifier, batches: Iterable[dict[str, np.ndarray]], mesh: Mesh, seed: int = 0
) -> RobustnessResult:
    """Computes the accuracy of a classifier on the original, rotated and downscaled images.

    The perturbations apply to the network's input, after resizing and cropping. The paper states neither the rotation
    angles nor the fill value: here, each multiple of 90 degrees (exact and lossless) and an angle drawn for each image,
    uniform in [0, 360) degrees, with black (0 before normalization) outside of the original image, as in every
    evaluation. "Reduced" is Table 2: 300 of 448 pixels, in the middle of black.

    Args:
      classify: images, uint8 `[B, S, S, 3]` on the devices of the mesh -> classes, integers `[B]`, or logits `[B, N]`.
      batches: from `pipeline.eval_batches`. Each image counts once; an unreadable image counts as wrong.
      mesh: the devices.
      seed: the seed of the random angles, in [0, 2**32).
    """

    def classify_perturbed(params, stats, batch):
        del params, stats  # the classifier has its own
        angles = random_angles(seed, batch['index'])
        predicted = {}
        for name, perturb in PERTURBATIONS.items():
            output = jnp.asarray(classify(perturb(batch['image'], angles)))
            predicted[name] = HeadPredictions(output.argmax(-1) if output.ndim == 2 else output)
        return {**predicted, SUM: predicted[ORIGINAL]}

    evaluation = evaluate(classify_perturbed, {}, {}, batches, mesh)
    accuracy = evaluation.heads
    return RobustnessResult(
        accuracy=accuracy,
        drop={name: 100 * (accuracy[ORIGINAL] - value) for name, value in accuracy.items() if name != ORIGINAL},
        examples=evaluation.examples,
        unreadable=evaluation.unreadable,
        seed=seed,
        images=evaluation.images,
    )


def _to_uint8(images: jax.Array) -> jax.Array:
    return jnp.clip(jnp.round(images), 0, 255).astype(jnp.uint8)
