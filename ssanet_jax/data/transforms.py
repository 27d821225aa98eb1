"""Preprocessing and augmentation of decoded images, in uint8 on the host.

Images are resized to a square without keeping their aspect ratio, as in NTS-Net, and then cropped. The model
normalizes them on the device.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import cv2
import grain
import numpy as np

# An image is shrunk if that leaves less than half of its pixels to decode.
_MIN_SHRINK_FACTOR = 1.5

INTERPOLATIONS = {'bilinear': cv2.INTER_LINEAR, 'bicubic': cv2.INTER_CUBIC}


def resize_image(image: np.ndarray, height: int, width: int, interpolation: str = 'bilinear') -> np.ndarray:
    """Resizes an image. Images are shrunk by area averaging, since OpenCV's interpolations alias.

    Args:
      image: uint8 [H, W, 3].
      height, width: the size of the result, in pixels.
      interpolation: how images are enlarged, a key of `INTERPOLATIONS`.

    Returns:
      uint8 [height, width, 3].
    """
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] * image.shape[1] > height * width
    method = cv2.INTER_AREA if shrinks else INTERPOLATIONS[interpolation]
    return cv2.resize(image, (width, height), interpolation=method)


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
    settings = [
        cv2.IMWRITE_JPEG_QUALITY, 95,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]  # fmt: skip
    return ShrunkImage(cv2.imencode('.jpg', image[..., ::-1], settings)[1].tobytes(), scale)


@dataclasses.dataclass(frozen=True)
class ResizeSquare(grain.transforms.Map):
    """Resizes the image to [resize, resize, 3], whatever its aspect ratio."""

    resize: int
    interpolation: str = 'bilinear'

    def map(self, element: dict[str, Any]) -> dict[str, Any]:
        return element | {'image': resize_image(element['image'], self.resize, self.resize, self.interpolation)}


@dataclasses.dataclass(frozen=True)
class CenterCrop(grain.transforms.Map):
    """Crops the center [size, size, 3] of a square image, for evaluation."""

    size: int

    def map(self, element: dict[str, Any]) -> dict[str, Any]:
        image = element['image']
        top = (image.shape[0] - self.size) // 2
        left = (image.shape[1] - self.size) // 2
        return element | {'image': image[top : top + self.size, left : left + self.size]}


def preprocess_for_evaluation(image: np.ndarray, data: Any) -> np.ndarray:
    """Resizes and crops an image to the network's input size S = `image_size`, as evaluation does.

    Args:
      image: uint8 [H, W, 3].
      data: the `data` section of a configuration (`resize`, `image_size`, `interpolation`).

    Returns:
      uint8 [S, S, 3].
    """
    square = ResizeSquare(data.resize, data.interpolation).map({'image': image})
    return CenterCrop(data.image_size).map(square)['image']


def to_source_pixels(boxes: np.ndarray, shape: tuple[int, int], data: Any) -> np.ndarray:
    """Maps boxes from the network's input back to the original image.

    Args:
      boxes: [K, 4], (y0, x0, y1, x1) in pixels of the result of `preprocess_for_evaluation`.
      shape: (height, width) of the original image, in pixels.
      data: the `data` section of a configuration.

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
      data: the `data` section of a configuration.

    Returns:
      Of the shape of `coordinates`, in pixels of the result of `preprocess_for_evaluation`.
    """
    offset = (data.resize - data.image_size) // 2
    return coordinates * np.tile(data.resize / np.array(shape), coordinates.shape[-1] // 2) - offset


@dataclasses.dataclass(frozen=True)
class RandomCropFlip(grain.transforms.RandomMap):
    """Crops a random [size, size, 3] from a square image, and flips it horizontally with probability 1/2.

    Attributes:
      size: side of the result, in pixels.
      flip: whether to flip.
      scale_min: smallest crop, in (0, 1]. If it is below 1, the side of the crop is uniform in [scale_min, 1] x size,
        and the crop is enlarged to ``size``.
      interpolation: how it is enlarged, a key of `INTERPOLATIONS`.
    """

    size: int
    flip: bool = True
    scale_min: float = 1.0
    interpolation: str = 'bilinear'

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Crops, flips and enlarges `element['image']`, uint8 [H, H, 3] -> [size, size, 3].

        Adds `element['view']`, float32 [4]: where the upper left and the lower right corner of the result, (y0, x0, y1,
        x1), lie in the given image, as shares of its side. x0 > x1 if it is flipped.
        """
        image = element['image']
        whole = image.shape[0]
        side = self.size
        if self.scale_min < 1:
            side = max(round(self.size * rng.uniform(self.scale_min, 1)), 1)
        top = rng.integers(image.shape[0] - side + 1)
        left = rng.integers(image.shape[1] - side + 1)
        image = image[top : top + side, left : left + side]
        x0, x1 = left, left + side
        # Drawn in any case, so that the crops do not depend on `flip`.
        if rng.random() < 0.5 and self.flip:
            image = cv2.flip(image, 1)  # a view with negative strides would be slow to copy into the batch
            x0, x1 = x1, x0
        view = np.array([top, x0, top + side, x1], np.float32) / whole
        return element | {'image': resize_image(image, self.size, self.size, self.interpolation), 'view': view}


@dataclasses.dataclass(frozen=True)
class ColorJitter(grain.transforms.RandomMap):
    """Scales brightness, contrast and saturation, each by a factor uniform in [1 - strength, 1 + strength].

    Attributes:
      strength: the largest relative change, in [0, 1); 0 turns it off.
    """

    strength: float

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Changes the colors of `element['image']`, uint8 [H, W, 3]."""
        if not self.strength:
            return element
        brightness, contrast, saturation = rng.uniform(1 - self.strength, 1 + self.strength, 3)
        image = element['image']
        # All three are affine maps of a pixel's color, so that one matrix combines them.
        matrix = np.eye(4)
        matrix[:3, :3] = saturation * np.eye(3) + (1 - saturation) * np.outer(np.ones(3), _LUMA)
        mean = float(image.reshape(-1, 3).mean(0) @ _LUMA)
        matrix[:3] *= contrast
        matrix[:3, 3] += (1 - contrast) * mean
        matrix[:3] *= brightness
        return element | {'image': cv2.transform(image, matrix[:3])}


# Weights of red, green and blue in the luma of ITU-R BT.601.
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclasses.dataclass(frozen=True)
class RandomErasing(grain.transforms.RandomMap):
    """Fills a random rectangle with noise (Zhong et al., "Random Erasing Data Augmentation", AAAI 2020).

    Attributes:
      probability: the probability of erasing, in [0, 1); 0 turns it off.
    """

    probability: float
    AREA = (0.02, 0.33)  # range of the rectangle's area, as a fraction of the image's
    RATIO = (0.3, 1 / 0.3)  # range of its aspect ratio, height over width

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Erases a rectangle of a copy of `element['image']`, uint8 [H, W, 3]."""
        if not self.probability or rng.random() >= self.probability:
            return element
        image = element['image'].copy()
        height, width = image.shape[:2]
        area = rng.uniform(*self.AREA) * height * width
        ratio = np.exp(rng.uniform(*np.log(self.RATIO)))
        # The rectangle is clipped to the image; the paper draws again instead.
        h, w = min(round((area * ratio) ** 0.5), height), min(round((area / ratio) ** 0.5), width)
        top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
        image[top : top + h, left : left + w] = rng.integers(0, 256, (h, w, 3), np.uint8)
        return element | {'image': image}
