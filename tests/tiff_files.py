"""TIFF files written by hand, with any values and tags, which libraries do not write."""

import struct
from collections.abc import Mapping, Sequence

import numpy as np

_FORMATS = {'u': 1, 'i': 2, 'f': 3}
_SHORT, _LONG = 3, 4


def write_tiff(
    values: np.ndarray,
    *,
    orientation: int = 1,
    photometric: int | None = None,
    big_endian: bool = False,
    tags: Mapping[int, int] | None = None,
) -> bytes:
    """A TIFF of one page with values `[H, W, C]`, uncompressed; `tags` are added."""
    return write_pages([(values, dict(tags or {}))], orientation, photometric, big_endian)


def write_pages(
    pages: Sequence[tuple[np.ndarray, Mapping[int, int]]],
    orientation: int = 1,
    photometric: int | None = None,
    big_endian: bool = False,
) -> bytes:
    """A TIFF of several pages, each with tags of its own."""
    order = '>' if big_endian else '<'
    content = (b'MM\0*' if big_endian else b'II*\0') + struct.pack(f'{order}I', 8)
    for number, (values, tags) in enumerate(pages):
        height, width, channels = values.shape
        bits, kind = 8 * values.itemsize, _FORMATS[values.dtype.kind]
        color = (2 if channels > 1 else 1) if photometric is None else photometric
        data = values.astype(values.dtype.newbyteorder(order)).tobytes()
        fields: dict[int, tuple[int, list[int]]] = {
            256: (_LONG, [width]), 257: (_LONG, [height]), 258: (_SHORT, [bits] * channels), 259: (_SHORT, [1]),
            262: (_SHORT, [color]), 273: (_LONG, [0]), 274: (_SHORT, [orientation]), 277: (_SHORT, [channels]),
            278: (_LONG, [height]), 279: (_LONG, [len(data)]), 339: (_SHORT, [kind] * channels),
        }  # fmt: skip
        fields |= {tag: (_LONG, [value]) for tag, value in tags.items()}
        after = len(content) + 2 + 12 * len(fields) + 4
        extra, entries = b'', b''
        for tag, (type_, items) in sorted(fields.items()):
            packed = struct.pack(f'{order}{len(items)}{"H" if type_ == _SHORT else "I"}', *items)
            if tag == 273:  # the pixels follow the lists of this page
                packed = struct.pack(f'{order}I', after + sum(2 * n for n in (channels, channels) if n > 2))
            if len(packed) > 4:
                extra, packed = extra + packed, struct.pack(f'{order}I', after + len(extra))
            entries += struct.pack(f'{order}HHI', tag, type_, len(items)) + packed.ljust(4, b'\0')
        page = struct.pack(f'{order}H', len(fields)) + entries
        following = after + len(extra) + len(data)
        last = number == len(pages) - 1
        content += page + struct.pack(f'{order}I', 0 if last else following) + extra + data
    return content
