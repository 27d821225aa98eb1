"""What the prototypes of a network attend to, as pictures."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.drawing import contact_sheet, draw_named_boxes, part_color
from ssanet_jax.evaluation.explanation import part_name
from ssanet_jax.models.groups import UPRIGHT
from ssanet_jax.models.prototypes import PrototypeParts
from ssanet_jax.models.ssanet import SSANet
from ssanet_jax.models.upright import turn_upright

_DIMMED = 0.35  # brightness of pixels that a part does not attend to


class Attention(NamedTuple):
    """Where the parts of a batch of images are looked for, and where they are found."""

    images: np.ndarray  # uint8 [B, S, S, 3], turned upright if the network does so
    angles: np.ndarray  # float32 [B], degrees, clockwise, by which each image was turned
    boxes: np.ndarray  # float32 [B, K, 4], the parts, pixels of `images`
    attention: np.ndarray  # float32 [B, h, w, K], sums to 1 over the cells


def attend(model: SSANet, images: np.ndarray, active: Collection[str]) -> Attention:
    """Computes what each part attends to.

    Args:
      model: a network with `proposal='prototypes'`.
      images: uint8 `[B, S, S, 3]`, its inputs.
      active: the groups that take part, for whether images are turned upright.

    Raises:
      UserError: the network has no prototypes.
    """
    if not isinstance(model.proposals, PrototypeParts) or model.proposals.random:
        raise UserError("only networks with config.model.proposal='prototypes' have prototypes")
    graph, state = nnx.split(model)

    @jax.jit
    def locate(state: nnx.State, images: jax.Array) -> tuple[jax.Array, ...]:
        model = nnx.merge(graph, state)
        model.eval()
        angles = jnp.zeros(len(images))
        pixels = model.normalize(images)
        if model.upright is not None and UPRIGHT in active:
            orientation = model.upright.scores(model.backbone, pixels).argmax(-1)
            pixels = turn_upright(pixels, orientation, model.upright.num_angles)
            images = model.denormalize(pixels)
            angles = orientation * (360 / model.upright.num_angles)
        parts = model.locate(model.global_map(pixels))
        return images, angles, parts.boxes, parts.attention

    return Attention(*(np.asarray(array) for array in locate(state, jnp.asarray(images))))


def draw_attention(
    picture: np.ndarray, attention: np.ndarray, color: tuple[int, int, int], center: float, stride: float
) -> np.ndarray:
    """Draws an image dimmed, except where a part attends to it.

    Args:
      picture: uint8 `[H, W, 3]`, RGB, in any proportions.
      attention: float `[h, w]`, >= 0.
      color: mixed into the pixels by their attention, RGB.
      center: where the center of the first cell lies, as a share of the picture's height and of its width.
      stride: from a cell to the next, as a share of the picture's height and of its width.

    Returns:
      uint8 `[H, W, 3]`.
    """
    height, width = picture.shape[:2]
    # From pixels to cells: (x + 0.5) / width is a place in the picture, as a share of its width.
    strength = cv2.warpAffine(
        attention.astype(np.float32),
        np.array(
            [
                [1 / (width * stride), 0, (0.5 / width - center) / stride],
                [0, 1 / (height * stride), (0.5 / height - center) / stride],
            ]
        ),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )[..., None]  # [H, W, 1]
    strength = strength / max(float(strength.max()), 1e-12)
    lit = picture * (1 - 0.4 * strength) + 0.4 * strength * np.array(color)
    return np.round(_DIMMED * picture * (1 - strength) + lit * strength).astype(np.uint8)


def attention_sheet(
    model: SSANet,
    images: np.ndarray,
    photo_sizes: Sequence[tuple[int, int]],
    active: Collection[str],
    *,
    side: int = 224,
) -> np.ndarray:
    """Draws one row per image: its parts, then what the object and each part attend to.

    Args:
      model, images, active: as for `attend`.
      photo_sizes: height and width of the photo from which each image was made. The pictures have its proportions,
        which the network's square input has not.
      side: longer side of each picture, pixels.

    Returns:
      uint8 `[H, W, 3]`, RGB.
    """
    found = attend(model, images, active)
    center = model.backbone.center(model.global_size) / model.global_size
    stride = model.backbone.stride / model.global_size
    pictures = []
    for image, angle, boxes, attention, photo_size in zip(*found, photo_sizes):
        height, width = picture_size(photo_size, angle, side)
        shrinks = height * width < image.shape[0] * image.shape[1]
        picture = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        zoom = np.tile(np.array([height, width]) / image.shape[:2], 2)
        names = {part: part_name(part, True).removeprefix('part ') for part in range(len(boxes))}
        boxed = picture.copy()
        draw_named_boxes(boxed, dict(enumerate(boxes * zoom)), names)
        pictures.append(boxed)
        for part, weights in enumerate(np.moveaxis(attention, -1, 0)):
            pictures.append(draw_attention(picture, weights, part_color(part), center, stride))
    return contact_sheet(pictures, columns=1 + found.attention.shape[-1])


def picture_size(photo_size: tuple[int, int], angle: float, side: int) -> tuple[int, int]:
    """The size of a picture that shows a squeezed and turned photo in its own proportions again.

    A quarter turn exchanges height and width. After other turns a squeezed image is slanted, which no stretch of its
    height and width undoes. They then get proportions in between: at 45 degrees the picture is a square.

    Args:
      photo_size: height and width of the photo, pixels.
      angle: by which the square image was turned, degrees.
      side: longer side of the picture, pixels.

    Returns:
      Height and width of the picture, pixels.
    """
    height, width = photo_size
    ratio = (width / height) ** np.cos(2 * np.radians(angle))
    return max(round(side / max(ratio, 1)), 1), max(round(side * min(ratio, 1)), 1)
