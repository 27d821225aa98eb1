"""Resizing and encoding of images, by OpenCV where it is installed, else by NumPy and Pillow with the same results.

"The same" is to one level of 255: OpenCV computes with integers of 11 bits.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from ssanet_jax.data.opencv import cv2

_JPEG_QUALITY = 95
_SHARPNESS = -0.75  # of OpenCV's bicubic interpolation

# The first pixel that a pixel of the result reads, and the weights of that pixel and the following ones.
Band = tuple[int, np.ndarray]


def resize(image: np.ndarray, height: int, width: int, method: str) -> np.ndarray:
    """Resizes an image.

    Args:
      image: uint8 [H, W, 3].
      height, width: the size of the result, in pixels.
      method: 'area' averages the area of each new pixel; 'bilinear' and 'bicubic' interpolate.

    Returns:
      uint8 [height, width, 3].
    """
    if cv2 is None:
        return resize_by_numpy(image, height, width, method)
    flags = {'area': cv2.INTER_AREA, 'bilinear': cv2.INTER_LINEAR, 'bicubic': cv2.INTER_CUBIC}
    return cv2.resize(image, (width, height), interpolation=flags[method])


def resize_by_numpy(image: np.ndarray, height: int, width: int, method: str) -> np.ndarray:
    """`resize` without OpenCV."""
    bands = _BANDS[method]
    if method == 'area' and (image.shape[0] < height or image.shape[1] < width):
        bands = _mixed_bands  # what OpenCV does for an image that is enlarged along one of its axes
    rows = _combine(image, bands(image.shape[0], height))
    result = _combine(rows.swapaxes(0, 1), bands(image.shape[1], width)).swapaxes(0, 1)
    return np.clip(np.rint(result), 0, 255).astype(np.uint8)


def encode_jpeg(image: np.ndarray) -> bytes:
    """A JPEG file of quality 95 without chroma subsampling, of an image uint8 [H, W, 3]."""
    if cv2 is None:
        file = io.BytesIO()
        Image.fromarray(image).save(file, 'JPEG', quality=_JPEG_QUALITY, subsampling=0)
        return file.getvalue()
    settings = [
        cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]  # fmt: skip
    return cv2.imencode('.jpg', image[..., ::-1], settings)[1].tobytes()


def _combine(image: np.ndarray, bands: Sequence[Band]) -> np.ndarray:
    """Weighted sums of neighboring rows: `[H, W, 3]` -> float32 `[len(bands), W, 3]`."""
    result = np.empty((len(bands), *image.shape[1:]), np.float32)
    for index, (first, weights) in enumerate(bands):
        result[index] = np.tensordot(weights, image[first : first + len(weights)].astype(np.float32), 1)
    return result


def _area_bands(length: int, size: int) -> list[Band]:
    """Each new pixel covers length / size pixels, those at its ends in part."""
    scale = length / size
    bands = []
    for index in range(size):
        low, high = index * scale, min((index + 1) * scale, length)
        first, last = int(low), min(int(np.ceil(high - 1e-9)), length)
        pixels = np.arange(first, last)
        covered = np.minimum(pixels + 1, high) - np.maximum(pixels, low)
        bands.append((first, (covered / covered.sum()).astype(np.float32)))
    return bands


def _mixed_bands(length: int, size: int) -> list[Band]:
    scale = length / size
    bands = []
    for index in range(size):
        pixel = int(index * scale)
        share = (index + 1) - (pixel + 1) / scale
        share = share - int(share) if share > 0 else 0.0
        bands.append(_band([pixel, pixel + 1], [1 - share, share], length))
    return bands


def _interpolation_bands(kernel: Callable[[float], Sequence[float]]) -> Callable[[int, int], list[Band]]:
    """Bands of an interpolation between pixel centers; `kernel` gives the weights of the pixels around a point."""

    def bands(length: int, size: int) -> list[Band]:
        result = []
        for index in range(size):
            point = (index + 0.5) * length / size - 0.5
            weights = kernel(point - np.floor(point))
            first = int(np.floor(point)) - len(weights) // 2 + 1
            result.append(_band(range(first, first + len(weights)), weights, length))
        return result

    return bands


def _bilinear(share: float) -> Sequence[float]:
    return 1 - share, share


def _bicubic(share: float) -> Sequence[float]:
    """Keys' cubic convolution (IEEE Transactions on Acoustics, Speech, and Signal Processing, 1981)."""
    a = _SHARPNESS
    near = lambda x: ((a + 2) * x - (a + 3)) * x * x + 1
    far = lambda x: ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return far(share + 1), near(share), near(1 - share), far(2 - share)


def _band(pixels: Sequence[int], weights: Sequence[float], length: int) -> Band:
    """The weights of pixels, those outside of the image moved to its border."""
    inside = np.clip(pixels, 0, length - 1)
    first = int(inside[0])
    return first, np.bincount(inside - first, weights).astype(np.float32)


_BANDS: dict[str, Callable[[int, int], list[Band]]] = {
    'area': _area_bands,
    'bilinear': _interpolation_bands(_bilinear),
    'bicubic': _interpolation_bands(_bicubic),
}
