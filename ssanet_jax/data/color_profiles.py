"""Conversion of images with an ICC color profile to sRGB, with LittleCMS."""

from __future__ import annotations

import functools
import io
from typing import Any, cast

import numpy as np
from PIL import Image, ImageCms

# Color space of a profile -> mode of the images that it describes.
_MODES = {'RGB': 'RGB', 'GRAY': 'L', 'CMYK': 'CMYK'}
_TOLERANCE = 2  # of 255: profiles that are this close to sRGB are taken for it, which leaves the pixels as they are


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Converts an image to sRGB, relative to white and with black point compensation, as browsers do.

    A profile that is damaged, or of another color space than the image, is ignored, as browsers do, too.

    Args:
      image: of mode L, RGB, CMYK or LAB.
      profile: the ICC profile that came with it, or None.

    Returns:
      An image of mode RGB; of mode L if a grayscale image needs no conversion.
    """
    transform = srgb_transform(profile, image.mode) if profile or image.mode == 'LAB' else None
    if transform is not None:
        return transform.apply(image)
    return image if image.mode in ('L', 'RGB') else image.convert('RGB')


@functools.lru_cache(maxsize=16)  # the images of a data set share a few profiles
def srgb_transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The conversion of a profile's colors to sRGB.

    Args:
      profile: an ICC profile; ignored for mode LAB, which describes colors without one.
      mode: L, RGB, CMYK or LAB.

    Returns:
      The transform to mode RGB, or None if there is none or none is needed.
    """
    try:
        if mode == 'LAB':
            source = ImageCms.ImageCmsProfile(ImageCms.createProfile('LAB'))
        else:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile or b''))
            if _MODES.get(cast(Any, source.profile).xcolor_space.strip()) != mode:
                return None
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile('sRGB'),
            mode,
            'RGB',
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return None if mode in ('L', 'RGB') and _is_identity(transform, mode) else transform


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    levels = np.linspace(0, 255, 18).astype(np.uint8)
    colors = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    if mode == 'L':
        colors = np.arange(256, dtype=np.uint8)[None]
    result = np.asarray(transform.apply(Image.fromarray(colors))).astype(int)
    expected = np.stack([colors] * 3, -1) if mode == 'L' else colors
    return np.abs(result - expected).max() <= _TOLERANCE
