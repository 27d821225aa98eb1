"""Preprocessing and augmentation of decoded images as transforms of Grain, in uint8 on the host."""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import grain
import numpy as np

from ssanet_jax.data.preprocessing import center_crop, resize_image


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
        return element | {'image': center_crop(element['image'], self.size)}


@dataclasses.dataclass(frozen=True)
class RandomCropFlip(grain.transforms.RandomMap):
    """Crops a random [size, size, 3] from a square image, and flips it horizontally with probability 1/2.

    Attributes:
      size: side of the result, in pixels.
      flip: whether to flip.
      scale_min: smallest crop, in (0, 1]. If it is below 1, the side of the crop is uniform in [scale_min, 1] x size,
        and the crop is enlarged to ``size``.
      interpolation: how it is enlarged, 'bilinear' or 'bicubic'.
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
