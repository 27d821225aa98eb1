"""Images of 16 bits per channel: the brightness is right whatever part of the range a camera uses, and comparable."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from tiff_files import write_tiff

from ssanet_jax.data.images import decode_image, from_pillow, measure_bit_depth
from ssanet_jax.errors import UnreadableImage


def _values(bits, channels=3, height=6, width=9):
    values = np.random.default_rng(bits).integers(0, 1 << bits, (height, width, channels)).astype(np.uint16)
    values[0, 0] = (1 << bits) - 1
    return values


def _encode(values, kind):
    """Of RGB(A) values, unlike OpenCV."""
    if values.ndim == 3:
        values = values[..., [2, 1, 0, 3][: values.shape[2]]]
    return cv2.imencode(kind, values)[1].tobytes()


@pytest.mark.parametrize('kind', ['.png', '.tiff'])
@pytest.mark.parametrize('bits', [8, 10, 12, 14, 16])
@pytest.mark.parametrize('channels', [1, 3])
def test_the_highest_eight_of_the_bits_used_are_kept(kind, bits, channels):
    values = _values(bits, channels)
    data = _encode(values if channels > 1 else values[..., 0], kind)
    assert measure_bit_depth(data) == bits
    expected = np.broadcast_to(values * (2.0 ** (8 - bits)), (*values.shape[:2], 3)).astype(np.uint8)
    np.testing.assert_array_equal(decode_image(data, 'x', bits), expected)
    np.testing.assert_array_equal(decode_image(data, 'x', 0), expected)
    # By default, all bits count.
    np.testing.assert_array_equal(decode_image(data, 'x'), np.broadcast_to(values >> 8, expected.shape))


@pytest.mark.parametrize(
    'largest, bits', [(0, 8), (255, 8), (256, 10), (1500, 12), (4095, 12), (4096, 14), (16384, 16)]
)
def test_the_depth_is_one_that_cameras_have(largest, bits):
    assert measure_bit_depth(_encode(np.full((4, 4), largest, np.uint16), '.png')) == bits


@pytest.mark.parametrize('kind', ['.png', '.tiff'])
@pytest.mark.parametrize('opaque', [4095, 65535])
def test_an_alpha_channel_does_not_count(kind, opaque):
    values = np.concatenate([_values(12), np.full((6, 9, 1), opaque, np.uint16)], -1)
    values[:, 5:, 3] = 0
    data = _encode(values, kind)
    assert measure_bit_depth(data) == 12
    pixels = decode_image(data, 'x', 12)
    np.testing.assert_array_equal(pixels[:, :5], values[:, :5, :3] >> 4)
    assert (pixels[:, 5:] == 255).all()


def test_a_value_beyond_the_depth_of_the_data_set_is_refused():
    data = _encode(_values(14), '.png')
    with pytest.raises(UnreadableImage, match=r'reach 16383, but those of the data set use 12 bits\): .*bit_depth=16'):
        decode_image(data, 'x', 12)


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['png', 'tiff'])
def test_the_orientation_is_applied_once(kind, orientation, channels):
    values = _values(12, channels)
    if kind == 'tiff':
        data = write_tiff(values, orientation=orientation)
    else:
        data = _encode(values if channels > 1 else values[..., 0], '.png')
        exif = Image.Exif()
        exif[0x0112] = orientation
        chunk = b'eXIf' + exif.tobytes().removeprefix(b'Exif\0\0')
        data = data[:33] + struct.pack('>I', len(chunk) - 4) + chunk + struct.pack('>I', zlib.crc32(chunk)) + data[33:]
    upright = Image.fromarray(np.broadcast_to(values >> 4, (*values.shape[:2], 3)).astype(np.uint8))
    turn = {
        2: 'FLIP_LEFT_RIGHT', 3: 'ROTATE_180', 4: 'FLIP_TOP_BOTTOM',
        5: 'TRANSPOSE', 6: 'ROTATE_270', 7: 'TRANSVERSE', 8: 'ROTATE_90',
    }  # fmt: skip
    if orientation > 1:
        upright = upright.transpose(Image.Transpose[turn[orientation]])
    np.testing.assert_array_equal(decode_image(data, 'x', 12), np.asarray(upright))


@pytest.mark.parametrize('big_endian', [False, True])
def test_either_byte_order(big_endian):
    values = _values(10, 1)
    data = write_tiff(values, big_endian=big_endian)
    np.testing.assert_array_equal(decode_image(data, 'x', 10)[..., 0], values[..., 0] >> 2)


def test_images_in_memory_have_a_depth_too():
    values = _values(12, 1)[..., 0]
    np.testing.assert_array_equal(from_pillow(Image.fromarray(values), 12)[..., 0], values >> 4)
    np.testing.assert_array_equal(from_pillow(Image.fromarray(values.astype(np.int32)), 0)[..., 0], values >> 4)


@pytest.mark.parametrize(
    'values, words',
    [
        (np.full((4, 4, 1), 70_000, np.int32), 'integers from 70000 to 70000, which have no standard range'),
        (np.full((4, 4, 1), -3, np.int32), 'integers from -3 to -3'),
        (np.full((4, 4, 1), 0.5, np.float32), 'floating-point values of 32 bits'),
        (np.full((4, 4, 3), 0.5, np.float32), 'floating-point values of 32 bits'),
        (np.full((4, 4, 3), 0.5, np.float64), 'floating-point values of 64 bits'),
        (np.full((4, 4, 3), 0.5, np.float16), 'floating-point values of 16 bits'),
        (np.full((4, 4, 3), 7, np.uint32), 'a TIFF of 3 channels of 32 bits, which cannot be read'),
    ],
    ids=range(7),
)
def test_values_without_a_standard_range_are_refused_truthfully(values, words):
    data = write_tiff(values)
    with pytest.raises(UnreadableImage, match=words) as caught:
        decode_image(data, 'x', 16)
    assert 'replace the file' not in str(caught.value)
    assert measure_bit_depth(data) == 0


def test_an_inverted_scale_is_refused():
    with pytest.raises(UnreadableImage, match='where 0 is white'):
        decode_image(write_tiff(_values(12, 1), photometric=0), 'x', 12)


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'GIF', 'BMP', 'TIFF', 'WEBP'])
def test_other_images_have_no_depth(kind):
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), 99, np.uint8)).save(buffer, kind)
    data = buffer.getvalue()
    assert measure_bit_depth(data) == 0
    np.testing.assert_array_equal(decode_image(data, 'x', 8), decode_image(data, 'x', 16))
    assert measure_bit_depth(data[:40]) == measure_bit_depth(b'') == 0
