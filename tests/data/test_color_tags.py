"""Color tags beside ICC profiles: pixels stay as they are stored, and the doctor lists the files."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, features

from ssanet_jax.data.color_tags import ignored_color_tags
from ssanet_jax.data.images import decode_image

RAMP = np.stack(np.meshgrid(np.linspace(0, 255, 40), np.linspace(0, 255, 24)), -1)
PIXELS = np.concatenate([RAMP, RAMP[..., :1]], -1).astype(np.uint8)
GAMMA = lambda value: (b'gAMA', struct.pack('>I', round(value * 100_000)))
CICP = lambda primaries, transfer: (b'cICP', bytes([primaries, transfer, 0, 1]))
SRGB = (b'sRGB', b'\0')
needs_avif = pytest.mark.skipif(not features.check('avif'), reason='Pillow was built without AVIF')


def _png(*chunks):
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, 'PNG')
    encoded = [
        struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))
        for kind, content in chunks
    ]
    return file.getvalue()[:33] + b''.join(encoded) + file.getvalue()[33:]


def _avif(primaries=1, transfer=13, **options):
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, 'AVIF', quality=100, subsampling='4:4:4', **options)
    data = bytearray(file.getvalue())
    place = data.find(b'colrnclx')
    data[place + 8 : place + 12] = struct.pack('>HH', primaries, transfer)
    return bytes(data)


@pytest.mark.parametrize(
    'chunks, tags',
    [
        ((), ''),
        ((GAMMA(0.45455),), ''),
        ((GAMMA(0.5),), ''),
        ((GAMMA(1),), 'gamma 1'),
        ((GAMMA(0.55556),), 'gamma 0.556'),
        ((GAMMA(1), SRGB), ''),
        ((GAMMA(0),), ''),
        (((b'cHRM', struct.pack('>8I', *range(1, 9))),), ''),
        ((CICP(1, 13),), ''),
        ((CICP(12, 13),), 'Display P3'),
        ((CICP(9, 16),), 'HDR (PQ), BT.2020'),
        ((GAMMA(1), CICP(9, 18)), 'HDR (HLG), BT.2020'),
        ((CICP(1, 8),), 'linear light'),
    ],
)
def test_the_pixels_of_a_png_are_those_that_are_stored(chunks, tags):
    data = _png(*chunks)
    np.testing.assert_array_equal(decode_image(data, 'x'), PIXELS)
    assert ignored_color_tags(data) == tags


@needs_avif
@pytest.mark.parametrize(
    'primaries, transfer, tags',
    [(1, 13, ''), (2, 2, ''), (12, 13, 'Display P3'), (9, 16, 'HDR (PQ), BT.2020'), (1, 8, 'linear light')],
)
def test_the_pixels_of_an_avif_are_those_that_are_stored(primaries, transfer, tags):
    data = _avif(primaries, transfer)
    assert np.abs(decode_image(data, 'x').astype(int) - PIXELS).max() <= 4
    assert ignored_color_tags(data) == tags


@needs_avif
def test_an_avif_with_a_color_profile():
    """The profile is applied, and its tags are not."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    data = _avif(9, 16, icc_profile=profile)
    assert np.abs(decode_image(data, 'x').astype(int) - PIXELS).max() <= 4
    assert ignored_color_tags(data) == ''


@given(
    st.binary(max_size=60), st.sampled_from([_png(GAMMA(1)), b'\0\0\0\x18ftypavif' + bytes(20) + b'colrnclx\0\x09\0'])
)
def test_damaged_files(noise, start):
    for end in range(0, len(start), 7):
        assert isinstance(ignored_color_tags(start[:end] + noise), str)
