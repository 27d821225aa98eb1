"""Image files of any common kind -> uint8 RGB. The only place that decodes."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image, ImageOps

from ssanet_jax.errors import UserError

# The pipeline runs one decoder per thread; OpenCV's own threads on top would only fight them.
cv2.setNumThreads(0)


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
      UserError: the bytes are truncated, damaged or no image.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.format == 'JPEG' and image.mode in ('RGB', 'L') and _ends_properly(data):
                # Same pixels as Pillow's, in two thirds of the time. OpenCV turns the image
                # upright itself; where it gives up, Pillow decides whether the file is readable.
                pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
                if pixels is not None:
                    return pixels
            return np.array(_to_rgb(ImageOps.exif_transpose(image)))
    # Decoders of damaged files raise almost anything: OSError, SyntaxError, struct.error,
    # DecompressionBombError, ... To the reader they all mean the same.
    except Exception as error:
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise UserError(
            f'cannot read the image {file} ({reason}): replace the file or remove it from the set'
        ) from error


def _ends_properly(data: bytes) -> bool:
    """Whether a JPEG has its end marker; some OpenCV versions fill what is missing with gray."""
    return b'\xff\xd9' in data[-64:]


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith('I'):
        # 16-bit gray. `convert` would clip everything above 255 to white.
        values = np.asarray(image).astype(np.int64)
        if values.max(initial=0) > 255 or image.mode.startswith('I;16'):
            values = values >> 8
        return Image.fromarray(values.clip(0, 255).astype(np.uint8)).convert('RGB')
    if image.mode == 'F':
        raise ValueError('floating-point pixels have no agreed range')
    if image.has_transparency_data:
        image = image.convert('RGBA')
        white = Image.new('RGBA', image.size, 'white')
        return Image.alpha_composite(white, image).convert('RGB')
    return image.convert('RGB')
