"""Images of 16 bits per channel.

Cameras and microscopes of 10, 12 or 14 bits store their values in 16 bits, mostly without scaling them, and no field of
the file says so. The values of all images of a data set therefore count: they use the smallest of `BIT_DEPTHS` that
holds the largest value. One depth for all images keeps their brightness comparable.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from ssanet_jax.data.file_kinds import UnsupportedImage, is_deep
from ssanet_jax.data.opencv import cv2

BIT_DEPTHS = (8, 10, 12, 14, 16)

_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # of a TIFF


def read_deep(image: Image.Image, data: bytes | None) -> np.ndarray | None:
    """The values of an image of 16 bits per channel.

    Args:
      image: the opened file, or an image in memory.
      data: the contents of the file; None for an image in memory.

    Returns:
      uint16 `[H, W]` or `[H, W, C]`, gray, RGB or RGBA; None for other images.

    Raises:
      UnsupportedImage: values beyond 16 bits, or a file that only its high bytes can be read of.
    """
    if image.mode.startswith('I'):
        values = np.asarray(image)
        if values.size and not 0 <= int(values.min()) <= int(values.max()) < 1 << 16:
            raise UnsupportedImage(
                f'integers from {values.min()} to {values.max()}, which have no standard range',
                'save it with 8 or 16 bits per channel',
            )
        if getattr(image, 'tag_v2', {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
            raise UnsupportedImage('16 bits per channel where 0 is white', 'save it with 0 as black')
        return values.astype(np.uint16)
    if data is None or image.mode not in ('LA', 'RGB', 'RGBA', 'RGBX') or not is_deep(image, data):
        return None
    if cv2 is None:
        raise UnsupportedImage('16 bits per channel, which need OpenCV', 'install opencv-python-headless')
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)  # Pillow only keeps the high bytes
    if values is None or values.dtype != np.uint16:
        raise UnsupportedImage('16 bits per channel in a form that cannot be read', 'save it with 8 bits per channel')
    if 'transparency' in image.info:
        raise UnsupportedImage('16 bits per channel with a transparent color', 'save it with 8 bits per channel')
    if values.ndim == 3 and values.shape[2] in (3, 4):
        values = values[..., [2, 1, 0, 3][: values.shape[2]]]
        values = values[..., :3] if image.mode in ('RGB', 'RGBX') else values
    return values


def bits_used(values: np.ndarray) -> int:
    """The smallest of `BIT_DEPTHS` that holds the values of an image, without its alpha channel."""
    largest = _largest(values)
    return next(bits for bits in BIT_DEPTHS if largest < 1 << bits)


def reduce_to_8_bits(values: np.ndarray, bit_depth: int) -> Image.Image:
    """Keeps the 8 highest of the bits used.

    Args:
      values: uint16 `[H, W]` or `[H, W, C]`, see `read_deep`.
      bit_depth: bits that the values use; 0 for as many as this image needs.

    Returns:
      An image of mode L, LA, RGB or RGBA.

    Raises:
      UnsupportedImage: a value has more bits.
    """
    depth = bit_depth or bits_used(values)
    if (largest := _largest(values)) >> depth:
        raise UnsupportedImage(
            f'its values of 16 bits reach {largest}, but those of the data set use {depth} bits',
            'move it out of the data set, or set config.data.bit_depth=16 and train again',
        )
    reduced = (values >> (depth - 8)).astype(np.uint8)
    if values.ndim == 3 and values.shape[2] in (2, 4):  # an alpha channel may use all bits although the colors do not
        alpha = values[..., -1]
        reduced[..., -1] = alpha >> (8 if int(alpha.max(initial=0)) >> depth else depth - 8)
    return Image.fromarray(reduced)


def _largest(values: np.ndarray) -> int:
    colors = values[..., :-1] if values.ndim == 3 and values.shape[2] in (2, 4) else values
    return int(colors.max(initial=0))
