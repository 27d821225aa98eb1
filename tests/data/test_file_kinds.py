"""Files with several pages, texts and previews: the image is read, or the reason why not is true."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from tiff_files import write_pages, write_tiff

from ssanet_jax.data.images import decode_image
from ssanet_jax.errors import UnreadableImage

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
SMALL = IMAGE[::4, ::4].copy()
SUBFILE, DNG_VERSION = 254, 50706
REDUCED, MASK = 1, 4


def _png(*chunks):
    buffer = io.BytesIO()
    Image.fromarray(IMAGE).save(buffer, 'PNG')
    data = buffer.getvalue()
    packed = b''.join(
        struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))
        for kind, content in chunks
    )
    return data[:33] + packed + data[33:]


@pytest.mark.parametrize(
    'pages',
    [
        [(IMAGE, {})],
        [(IMAGE, {}), (SMALL, {SUBFILE: REDUCED}), (SMALL, {SUBFILE: REDUCED})],
        [(SMALL, {SUBFILE: REDUCED}), (IMAGE, {SUBFILE: 0})],
        [(IMAGE, {}), (IMAGE[..., :1].copy(), {SUBFILE: MASK})],
        [(IMAGE, {}), (SMALL, {255: 2})],
    ],
    ids=range(5),
)
def test_previews_and_masks_are_not_the_image(pages):
    np.testing.assert_array_equal(decode_image(write_pages(pages), 'x'), IMAGE)


def test_deep_pages_are_chosen_in_the_same_way():
    deep, small = IMAGE[..., :1].astype(np.uint16) << 4, SMALL[..., :1].astype(np.uint16)
    pages = [(small, {SUBFILE: REDUCED}), (deep, {})]
    np.testing.assert_array_equal(decode_image(write_pages(pages), 'x', 12)[..., 0], IMAGE[..., 0])


@pytest.mark.parametrize(
    'data, words',
    [
        (
            write_pages([(IMAGE, {}), (IMAGE, {}), (SMALL, {SUBFILE: REDUCED})]),
            '2 pages, and only one can be the image',
        ),
        (write_pages([(IMAGE, {}), (SMALL, {})]), 'save the page that counts as a file of its own'),
        (write_tiff(SMALL, tags={SUBFILE: REDUCED}), 'a preview without its image'),
        (write_tiff(SMALL, tags={DNG_VERSION: 4, SUBFILE: REDUCED}), 'camera raw'),
        (write_tiff(IMAGE)[:4] + struct.pack('<I', 10**6), 'a damaged or truncated TIFF'),
        (write_tiff(IMAGE)[:100], 'a damaged or truncated TIFF'),
        (_png()[:20], r'PNG|Truncated'),
    ],
    ids=range(7),
)
@pytest.mark.filterwarnings('ignore')  # Pillow's, about truncated files
def test_other_files_are_refused_truthfully(data, words):
    with pytest.raises(UnreadableImage, match=words) as caught:
        decode_image(data, 'x.tif')
    assert '\n' not in str(caught.value) and 'not an image' not in str(caught.value)


def _compressed(size):
    return zlib.compress(bytes(size))


@pytest.mark.parametrize(
    'chunks',
    [
        [(b'iCCP', b'printer\0\0' + _compressed(3_000_000))],
        [(b'iCCP', b'broken\0\0' + b'not compressed')],
        [(b'zTXt', b'Comment\0\0' + _compressed(5_000_000))],
        [(b'iTXt', b'prompt\0\1\0\0\0' + _compressed(5_000_000))],
        [(b'tEXt', b'workflow\0' + b'x' * 3_000_000)],
        [(b'zTXt', b'Comment\0\0' + _compressed(900_000))] * 80,
    ],
    ids=range(6),
)
def test_a_png_with_long_texts_or_a_large_profile_is_read(chunks):
    np.testing.assert_array_equal(decode_image(_png(*chunks), 'x'), IMAGE)


def test_a_profile_that_unfolds_without_end_is_refused():
    bomb = _png((b'iCCP', b'bomb\0\0' + _compressed(40_000_000)))
    with pytest.raises(UnreadableImage, match='color profile exceeds 32 MB.*without the profile'):
        decode_image(bomb, 'x')


@pytest.mark.parametrize('cut', range(8, 60))
def test_a_png_cut_within_its_texts_is_refused(cut):
    data = _png((b'tEXt', b'Comment\0hello'))
    with pytest.raises(UnreadableImage):
        decode_image(data[:cut], 'x')
