"""Decoding: every kind of file ends as the same uint8 RGB picture, or as one readable error."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ssanet_jax.data.images import decode_image
from ssanet_jax.errors import UserError


def _smooth(height=20, width=30) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 8, columns * 6, 120 + rows - columns], -1).astype(np.uint8)


def _encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _decode(data: bytes) -> np.ndarray:
    pixels = decode_image(data, 'x.img')
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    return pixels


@pytest.mark.parametrize('kind', ['PNG', 'BMP', 'TIFF'])
def test_lossless_kinds_are_exact(kind):
    np.testing.assert_array_equal(_decode(_encode(Image.fromarray(_smooth()), kind)), _smooth())


@pytest.mark.parametrize('options', [{}, {'progressive': True}, {'subsampling': 0}])
def test_jpeg_has_pillows_pixels(options):
    data = _encode(Image.fromarray(_smooth()), 'JPEG', quality=90, **options)
    expected = np.array(Image.open(io.BytesIO(data)))
    # The two libraries may round a colour conversion differently.
    np.testing.assert_allclose(_decode(data).astype(int), expected.astype(int), atol=2)


@pytest.mark.parametrize('kind', ['PNG', 'JPEG'])
def test_grayscale(kind):
    gray = Image.fromarray(_smooth()).convert('L')
    pixels = _decode(_encode(gray, kind))
    np.testing.assert_array_equal(pixels, pixels[..., :1].repeat(3, -1))
    np.testing.assert_allclose(pixels[..., 0].astype(int), np.array(gray).astype(int), atol=4)


def test_cmyk_jpeg():
    image = Image.fromarray(_smooth())
    pixels = _decode(_encode(image.convert('CMYK'), 'JPEG', quality=98, subsampling=0))
    np.testing.assert_allclose(pixels.astype(int), _smooth().astype(int), atol=12)


def test_palette():
    image = Image.fromarray(_smooth()).quantize(16)
    expected = np.array(image.convert('RGB'))
    np.testing.assert_array_equal(_decode(_encode(image, 'PNG')), expected)
    np.testing.assert_array_equal(_decode(_encode(image, 'GIF')), expected)


def test_black_and_white():
    image = Image.fromarray(_smooth()).convert('1')
    np.testing.assert_array_equal(np.unique(_decode(_encode(image, 'PNG'))), [0, 255])


@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_transparency_lies_over_white(kind):
    alpha = np.zeros((20, 30, 1), np.uint8)
    alpha[:, :10] = 255
    image = Image.fromarray(np.concatenate([_smooth(), alpha], -1))
    pixels = _decode(_encode(image, kind))
    np.testing.assert_array_equal(pixels[:, :10], _smooth()[:, :10])
    assert (pixels[:, 10:] == 255).all()


def test_transparent_palette_and_gray():
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), 'P')
    palette.putpalette([10, 20, 30, 40, 50, 60])
    pixels = _decode(_encode(palette, 'PNG', transparency=1))
    np.testing.assert_array_equal(pixels, [[[10, 20, 30], [255, 255, 255]]])

    gray = Image.fromarray(np.array([[[7, 255], [7, 0]]], np.uint8), 'LA')
    np.testing.assert_array_equal(_decode(_encode(gray, 'PNG')), [[[7] * 3, [255] * 3]])


@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_sixteen_bit_keeps_the_high_byte(kind):
    values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    pixels = _decode(_encode(Image.fromarray(values), kind))
    np.testing.assert_array_equal(pixels[0, :, 0], [0, 0, 1, 128, 255])
    # A dark picture is not mistaken for an 8-bit one.
    dark = _decode(_encode(Image.fromarray(np.full((2, 2), 200, np.uint16)), kind))
    assert (dark == 0).all()


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_rotation_is_carried_out(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {'quality': 98, 'subsampling': 0} if kind == 'JPEG' else {}
    pixels = _decode(_encode(Image.fromarray(_smooth()), kind, exif=exif, **options))
    upright = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, -1),
        7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
        8: lambda x: np.rot90(x, 1),
    }[orientation](_smooth())
    np.testing.assert_allclose(pixels.astype(int), upright.astype(int), atol=4)


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(['JPEG', 'PNG']), share=st.floats(0, 0.95))
def test_truncated_files_are_reported(kind, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = _encode(Image.fromarray(noise), kind)
    with pytest.raises(UserError, match=r'cannot read the image birds/a\.jpg') as caught:
        decode_image(data[: int(share * len(data))], 'birds/a.jpg')
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('data', [b'', b'<html>not found</html>', b'\xff\xd8\xff\xd9'])
def test_what_is_no_image_is_reported(data):
    with pytest.raises(UserError, match='x.jpg'):
        decode_image(data, 'x.jpg')


def test_jpeg_with_bytes_after_its_end():
    data = _encode(Image.fromarray(_smooth()), 'JPEG')
    np.testing.assert_array_equal(_decode(data + b'\0' * 300), _decode(data))
