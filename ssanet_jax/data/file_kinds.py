"""Reads the kind, the pages and the bits per channel of an image file from its headers."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

from PIL import Image, TiffImagePlugin

from ssanet_jax.data.image_formats import image_format, readable_formats

_PNG = b'\x89PNG\r\n\x1a\n'
_TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
_MAX_PROFILE = 1 << 25  # bytes of a decompressed color profile; printers' profiles have a few million
_MAX_PAGES = 1000

# Tags of TIFF.
_SUBFILE, _OLD_SUBFILE, _BITS, _CHANNELS, _SAMPLE_FORMAT, _DNG_VERSION = 254, 255, 258, 277, 339, 50706
_REDUCED, _MASK = 1, 4  # bits of _SUBFILE
_FLOAT = 3  # _SAMPLE_FORMAT

# Directories of tags: each of many tags can be the same large piece of the file, which Pillow would copy.
_MAX_TAGS = 2000
_TAG_SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)  # bytes per value, by the type of the tag

_CONVERT = 'convert it to JPEG or PNG'


class UnsupportedImage(ValueError):
    """A file that is whole, but of a kind that cannot be read.

    Args:
      reason: what it holds.
      cure: what the user can do.
    """

    def __init__(self, reason: str, cure: str = _CONVERT):
        super().__init__(reason)
        self.cure = cure


def unrecognized(data: bytes) -> Exception | None:
    """Why Pillow does not recognize a file that begins like a supported format; None for other files."""
    name = image_format(data[:32])
    if name == 'TIFF':
        try:
            tags = next(_tiff_pages(data))
            bits, channels = max(tags[_BITS]), tags[_CHANNELS]
            floating = _FLOAT in tags.get(_SAMPLE_FORMAT, ())
        except Exception:  # of any type, from damaged files
            return ValueError('a damaged or truncated TIFF')
        if floating:
            return _floating(bits)
        return UnsupportedImage(f'a TIFF of {channels} channels of {bits} bits, which cannot be read')
    return ValueError(f'a damaged or truncated {name}') if name in readable_formats() else None


def _floating(bits: int) -> UnsupportedImage:
    return UnsupportedImage(
        f'floating-point values of {bits} bits, which have no standard range', 'save it with 8 or 16 bits per channel'
    )


def choose_page(image: Image.Image, data: bytes) -> int:
    """The page of a TIFF that holds the image, where previews and masks do not count; 0 for other files.

    Raises:
      UnsupportedImage: it is a camera raw file, or has several pages, or floating-point values.
    """
    if image.format != 'TIFF':
        return 0
    pages = list(_tiff_pages(data))
    if image_format(data[:32]) == 'camera raw' or any(_DNG_VERSION in tags for tags in pages):
        raise UnsupportedImage('camera raw, which is not supported')
    full = [
        index
        for index, tags in enumerate(pages)
        if not tags.get(_SUBFILE, 0) & (_REDUCED | _MASK) and tags.get(_OLD_SUBFILE) != 2
    ]
    if len(full) > 1:
        raise UnsupportedImage(
            f'{len(full)} pages, and only one can be the image', 'save the page that counts as a file of its own'
        )
    if pages and not full:
        raise UnsupportedImage('a preview without its image, such as a camera raw file has')
    if full and _FLOAT in (tags := pages[full[0]]).get(_SAMPLE_FORMAT, ()):
        raise _floating(max(tags.get(_BITS, (32,))))
    return full[0] if full else 0


def check_tags(data: bytes) -> None:
    """Checks the directories of tags in a TIFF file or in EXIF data, before Pillow reads them.

    Args:
      data: a file or EXIF data of any kind.

    Raises:
      ValueError: the tags of all directories together are far larger than the data.
    """
    data = data.removeprefix(b'Exif\0\0')
    if not data.startswith(_TIFF):
        return
    order = '<' if data[:1] == b'I' else '>'
    big = b'+' in data[2:4]
    pointer, head, entry = ('Q', 'Q', 'HHQQ') if big else ('I', 'H', 'HHII')
    size, place = struct.calcsize(f'<{entry}'), struct.calcsize(f'<{head}')
    (start,) = struct.unpack_from(f'{order}{pointer}', data.ljust(16, b'\0'), 8 if big else 4)
    visited: set[int] = set()
    tags, left = _MAX_TAGS * 8, 2 * len(data) + (1 << 16)
    while 0 < start <= len(data) - place and start not in visited and len(visited) < _MAX_PAGES:
        visited.add(start)
        (count,) = struct.unpack_from(f'{order}{head}', data, start)
        start += place
        tags -= count
        if count > _MAX_TAGS or tags < 0:
            raise ValueError('a directory of too many tags')
        for _, kind, number, _ in struct.iter_unpack(
            f'{order}{entry}', _whole(data[start : start + count * size], size)
        ):
            left -= number * (_TAG_SIZES[kind] if kind < len(_TAG_SIZES) else 8)
        if left < 0:
            raise ValueError('tags that are larger than the file')
        start += count * size
        (start,) = struct.unpack_from(f'{order}{pointer}', data[start : start + 8].ljust(8, b'\0'))


def _whole(data: bytes, size: int) -> bytes:
    """The part of the data that is a multiple of `size` bytes."""
    return data[: len(data) // size * size]


def is_deep(image: Image.Image, data: bytes) -> bool:
    """Whether an opened image file has more than 8 bits per channel."""
    if image.format == 'PNG':
        return data[24:25] == b'\x10'  # the bit depth of the header
    return image.format == 'TIFF' and max(getattr(image, 'tag_v2', {}).get(_BITS, (1,))) > 8


def may_be_deep(data: bytes) -> bool:
    """Whether a file may have more than 8 bits per channel, by its first 25 bytes."""
    return data.startswith(_TIFF) or (data.startswith(_PNG) and data[24:25] == b'\x10')


def split_png(data: bytes) -> tuple[bytes, bytes | None]:
    """Removes texts and the color profile from a PNG, of which Pillow refuses those above a limit.

    Args:
      data: a file of any kind.

    Returns:
      (data, profile): a PNG without them, other files unchanged; and the decompressed color profile of a PNG, None if
      there is none.

    Raises:
      UnsupportedImage: a profile of more than 32 MB.
    """
    if not data.startswith(_PNG) or not any(name in data for name in (b'iCCP', b'tEXt', b'zTXt', b'iTXt')):
        return data, None
    kept, profile, place = [_PNG], None, len(_PNG)
    while place < len(data):
        (length,) = struct.unpack('>I', data[place : place + 4].ljust(4, b'\0'))
        chunk = data[place : place + length + 12]
        kind, content = chunk[4:8], chunk[8:-4]
        if kind == b'iCCP':
            profile = _inflate(content[content.find(b'\0') + 2 :])
        # XMP may hold the orientation.
        elif kind not in (b'tEXt', b'zTXt', b'iTXt') or content.startswith(b'XML:com.adobe.xmp\0\0'):
            kept.append(chunk)
        place += len(chunk)
    return b''.join(kept), profile


def _inflate(compressed: bytes) -> bytes | None:
    stream = zlib.decompressobj()
    try:
        profile = stream.decompress(compressed, _MAX_PROFILE)
    except zlib.error:
        return None
    if stream.unconsumed_tail:
        raise UnsupportedImage(f'its color profile exceeds {_MAX_PROFILE >> 20} MB', 'save it without the profile')
    return profile


def _tiff_pages(data: bytes) -> Iterator[TiffImagePlugin.ImageFileDirectory_v2]:
    """The directory of each page of a TIFF."""
    file = io.BytesIO(data)
    header = file.read(8)
    if b'+' in header[2:4]:  # BigTIFF
        header += file.read(8)
    place, visited = TiffImagePlugin.ImageFileDirectory_v2(header).next, set()
    while place and place not in visited and len(visited) < _MAX_PAGES:
        visited.add(place)
        file.seek(place)
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        tags.load(file)
        yield tags
        place = tags.next
