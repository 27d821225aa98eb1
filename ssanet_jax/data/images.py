"""Image files of any common kind -> uint8 RGB. The only place that decodes."""

from __future__ import annotations

import io
import re

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ssanet_jax.errors import UnreadableImage

# The pipeline runs one decoder per thread; OpenCV's own threads on top would only fight them.
cv2.setNumThreads(0)

# Pillow knows many more kinds; to read some of them (EPS) it starts other programs.
_KINDS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF', 'GIF')
# A few bytes can promise any number of pixels. Of more than these Pillow warns.
_MOST_PIXELS = 89_478_485
# Each scan of a JPEG may go over all its pixels again. A progressive one has about ten.
_MOST_SCANS = 100


def decode_image(data: bytes, file: str) -> np.ndarray:
    """Decodes an image and turns it upright.

    Grayscale is repeated over the channels, palettes are looked up, CMYK is converted,
    transparency is laid over white, 16-bit values keep their high byte and an EXIF rotation is
    carried out.

    Args:
      data: the bytes of the file (JPEG, PNG, WebP, BMP, TIFF, GIF: first frame).
      file: its name, for the error message.

    Returns:
      uint8 [H, W, 3], RGB.

    Raises:
      UnreadableImage: the bytes are truncated, damaged or no image, or are too many pixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_KINDS) as image:
            width, height = image.size
            if not 0 < width * height <= _MOST_PIXELS:
                raise ValueError(
                    f'{width} x {height} pixels, where at most {_MOST_PIXELS // 10**6} million can be read'
                )
            if image.format in ('JPEG', 'MPO'):
                _check_jpeg(data)
                if image.mode in ('RGB', 'L'):
                    # Same pixels as Pillow's, in two thirds of the time. OpenCV turns the image
                    # upright itself; where it gives up, Pillow decides whether the file is readable.
                    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
                    if pixels is not None:
                        return pixels
            return from_pillow(image)
    # Decoders of damaged files raise almost anything: OSError, SyntaxError, struct.error,
    # DecompressionBombError, ... To the reader they all mean the same.
    except Exception as error:
        reason = ' '.join(str(error).split()) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = f'not one of {", ".join(_KINDS)}'
        raise UnreadableImage(
            f'cannot read the image {file} ({reason}): replace the file or remove it from the set'
        ) from error


def from_pillow(image: Image.Image) -> np.ndarray:
    """A Pillow image -> uint8 `[H, W, 3]`, RGB, converted and turned upright as `decode_image` does it."""
    return np.array(_to_rgb(ImageOps.exif_transpose(image)))


_JPEG_MARKER = re.compile(rb'\xff+([^\x00\xff])')


def _check_jpeg(data: bytes) -> None:
    """Refuses a JPEG without an end, of which some decoders fill the rest with gray, and one of very many scans."""
    place, marker = 2, 0
    while marker != 0xDA:  # Start of the first scan. A preview in the segments before it has an end of its own.
        found = _JPEG_MARKER.search(data, place)
        if not found:
            raise ValueError('the file is cut off')
        marker, place = found[1][0], found.end()
        if not (marker == 0x01 or 0xD0 <= marker <= 0xD9):  # the markers that stand alone
            place += int.from_bytes(data[place : place + 2])
    # Inside scans the end marker's bytes mean nothing else.
    end = data.find(b'\xff\xd9', place)
    if end < 0:
        raise ValueError('the file is cut off')
    if data.count(b'\xff\xda', place, end) >= _MOST_SCANS:
        raise ValueError(f'more than {_MOST_SCANS} scans')


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith('I'):
        # 16-bit gray. `convert` would clip everything above 255 to white.
        values = np.asarray(image)
        if image.mode.startswith('I;16') or values.max(initial=0) > 255:
            values = values >> 8
        return Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert('RGB')
    if image.mode == 'F':
        raise ValueError('floating-point pixels have no agreed range')
    if image.has_transparency_data:
        image = image.convert('RGBA')
        white = Image.new('RGBA', image.size, 'white')
        return Image.alpha_composite(white, image).convert('RGB')
    return image.convert('RGB')
