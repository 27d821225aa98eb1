"""The orientation of a whole image, so that its pixels can be turned upright before parts are located.

The feature map of a turned image is not the turned feature map, because the filters of a pretrained backbone expect
upright images. Where an image may be turned, turning its pixels back is the remedy. The orientation is predicted by a
linear classifier on features of the frozen backbone, which needs no labels: upright training images are turned by
known angles (Gidaris et al., Unsupervised Representation Learning by Predicting Image Rotations, ICLR 2018).

Orientation `t` of `T` means that the content of an image is turned by `t * 360 / T` degrees, counter-clockwise.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.scipy.ndimage import map_coordinates

from ssanet_jax.models import regions
from ssanet_jax.models.backbones.base import Backbone
from ssanet_jax.models.standardize import StandardizedLinear

QUARTERS = 4  # turns by multiples of 90 degrees permute pixels: they lose nothing


class Upright(nnx.Module):
    """Scores the orientations of images.

    The scores are equivariant to quarter turns by construction: four copies of a small view, each turned by a further
    90 degrees, are scored, and the scores of the same orientation are summed. A turned image thus gets the turned
    scores, and the same pixels after `turn_upright`.

    Args:
      num_features: D, channels of the backbone's map.
      num_angles: T, a multiple of 4.
      view_size: V, side of the view, pixels. At half the side of the network's view of the image, the four copies cost
        as much as that view.
      rngs: source of the random weights; `training/upright_fit.py` replaces them.
    """

    def __init__(self, num_features: int, num_angles: int, view_size: int, *, rngs: nnx.Rngs):
        if num_angles < QUARTERS or num_angles % QUARTERS:
            raise ValueError(f'the number of orientations must be a multiple of 4, such as 4 or 24; got {num_angles}')
        self.num_angles, self.view_size = num_angles, view_size
        self.classifier = StandardizedLinear(num_features, num_angles, rngs=rngs)

    def scores(self, backbone: Backbone, images: jax.Array) -> jax.Array:
        """The score of each orientation.

        Args:
          backbone: `[n, V, V, 3] -> [n, h, w, D]`. It uses the running statistics of BatchNorm, and they stay as they
            are.
          images: `[B, S, S, 3]`, normalized.

        Returns:
          float32 `[B, T]`, without a gradient.
        """
        logits = self.classifier(self.features(backbone, images))  # [4, B, T]
        return jax.lax.stop_gradient(sum_over_quarters(logits))

    def features(self, backbone: Backbone, images: jax.Array) -> jax.Array:
        """The averaged maps of the four quarter turns of images: `[B, S, S, 3]` -> `[4, B, D]`."""
        views = small_views(images, self.view_size, disc=self.num_angles > QUARTERS)  # [B, V, V, 3]
        # The copies of an image are neighbors, so that a batch that is distributed over devices stays where it is.
        copies = jnp.stack([jnp.rot90(views, turns, (1, 2)) for turns in range(QUARTERS)], 1)
        graph, weights = nnx.split(backbone)
        network = nnx.merge(graph, weights, copy=True)  # so that `eval` concerns only this pass
        network.eval()
        maps = network(copies.reshape(-1, *views.shape[1:]))  # [B * 4, h, w, D]
        averages = maps.astype(jnp.float32).mean((1, 2))
        return jnp.moveaxis(averages.reshape(images.shape[0], QUARTERS, -1), 1, 0)


def small_views(images: jax.Array, size: int, *, disc: bool) -> jax.Array:
    """Images at a smaller size.

    Args:
      images: `[B, S, S, 3]`, normalized.
      size: V, side of the views, pixels.
      disc: whether pixels outside the inscribed circle become 0, the mean color. An image that was turned by other
        angles than quarters has corners without content, which would give away the angle in place of its content.

    Returns:
      `[B, V, V, 3]`.
    """
    if images.shape[1] != size:
        whole = jnp.array([[0.0, 0.0, *images.shape[1:3]]])
        images = jax.vmap(lambda image: regions.crop(image, whole, size)[0])(images)
    if not disc:
        return images
    offset = jnp.arange(size) - (size - 1) / 2
    inside = offset[:, None] ** 2 + offset**2 <= (size / 2) ** 2  # [V, V]
    return jnp.where(inside[..., None], images, 0)


def sum_over_quarters(logits: jax.Array) -> jax.Array:
    """Sums the logits of four copies of images, each orientation with the corresponding ones of the other copies.

    Args:
      logits: `[4, ..., T]`; copy j is the image turned by j further quarters.

    Returns:
      `[..., T]`, of the images as given (copy 0).
    """
    quarter = logits.shape[-1] // QUARTERS
    return jnp.stack([jnp.roll(logits[turns], -turns * quarter, -1) for turns in range(QUARTERS)]).sum(0)


def turn_upright(images: jax.Array, orientation: jax.Array, num_angles: int) -> jax.Array:
    """Turns images upright: clockwise, by their orientation.

    Args:
      images: `[B, S, S, C]`, normalized, so that 0 is the mean color.
      orientation: int `[B]`, in 0..T-1.
      num_angles: T.

    Returns:
      `[B, S, S, C]`. Quarter turns are exact. Other angles are interpolated bilinearly, with 0 outside of the image.
    """
    quarters, rest = (table[orientation] for table in _angle_tables(num_angles))

    def turn(image: jax.Array, quarters: jax.Array) -> jax.Array:
        turns = [lambda x, k=k: jnp.rot90(x, -k) for k in range(QUARTERS)]
        return jax.lax.switch(quarters, turns, image)

    images = jax.vmap(turn)(images, quarters)
    return images if num_angles == QUARTERS else jax.vmap(rotate)(images, -rest)


def turn_boxes_back(boxes: jax.Array, orientation: jax.Array, num_angles: int, image_size: int) -> jax.Array:
    """Maps boxes in images that were turned upright to boxes in the images as given.

    Args:
      boxes: `[B, ..., 4]`, (y0, x0, y1, x1) in pixels of the upright images.
      orientation: int `[B]`, in 0..T-1.
      num_angles: T.
      image_size: S.

    Returns:
      `[B, ..., 4]`, exact for quarter turns. For other angles the center is mapped, and the sides are those after the
      nearest quarter turn, because a turned box is not parallel to the axes.
    """
    quarters, rest = (table[orientation] for table in _angle_tables(num_angles))

    def turn_back(boxes: jax.Array, quarters: jax.Array, rest: jax.Array) -> jax.Array:
        low, high = boxes[..., :2] - image_size / 2, boxes[..., 2:] - image_size / 2  # from the center of the image
        middle = (low + high) / 2
        cos, sin = jnp.cos(rest), jnp.sin(rest)
        y, x = middle[..., 0], middle[..., 1]
        shift = jnp.stack([y * cos - x * sin, x * cos + y * sin], -1) - middle
        turned = jnp.concatenate([low + shift, high + shift], -1)
        for _ in range(QUARTERS - 1):
            y0, x0, y1, x1 = jnp.moveaxis(turned, -1, 0)
            turned = jnp.where(quarters > 0, jnp.stack([-x1, y0, -x0, y1], -1), turned)
            quarters = quarters - 1
        return turned + image_size / 2

    return jax.vmap(turn_back)(boxes, quarters, rest)


def _angle_tables(num_angles: int) -> tuple[jax.Array, jax.Array]:
    """Each orientation as its nearest quarter turn, int `[T]` in 0..3, and the rest, float32 `[T]` in radians."""
    angles = np.arange(num_angles) * 360 / num_angles
    nearest = np.round(angles / 90).astype(np.int32)
    return jnp.asarray(nearest % QUARTERS), jnp.asarray(np.radians(angles - 90 * nearest), jnp.float32)


def rotate(image: jax.Array, angle: jax.Array) -> jax.Array:
    """Rotates an image `[H, W, C]` about its center, counter-clockwise by an angle in radians, bilinearly.

    What lies outside of the image is 0.
    """
    middle_y, middle_x = ((side - 1) / 2 for side in image.shape[:2])
    y, x = jnp.meshgrid(jnp.arange(image.shape[0]) - middle_y, jnp.arange(image.shape[1]) - middle_x, indexing='ij')
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    source = [y * cos + x * sin + middle_y, x * cos - y * sin + middle_x]  # where each pixel is sampled
    sample = lambda channel: map_coordinates(channel, source, order=1, mode='constant')
    return jax.vmap(sample, -1, -1)(image)
