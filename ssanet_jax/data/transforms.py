"""From a decoded example to what the network takes, on the host, in uint8.

Images are first squeezed into a square (aspect ratio is given up, as in NTS-Net), then cropped.
Normalisation is the model's business and happens on the device.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import cv2
import grain
import numpy as np

# An image is shrunk if that leaves less than half of its pixels to decode.
_WORTH_SHRINKING = 1.5

INTERPOLATIONS = {'bilinear': cv2.INTER_LINEAR, 'bicubic': cv2.INTER_CUBIC}


def resize_image(image: np.ndarray, height: int, width: int, interpolation: str = 'bilinear') -> np.ndarray:
    """Resizes uint8 [H, W, 3] to uint8 [height, width, 3].

    Shrinking averages areas (OpenCV's interpolations would alias); growing interpolates.

    Args:
      interpolation: a key of `INTERPOLATIONS`.
    """
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] * image.shape[1] > height * width
    method = cv2.INTER_AREA if shrinks else INTERPOLATIONS[interpolation]
    return cv2.resize(image, (width, height), interpolation=method)


class ShrunkImage(NamedTuple):
    """An image that was stored smaller than it was."""

    data: bytes  # a JPEG file
    scale: float  # its pixels per pixel of the original


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
    if scale > 1 / _WORTH_SHRINKING:
        return None
    image = resize_image(image, round(height * scale), round(width * scale))
    settings = [
        cv2.IMWRITE_JPEG_QUALITY, 95,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]  # fmt: skip
    return ShrunkImage(cv2.imencode('.jpg', image[..., ::-1], settings)[1].tobytes(), scale)


@dataclasses.dataclass(frozen=True)
class ResizeSquare(grain.transforms.Map):
    """Squeezes the image to [resize, resize, 3]."""

    resize: int
    interpolation: str = 'bilinear'

    def map(self, element: dict[str, Any]) -> dict[str, Any]:
        return element | {'image': resize_image(element['image'], self.resize, self.resize, self.interpolation)}


@dataclasses.dataclass(frozen=True)
class CenterCrop(grain.transforms.Map):
    """Cuts the central [size, size, 3] out of a square image; for evaluation."""

    size: int

    def map(self, element: dict[str, Any]) -> dict[str, Any]:
        image = element['image']
        top = (image.shape[0] - self.size) // 2
        left = (image.shape[1] - self.size) // 2
        return element | {'image': image[top : top + self.size, left : left + self.size]}


def preprocess_for_evaluation(image: np.ndarray, data: Any) -> np.ndarray:
    """An image of any size, uint8 [H, W, 3] -> the network's input, as in evaluation: [S, S, 3].

    Args:
      data: the `data` section of a config (`resize`, `image_size`, `interpolation`).
    """
    square = ResizeSquare(data.resize, data.interpolation).map({'image': image})
    return CenterCrop(data.image_size).map(square)['image']


def to_source_pixels(boxes: np.ndarray, shape: tuple[int, int], data: Any) -> np.ndarray:
    """Boxes [K, 4] in pixels of `preprocess_for_evaluation`'s result -> pixels of the image it was made from.

    Args:
      shape: (height, width) of that image.
    """
    offset = (data.resize - data.image_size) // 2
    height, width = shape
    return (boxes + offset) * (np.array([height, width, height, width]) / data.resize)


def to_input_pixels(places: np.ndarray, shape: tuple[int, int], data: Any) -> np.ndarray:
    """The reverse of `to_source_pixels`, for boxes [..., 4] and points [..., 2], (y, x).

    Args:
      shape: (height, width) of the image.
    """
    offset = (data.resize - data.image_size) // 2
    return places * np.tile(data.resize / np.array(shape), places.shape[-1] // 2) - offset


@dataclasses.dataclass(frozen=True)
class RandomCropFlip(grain.transforms.RandomMap):
    """Cuts a random [size, size, 3] out of a square image and mirrors half of the crops.

    Attributes:
      size: side of the result.
      flip: whether to mirror left and right, with probability 1/2.
      scale_min: in (0, 1]. Below 1 the crop's side is uniform in [scale_min, 1] x size and the
        crop is then enlarged to ``size``.
      interpolation: how.
    """

    size: int
    flip: bool = True
    scale_min: float = 1.0
    interpolation: str = 'bilinear'

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Crops, mirrors and enlarges `element['image']`, uint8 [H, H, 3] -> [size, size, 3]."""
        image = element['image']
        side = self.size
        if self.scale_min < 1:
            side = max(round(self.size * rng.uniform(self.scale_min, 1)), 1)
        top = rng.integers(image.shape[0] - side + 1)
        left = rng.integers(image.shape[1] - side + 1)
        image = image[top : top + side, left : left + side]
        # Drawn in any case, so that turning flips off leaves the crops as they are.
        if rng.random() < 0.5 and self.flip:
            image = cv2.flip(image, 1)  # a reversed view would be slow to copy into the batch
        return element | {'image': resize_image(image, self.size, self.size, self.interpolation)}


@dataclasses.dataclass(frozen=True)
class ColorJitter(grain.transforms.RandomMap):
    """Changes brightness, contrast and saturation, each by a factor uniform in [1 - strength, 1 + strength].

    Attributes:
      strength: in [0, 1); 0 leaves images as they are.
    """

    strength: float

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Changes the colours of `element['image']`, uint8 [H, W, 3]."""
        if not self.strength:
            return element
        brightness, contrast, saturation = rng.uniform(1 - self.strength, 1 + self.strength, 3)
        image = element['image']
        # All three are affine in the colour of a pixel, so one matrix carries them out.
        matrix = np.eye(4)
        matrix[:3, :3] = saturation * np.eye(3) + (1 - saturation) * np.outer(np.ones(3), _LUMA)
        mean = float(image.reshape(-1, 3).mean(0) @ _LUMA)
        matrix[:3] *= contrast
        matrix[:3, 3] += (1 - contrast) * mean
        matrix[:3] *= brightness
        return element | {'image': cv2.transform(image, matrix[:3])}


# The share of each colour in what the eye takes for brightness (ITU-R BT.601).
_LUMA = np.array([0.299, 0.587, 0.114])


@dataclasses.dataclass(frozen=True)
class RandomErasing(grain.transforms.RandomMap):
    """Fills a random rectangle with noise (Zhong et al., Random Erasing, AAAI 2020).

    Attributes:
      probability: that an image is touched; 0 leaves all as they are.
    """

    probability: float
    AREA = (0.02, 0.33)  # of the rectangle, as a share of the image's
    RATIO = (0.3, 1 / 0.3)  # of its sides

    def random_map(self, element: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Erases a rectangle of a copy of `element['image']`, uint8 [H, W, 3]."""
        if not self.probability or rng.random() >= self.probability:
            return element
        image = element['image'].copy()
        height, width = image.shape[:2]
        area = rng.uniform(*self.AREA) * height * width
        ratio = np.exp(rng.uniform(*np.log(self.RATIO)))
        # A rectangle too long for the image is cut, where the paper draws again.
        h, w = min(round((area * ratio) ** 0.5), height), min(round((area / ratio) ** 0.5), width)
        top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
        image[top : top + h, left : left + w] = rng.integers(0, 256, (h, w, 3), np.uint8)
        return element | {'image': image}
