"""Color tags of image files that are ignored: `gAMA`, `cHRM` and `cICP` of PNG, `nclx` of AVIF and HEIC.

Pillow, OpenCV and torchvision ignore them, so that pretrained networks have seen pixels as they are stored. Only ICC
profiles are applied (`color_profiles`). A file without a profile whose tags describe another brightness or other
primaries than sRGB is shown differently by browsers; the doctor lists such files.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_PNG = b'\x89PNG\r\n\x1a\n'
_SRGB_GAMMA = 1 / 2.2
_TOLERANCE = 0.15  # of a gamma: 1/2.2 and the 0.5 of old Macs look much alike
_HEAD = 1 << 16  # bytes of an AVIF in which its header is looked for

# Code points of ITU-T H.273; those of SDR video are close to sRGB.
_PRIMARIES = {9: 'BT.2020', 11: 'DCI-P3', 12: 'Display P3'}
_TRANSFERS = {8: 'linear light', 16: 'HDR (PQ)', 18: 'HDR (HLG)'}


def ignored_color_tags(data: bytes) -> str:
    """What the color tags of an image file say that reading it ignores, such as 'HDR (PQ), BT.2020'; '' if nothing.

    Args:
      data: the contents of a file, whole or damaged.
    """
    if data.startswith(_PNG):
        return _tags_of_png(data)
    if data[4:8] == b'ftyp':
        head = data[:_HEAD]
        place = head.find(b'colrnclx')
        # An ICC profile in a `colr` box of its own takes precedence.
        if place >= 0 and b'colrprof' not in head and len(head) >= place + 12:
            return _names(*struct.unpack('>HH', head[place + 8 : place + 12]))
    return ''


def _tags_of_png(data: bytes) -> str:
    """In the order of precedence of the PNG specification: cICP, iCCP, sRGB, gAMA."""
    chunks = dict(_header_chunks(data))
    if len(content := chunks.get(b'cICP', b'')) >= 2:
        return _names(content[0], content[1])
    if b'iCCP' in chunks or b'sRGB' in chunks or len(chunks.get(b'gAMA', b'')) != 4:
        return ''
    gamma = struct.unpack('>I', chunks[b'gAMA'])[0] / 100_000
    return f'gamma {gamma:.3g}' if gamma and abs(gamma / _SRGB_GAMMA - 1) > _TOLERANCE else ''


def _header_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks of a PNG before its pixels: type and content."""
    place = len(_PNG)
    while place + 8 <= len(data):
        length, kind = struct.unpack('>I4s', data[place : place + 8])
        if kind == b'IDAT':
            return
        yield kind, data[place + 8 : place + 8 + length]
        place += length + 12


def _names(primaries: int, transfer: int) -> str:
    return ', '.join(filter(None, (_TRANSFERS.get(transfer), _PRIMARIES.get(primaries))))
