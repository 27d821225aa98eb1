"""From a decoded photo to the input of a network, without randomness, and from its pixels back to those of the photo.

Images are resized to a square without keeping their aspect ratio, as in NTS-Net, and then cropped. The model
normalizes them on the device.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from ssanet_jax.data.resizing import encode_jpeg, resize

INTERPOLATIONS = ('bilinear', 'bicubic')
# An image is shrunk if that leaves less than half of its pixels to decode.
_MIN_SHRINK_FACTOR = 1.5


@dataclasses.dataclass(frozen=True)
class InputSettings:
    """How a photo becomes the input of a network."""

    image_size: int  # S, side of the input, pixels
    resize: int  # R, side to which the photo is resized before its center is cropped
    interpolation: str  # how small photos are enlarged, one of `INTERPOLATIONS`
    shrink: bool  # whether photos that are much larger are shrunk before
    bit_depth: int  # bits that the values of images of 16 bits per channel use; 0 if unknown

    @classmethod
    def from_config(cls, data: Any) -> InputSettings:
        """The settings of the `data` section of a configuration."""
        return cls(
            image_size=data.image_size,
            resize=data.resize,
            interpolation=data.interpolation,
            shrink=bool(data.get('shrink')) and data.get('name') != 'toy_birds',  # drawn birds are not kept on disk
            bit_depth=data.get('bit_depth', 0),
        )


def resize_image(image: np.ndarray, height: int, width: int, interpolation: str = 'bilinear') -> np.ndarray:
    """Resizes an image. Images are shrunk by area averaging, since OpenCV's interpolations alias.

    Args:
      image: uint8 [H, W, 3].
      height, width: the size of the result, in pixels.
      interpolation: how images are enlarged, one of `INTERPOLATIONS`.

    Returns:
      uint8 [height, width, 3].
    """
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] * image.shape[1] > height * width
    return resize(image, height, width, 'area' if shrinks else interpolation)


class ShrunkImage(NamedTuple):
    """A shrunk image, encoded."""

    data: bytes  # a JPEG file
    scale: float  # pixels per pixel of the original


def shrink_image(image: np.ndarray, side: int) -> ShrunkImage | None:
    """Shrinks an image that is much larger than the network needs.

    Args:
      image: uint8 `[H, W, 3]`, RGB.
      side: the shorter side that the network needs, pixels.

    Returns:
      The image with that shorter side, as a JPEG of quality 95 without chroma subsampling; None if the shorter side
      of the original is less than 1.5 times `side`, so that shrinking would save little.
    """
    height, width = image.shape[:2]
    scale = side / min(height, width)
    if scale > 1 / _MIN_SHRINK_FACTOR:
        return None
    image = resize_image(image, round(height * scale), round(width * scale))
    return ShrunkImage(encode_jpeg(image), scale)


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """The center `[size, size, 3]` of a square image, for evaluation."""
    start = (image.shape[0] - size) // 2
    return image[start : start + size, start : start + size]


def preprocess_for_evaluation(image: np.ndarray, data: Any) -> np.ndarray:
    """Resizes and crops an image to the network's input size S = `image_size`, as evaluation does.

    Args:
      image: uint8 [H, W, 3].
      data: the `data` section of a configuration, or `InputSettings`.

    Returns:
      uint8 [S, S, 3].
    """
    return center_crop(resize_image(image, data.resize, data.resize, data.interpolation), data.image_size)


def to_source_pixels(boxes: np.ndarray, shape: tuple[int, int], data: Any) -> np.ndarray:
    """Maps boxes from the network's input back to the original image.

    Args:
      boxes: [K, 4], (y0, x0, y1, x1) in pixels of the result of `preprocess_for_evaluation`.
      shape: (height, width) of the original image, in pixels.
      data: the `data` section of a configuration, or `InputSettings`.

    Returns:
      [K, 4], in pixels of the original image.
    """
    offset = (data.resize - data.image_size) // 2
    height, width = shape
    return (boxes + offset) * (np.array([height, width, height, width]) / data.resize)


def boxes_of_view(boxes: np.ndarray, views: np.ndarray, size: int) -> np.ndarray:
    """Maps boxes from augmented views of images (`RandomCropFlip`) back to the images.

    Args:
      boxes: [B, K, 4], (y0, x0, y1, x1) in pixels of the views.
      views: [B, 4], the place of each view in its image, as shares of the image's height and width.
      size: side of the views, pixels.

    Returns:
      [B, K, 4], as shares of the images' height and width.
    """
    start, extent = views[:, None, :2], views[:, None, 2:] - views[:, None, :2]  # [B, 1, 2]
    corners = [start + boxes[..., i : i + 2] / size * extent for i in (0, 2)]
    return np.concatenate([np.minimum(*corners), np.maximum(*corners)], -1)


def to_input_pixels(coordinates: np.ndarray, shape: tuple[int, int], data: Any) -> np.ndarray:
    """Maps boxes or points from the original image to the network's input; the inverse of `to_source_pixels`.

    Args:
      coordinates: boxes [..., 4] or points [..., 2], (y, x), in pixels of the original image.
      shape: (height, width) of the original image, in pixels.
      data: the `data` section of a configuration, or `InputSettings`.

    Returns:
      Of the shape of `coordinates`, in pixels of the result of `preprocess_for_evaluation`.
    """
    offset = (data.resize - data.image_size) // 2
    return coordinates * np.tile(data.resize / np.array(shape), coordinates.shape[-1] // 2) - offset
