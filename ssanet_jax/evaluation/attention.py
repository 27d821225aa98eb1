"""What the prototypes of a network attend to, as pictures."""

from collections.abc import Collection
from typing import NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.drawing import PART_COLORS, contact_sheet, draw_parts
from ssanet_jax.models.groups import UPRIGHT
from ssanet_jax.models.prototypes import PrototypeParts
from ssanet_jax.models.ssanet import SSANet
from ssanet_jax.models.upright import turn_upright

_DIMMED = 0.35  # brightness of pixels that a part does not attend to


class Attention(NamedTuple):
    """Where the parts of a batch of images are looked for, and where they are found."""

    images: np.ndarray  # uint8 [B, S, S, 3], turned upright if the network does so
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
        if model.upright is not None and UPRIGHT in active:
            orientation = model.upright.scores(model.backbone, model.normalize(images)).argmax(-1)
            turned = turn_upright(images.astype(jnp.float32), orientation, model.upright.num_angles)
            images = jnp.round(turned).astype(jnp.uint8)
        parts = model.locate(model.global_map(images))
        return images, parts.boxes, parts.attention

    return Attention(*(np.asarray(array) for array in locate(state, jnp.asarray(images))))


def draw_attention(
    image: np.ndarray, attention: np.ndarray, color: tuple[int, int, int], center: float, stride: float, side: int
) -> np.ndarray:
    """Draws an image dimmed, except where a part attends to it.

    Args:
      image: uint8 `[S, S, 3]`, RGB.
      attention: float `[h, w]`, >= 0.
      color: mixed into the pixels by their attention, RGB.
      center: pixel of the image at the center of the first cell of the map.
      stride: pixels of the image per cell.
      side: side of the picture, pixels.

    Returns:
      uint8 `[side, side, 3]`.
    """
    zoom = side / len(image)
    picture = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC if zoom > 1 else cv2.INTER_AREA)
    # From the centers of the picture's pixels to cells: (x + 0.5) / zoom is a position in the image.
    scale, shift = 1 / (zoom * stride), (0.5 / zoom - center) / stride
    strength = cv2.warpAffine(
        attention.astype(np.float32),
        np.array([[scale, 0, shift], [0, scale, shift]]),
        (side, side),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )[..., None]  # [side, side, 1]
    strength = strength / max(float(strength.max()), 1e-12)
    lit = picture * (1 - 0.4 * strength) + 0.4 * strength * np.array(color)
    return np.round(_DIMMED * picture * (1 - strength) + lit * strength).astype(np.uint8)


def attention_sheet(model: SSANet, images: np.ndarray, active: Collection[str], *, side: int = 224) -> np.ndarray:
    """Draws one row per image: its parts, then what the object and each part attend to.

    Args:
      model, images, active: as for `attend`.
      side: side of each picture, pixels.

    Returns:
      uint8 `[H, W, 3]`, RGB.
    """
    found = attend(model, images, active)
    scale = model.image_size / model.global_size
    center, stride = model.backbone.center(model.global_size) * scale, model.backbone.stride * scale
    pictures = []
    for image, boxes, attention in zip(*found):
        pictures.append(draw_parts(image, boxes, (), side=side)[:side])
        for part, weights in enumerate(np.moveaxis(attention, -1, 0)):
            color = PART_COLORS[part % len(PART_COLORS)]
            pictures.append(draw_attention(image, weights, color, center, stride, side))
    return contact_sheet(pictures, columns=1 + found.attention.shape[-1])
