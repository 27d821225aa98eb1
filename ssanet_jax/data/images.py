"""Decoding of image files to uint8 RGB."""

from __future__ import annotations

import contextlib
import ctypes
import io
import re
import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ssanet_jax.data.color_profiles import srgb_transform, to_srgb
from ssanet_jax.data.deep_pixels import bits_used, read_deep, reduce_to_8_bits
from ssanet_jax.data.file_kinds import UnsupportedImage, check_tags, choose_page, may_be_deep, split_png, unrecognized
from ssanet_jax.data.image_formats import explain_content, readable_formats
from ssanet_jax.data.opencv import cv2
from ssanet_jax.errors import UnreadableImage

# A tiny file can declare any number of pixels. Pillow warns above this limit.
MAX_PIXELS = 89_478_485
# Larger images are decoded one at a time and converted in strips, which bounds the memory: a decoder needs up to 4
# bytes per pixel, and the result 3.
_LARGE = 16_000_000
_LARGE_IMAGES = threading.RLock()
_STRIP = 256  # rows
_MALLOC_TRIM = getattr(ctypes.CDLL(None), 'malloc_trim', None) if sys.platform == 'linux' else None  # glibc has it
# Uncompressed bytes per byte of a large file. Photos have less than a hundred; a file that has more is a bomb.
_MAX_COMPRESSION = 300
# Each scan of a JPEG may decode all pixels again. A progressive JPEG has about ten scans.
_MAX_SCANS = 100


def decode_image(data: bytes, file: str, bit_depth: int = 16, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes an image file to upright sRGB.

    The EXIF orientation is applied, colors are converted from the file's color profile, grayscale, palette and CMYK
    become RGB, and transparent pixels are blended with white.

    Args:
      data: the contents of a file in one of `image_formats.readable_formats`; of an animation, the first frame.
      file: its name, for the error message.
      bit_depth: bits that the values of 16-bit images use in this data set, the highest 8 of which are kept; 0 for as
        many as each image needs (see `deep_pixels`).
      max_pixels: the most pixels that the header may declare.

    Returns:
      uint8 [H, W, 3], RGB.

    Raises:
      UnreadableImage: the file is truncated, damaged, not an image, too large, or of an unsupported kind.
    """
    try:
        with _open(data, max_pixels) as (image, profile):
            if image.format in ('JPEG', 'MPO'):
                _check_jpeg(data)
                if cv2 is not None and (image.mode == 'RGB' or (image.mode == 'L' and not profile)):
                    # The same pixels as Pillow's in two thirds of the time, with the EXIF orientation applied.
                    # If OpenCV fails, Pillow decides whether the file is readable.
                    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
                    if pixels is not None:
                        if profile and srgb_transform(profile, 'RGB') is not None:
                            for strip in _strips(pixels):
                                strip[...] = np.array(to_srgb(Image.fromarray(strip), profile))
                        return pixels
            return _to_array(image, profile, read_deep(image, data), bit_depth)
    # Decoders raise almost anything for damaged files: OSError, SyntaxError, struct.error, DecompressionBombError.
    except Exception as error:
        if isinstance(error, UnidentifiedImageError):
            error = unrecognized(data) or UnidentifiedImageError(explain_content(data))
        reason = ' '.join(str(error).split()) or type(error).__name__
        cure = error.cure if isinstance(error, UnsupportedImage) else 'replace the file or move it out of the data set'
        raise UnreadableImage(f'cannot read the image {file} ({reason}): {cure}', reason) from error


def measure_bit_depth(data: bytes) -> int:
    """The bits that the values of a 16-bit image file use, one of `BIT_DEPTHS`; 0 for other files."""
    if not may_be_deep(data):
        return 0
    try:
        with _open(data) as (image, _):
            values = read_deep(image, data)
    except Exception:  # `decode_image` reports it
        return 0
    return 0 if values is None else bits_used(values)


def from_pillow(image: Image.Image, bit_depth: int = 16) -> np.ndarray:
    """Converts a Pillow image to uint8 `[H, W, 3]`, RGB, in the same way as `decode_image`."""
    return _to_array(image, image.info.get('icc_profile'), read_deep(image, None), bit_depth)


@contextlib.contextmanager
def _open(data: bytes, max_pixels: int = MAX_PIXELS) -> Iterator[tuple[Image.Image, bytes | None]]:
    """Opens an image file at the page that counts; also returns its color profile."""
    stripped, profile = split_png(data)
    check_tags(data)
    with Image.open(io.BytesIO(stripped), formats=readable_formats()) as image:
        page = choose_page(image, data)
        if page:
            image.seek(page)
        width, height = image.size
        if not 0 < width * height <= min(max_pixels, MAX_PIXELS):
            limit = min(max_pixels, MAX_PIXELS) / 1e6
            raise ValueError(f'{width} x {height} pixels exceed the limit of {limit:.3g} million')
        check_tags(image.info.get('exif') or b'')
        with _decoding_slot(image):
            if _is_large(image):
                size = width * height * len(image.getbands()) // (8 if image.mode == '1' else 1)
                if size > _MAX_COMPRESSION * len(data):
                    raise ValueError(f'{width} x {height} pixels in {len(data)} bytes, which is no photo')
            yield image, profile or image.info.get('icc_profile')


@contextlib.contextmanager
def _decoding_slot(image: Image.Image) -> Iterator[None]:
    """A context in which an opened image may be decoded: only one thread at a time is in that of a large image.

    At its end, the memory of a large image is returned to the system: glibc would keep it for the thread, and as much
    again for each other thread that decodes such an image.
    """
    if not _is_large(image):
        yield
        return
    with _LARGE_IMAGES:
        try:
            yield
        finally:
            image.close()
            if _MALLOC_TRIM:
                _MALLOC_TRIM(0)


def _is_large(image: Image.Image) -> bool:
    return image.width * image.height > _LARGE


def _to_array(image: Image.Image, profile: bytes | None, deep: np.ndarray | None, bit_depth: int) -> np.ndarray:
    if _is_large(image):
        return _to_array_in_strips(image, profile, deep, bit_depth)
    if deep is not None:
        # Of a TIFF, both Pillow and OpenCV apply the orientation when they read the pixels.
        orientation = None if image.format == 'TIFF' else image.getexif().get(ExifTags.Base.Orientation)
        image = reduce_to_8_bits(deep, bit_depth)
        if orientation:
            image.getexif()[ExifTags.Base.Orientation] = orientation
    return np.array(_to_rgb(ImageOps.exif_transpose(image), profile))


def _to_array_in_strips(
    image: Image.Image, profile: bytes | None, deep: np.ndarray | None, bit_depth: int
) -> np.ndarray:
    """As `_to_array`, with less memory."""
    orientation = None
    if deep is not None:
        orientation = None if image.format == 'TIFF' else image.getexif().get(ExifTags.Base.Orientation)
        bit_depth = bit_depth or bits_used(deep)
    else:
        image.load()  # applies the orientation of a TIFF
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    height, width = deep.shape[:2] if deep is not None else (image.height, image.width)
    pixels = np.empty((height, width, 3), np.uint8)
    for top, strip in zip(range(0, height, _STRIP), _strips(pixels)):
        end = top + len(strip)
        part = image.crop((0, top, width, end)) if deep is None else reduce_to_8_bits(deep[top:end], bit_depth)
        strip[...] = np.asarray(_to_rgb(part, profile))
    upright = _UPRIGHT.get(orientation)
    return pixels if upright is None else np.ascontiguousarray(upright(pixels))


def _strips(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """Views of a few rows each."""
    return (pixels[top : top + _STRIP] for top in range(0, len(pixels), _STRIP))


# EXIF orientation -> the image as it is to be seen.
_UPRIGHT: dict[object, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}

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


def _to_rgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    if image.mode == 'F':
        raise UnsupportedImage('floating-point values, which have no standard range', 'save it with 8 or 16 bits')
    alpha = None
    if image.has_transparency_data:
        gray = image.mode in ('L', 'LA', 'La')
        image = image.convert('RGBA')
        alpha = image.getchannel('A')
        image = image.convert('L' if gray else 'RGB')
    elif image.mode not in ('L', 'RGB', 'CMYK', 'LAB'):
        image = image.convert('L' if image.mode == '1' else 'RGB')
    image = to_srgb(image, profile).convert('RGB')
    if alpha is not None:
        image.putalpha(alpha)
        white = Image.new('RGBA', image.size, 'white')
        return Image.alpha_composite(white, image).convert('RGB')
    return image
