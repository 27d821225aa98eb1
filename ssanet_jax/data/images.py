"""Decoding of image files to uint8 RGB."""

from __future__ import annotations

import io
import re

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ssanet_jax.data.image_files import explain_content, readable_formats
from ssanet_jax.errors import UnreadableImage

# The pipeline runs one decoder per thread; more threads inside OpenCV would compete with them.
cv2.setNumThreads(0)

# A tiny file can declare any number of pixels. Pillow warns above this limit.
_MAX_PIXELS = 89_478_485
# Each scan of a JPEG may decode all pixels again. A progressive JPEG has about ten scans.
_MAX_SCANS = 100


def decode_image(data: bytes, file: str) -> np.ndarray:
    """Decodes an image file and applies its EXIF orientation.

    Grayscale and palette images and CMYK are converted to RGB, transparent pixels are blended with white, and 16-bit
    values are reduced to their high byte.

    Args:
      data: the contents of a file in one of `image_files.readable_formats`; of an animation, the first frame.
      file: its name, for the error message.

    Returns:
      uint8 [H, W, 3], RGB.

    Raises:
      UnreadableImage: the file is truncated, damaged, not an image or too large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=readable_formats()) as image:
            width, height = image.size
            if not 0 < width * height <= _MAX_PIXELS:
                raise ValueError(f'{width} x {height} pixels exceed the limit of {_MAX_PIXELS // 10**6} million')
            if image.format in ('JPEG', 'MPO'):
                _check_jpeg(data)
                if image.mode in ('RGB', 'L'):
                    # The same pixels as Pillow's in two thirds of the time, with the EXIF orientation applied.
                    # If OpenCV fails, Pillow decides whether the file is readable.
                    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
                    if pixels is not None:
                        return pixels
            return from_pillow(image)
    # Decoders raise almost anything for damaged files: OSError, SyntaxError, struct.error, DecompressionBombError.
    except Exception as error:
        reason = ' '.join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = explain_content(data)
        raise UnreadableImage(
            f'cannot read the image {file} ({reason}): replace the file or remove it from the data set'
        ) from error


def from_pillow(image: Image.Image) -> np.ndarray:
    """Converts a Pillow image to uint8 `[H, W, 3]`, RGB, in the same way as `decode_image`."""
    return np.array(_to_rgb(ImageOps.exif_transpose(image)))


_JPEG_MARKER = re.compile(rb'\xff+([^\x00\xff])')


def _check_jpeg(data: bytes) -> None:
    """Raises ValueError for a truncated JPEG, which some decoders fill with gray, and for one with too many scans."""
    place, marker = 2, 0
    while marker != 0xDA:  # start of the first scan; an embedded preview before it has an end marker, too
        found = _JPEG_MARKER.search(data, place)
        if not found:
            raise ValueError('the file is truncated')
        marker, place = found[1][0], found.end()
        if not (marker == 0x01 or 0xD0 <= marker <= 0xD9):  # markers without a segment
            place += int.from_bytes(data[place : place + 2])
    # Entropy-coded data never contains the bytes of the end marker.
    end = data.find(b'\xff\xd9', place)
    if end < 0:
        raise ValueError('the file is truncated')
    if data.count(b'\xff\xda', place, end) >= _MAX_SCANS:
        raise ValueError(f'more than {_MAX_SCANS} scans')


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith('I'):
        # 16-bit grayscale, which `convert` would clip at 255.
        values = np.asarray(image)
        if image.mode.startswith('I;16') or values.max(initial=0) > 255:
            values = values >> 8
        return Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert('RGB')
    if image.mode == 'F':
        raise ValueError('floating-point pixels have no standard range')
    if image.has_transparency_data:
        image = image.convert('RGBA')
        white = Image.new('RGBA', image.size, 'white')
        return Image.alpha_composite(white, image).convert('RGB')
    return image.convert('RGB')
