"""Decoding: every format gives the same uint8 RGB image, or a readable error."""

import io
import resource
import struct
import sys
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from ssanet_jax.data.images import decode_image
from ssanet_jax.errors import UnreadableImage, UserError


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
    # The two libraries may round a color conversion differently.
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


_COLOURED = Image.fromarray(_smooth())
_TURNED = Image.Exif()
_TURNED[0x0112] = 6
# Every kind of file, in the forms whose readers differ.
_FILES = {
    'jpeg': _encode(_COLOURED, 'JPEG', exif=_TURNED),
    'progressive jpeg': _encode(_COLOURED, 'JPEG', progressive=True),
    'gray jpeg': _encode(_COLOURED.convert('L'), 'JPEG'),
    'cmyk jpeg': _encode(_COLOURED.convert('CMYK'), 'JPEG'),
    'png': _encode(_COLOURED, 'PNG', exif=_TURNED),
    'palette png': _encode(_COLOURED.quantize(16), 'PNG'),
    'transparent png': _encode(_COLOURED.convert('RGBA'), 'PNG'),
    '16-bit png': cv2.imencode('.png', _smooth().astype(np.uint16) * 257)[1].tobytes(),
    'gif': _encode(_COLOURED, 'GIF'),
    'animated gif': _encode(_COLOURED, 'GIF', save_all=True, append_images=[_COLOURED.rotate(180)]),
    'webp': _encode(_COLOURED, 'WEBP'),
    'lossless webp': _encode(_COLOURED.convert('RGBA'), 'WEBP', lossless=True),
    'animated webp': _encode(_COLOURED, 'WEBP', save_all=True, append_images=[_COLOURED.rotate(180)]),
    'bmp': _encode(_COLOURED, 'BMP'),
    'palette bmp': _encode(_COLOURED.quantize(16), 'BMP'),
    'tiff': _encode(_COLOURED, 'TIFF'),
    'lzw tiff': _encode(_COLOURED, 'TIFF', compression='tiff_lzw'),
    'jpeg tiff': _encode(_COLOURED, 'TIFF', compression='jpeg'),
    'deflate tiff': _encode(_COLOURED, 'TIFF', compression='tiff_deflate'),
    'fax tiff': _encode(_COLOURED.convert('1'), 'TIFF', compression='group4'),
}


def _damaged(data: bytes, how: str, rng: np.random.Generator) -> bytes:
    spoilt = bytearray(data)
    if how == 'cut':
        del spoilt[rng.integers(len(data)) :]
    elif how == 'bits':
        for place in rng.integers(len(data), size=rng.integers(1, 9)):
            spoilt[place] ^= 1 << rng.integers(8)
    elif how == 'bytes':
        start, length = rng.integers(len(data)), rng.integers(1, 40)
        spoilt[start : start + length] = rng.bytes(length)
    else:  # A good start, then garbage.
        spoilt[rng.integers(2, 40) :] = rng.bytes(rng.integers(400))
    return bytes(spoilt)


@pytest.mark.filterwarnings('ignore')  # Pillow's, about damaged metadata
def test_two_thousand_damaged_files():
    rng = np.random.default_rng(0)
    read = refused = 0
    for data in _FILES.values():
        whole = _decode(data)
        for how in ('cut', 'bits', 'bytes', 'garbage'):
            for _ in range(25):
                spoilt = _damaged(data, how, rng)
                try:
                    pixels = _decode(spoilt)
                except UnreadableImage as error:
                    refused += 1
                    assert str(error).startswith('cannot read the image x.img (') and '\n' not in str(error)
                else:
                    read += 1
                    assert pixels.size
                    # Only what comes after the pixels may be missing.
                    assert how != 'cut' or np.array_equal(pixels, whole)
    assert read + refused == 2000
    assert read > 400 and refused > 1000  # Both ends of the claim were put to the test.


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('kind', [kind for kind in _FILES if kind.endswith('jpeg')])
def test_a_jpeg_cut_anywhere_is_refused(kind):
    data = _FILES[kind]
    # A preview with an end of its own, as cameras put there; and what a download that was cut leaves of a
    # file that was made full size beforehand.
    preview = _encode(_COLOURED.resize((8, 8)), 'JPEG')
    data = data[:2] + b'\xff\xe3' + struct.pack('>H', len(preview) + 2) + preview + data[2:]
    _decode(data)
    for length in range(len(data)):
        for tail in (b'', bytes(len(data) - length)):
            if tail and length >= len(data) - 1:
                continue  # All that is lost is a byte of the end marker, or nothing.
            with pytest.raises(UnreadableImage):
                _decode(data[:length] + tail)


def _png(width: int, height: int, bits: int = 8, colours: int = 2) -> bytes:
    chunk = lambda name, data: struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))
    header = struct.pack('>IIBBBBB', width, height, bits, colours, 0, 0, 0)
    pixels = chunk(b'IDAT', zlib.compress(bytes(100_000)))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + pixels + chunk(b'IEND', b'')


def _with_sizes(kind: str, old: bytes, new: bytes) -> bytes:
    data = _FILES[kind]
    assert data.count(old) == 1
    return data.replace(old, new)


_BOMBS = {
    'png': _png(50_000, 50_000),
    # Less than twice what Pillow warns of, which it would read.
    'smaller png': _png(12_000, 12_000),
    '1-bit png': _png(60_000, 60_000, bits=1, colours=0),
    'jpeg': _with_sizes('gray jpeg', struct.pack('>BHHB', 8, 20, 30, 1), struct.pack('>BHHB', 8, 65_500, 65_500, 1)),
    'gif': _FILES['gif'][:6] + struct.pack('<HH', 65_535, 65_535) + _FILES['gif'][10:],
    'bmp': _with_sizes('bmp', struct.pack('<ii', 30, 20), struct.pack('<ii', 100_000, 100_000)),
    'webp': b'RIFF\x16\0\0\0WEBPVP8X\n\0\0\0\x10\0\0\0' + b'\xff\xff\x03' * 2,
    'tiff': _with_sizes('tiff', struct.pack('<HHII', 256, 4, 1, 30), struct.pack('<HHII', 256, 4, 1, 10_000_000)),
}


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('kind', _BOMBS)
def test_a_few_bytes_that_promise_very_many_pixels(kind):
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == 'darwin' else 1 / 1024)
    before = peak()
    with pytest.raises(UnreadableImage, match='pixels|image data'):
        _decode(_BOMBS[kind])
    assert peak() - before < 64 * 2**20


def test_a_jpeg_of_very_many_scans():
    data = _FILES['progressive jpeg']
    last, end = data.rindex(b'\xff\xda'), data.rindex(b'\xff\xd9')
    with pytest.raises(UnreadableImage, match='more than 100 scans'):
        _decode(data[:end] + data[last:end] * 100 + data[end:])


def _as_pillow_says(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(ImageOps.exif_transpose(image).convert('RGB'))


@pytest.mark.parametrize('kind', [kind for kind in _FILES if kind not in ('transparent png', 'lossless webp')])
def test_every_kind_has_pillows_pixels(kind):
    pixels = _decode(_FILES[kind])
    np.testing.assert_allclose(pixels.astype(int), _as_pillow_says(_FILES[kind]).astype(int), atol=2)


def _without_adobe_marker(data: bytes) -> bytes:
    place = data.index(b'\xff\xee')
    return data[:place] + data[place + 16 :]


def test_cmyk_jpegs_of_three_writers():
    # Photoshop stores CMYK inverted, with a marker whose last byte tells YCCK from plain CMYK. Without
    # the marker Pillow takes the values for inverted too.
    inverted = _encode(_COLOURED.convert('CMYK'), 'JPEG', quality=98, subsampling=0)
    plain = _without_adobe_marker(inverted)
    place = inverted.index(b'Adobe') + 11
    ycck = inverted[:place] + b'\2' + inverted[place + 1 :]
    for data in (inverted, plain, ycck):
        np.testing.assert_array_equal(_decode(data), _as_pillow_says(data))
    for data in (inverted, plain):
        np.testing.assert_allclose(_decode(data).astype(int), _smooth().astype(int), atol=12)


def test_jpegs_of_rgb_values():
    data = _encode(_COLOURED, 'JPEG', quality=98, keep_rgb=True)
    np.testing.assert_allclose(_decode(data).astype(int), _smooth().astype(int), atol=4)


def test_a_jpeg_with_a_second_picture_inside():
    # Telephones append a depth map or a second view (multi-picture format): the first is the photograph.
    data = _encode(_COLOURED, 'MPO', save_all=True, append_images=[_COLOURED.rotate(180)], quality=95)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == 'MPO'
    np.testing.assert_allclose(_decode(data).astype(int), _as_pillow_says(data).astype(int), atol=2)


@pytest.mark.parametrize('channels', [3, 4])
def test_sixteen_bit_colours_keep_the_high_byte(channels):
    values = np.random.default_rng(0).integers(0, 65536, (6, 7, channels)).astype(np.uint16)
    if channels == 4:
        values[..., 3] = 65535
    data = cv2.imencode('.png', values)[1].tobytes()
    np.testing.assert_array_equal(_decode(data), values[..., 2::-1] >> 8)


def test_half_transparent_gray_and_colour_are_mixed_with_white():
    gray = Image.fromarray(np.array([[[100, 128]]], np.uint8), 'LA')
    colour = Image.fromarray(np.array([[[0, 100, 255, 51]]], np.uint8))
    for kind in ('PNG', 'TIFF'):
        np.testing.assert_allclose(_decode(_encode(gray, kind)), [[[177] * 3]], atol=1)
    for kind, options in (('PNG', {}), ('TIFF', {}), ('WEBP', {'lossless': True})):
        np.testing.assert_allclose(_decode(_encode(colour, kind, **options)), [[[204, 224, 255]]], atol=1)


def test_one_colour_of_a_png_may_be_transparent():
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    data = _encode(image, 'PNG', transparency=(4, 5, 6))
    np.testing.assert_array_equal(_decode(data), [[[1, 2, 3], [255, 255, 255]]])


@pytest.mark.parametrize('kind', ['GIF', 'WEBP'])
def test_of_an_animation_the_first_picture_counts(kind):
    # 16 gray levels, which a GIF keeps.
    first = Image.fromarray((np.arange(200).reshape(10, 20) // 13 * 16).astype(np.uint8)).convert('RGB')
    options = {'lossless': True} if kind == 'WEBP' else {}
    data = _encode(first, kind, save_all=True, append_images=[first.rotate(180)], duration=50, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 2
    np.testing.assert_array_equal(_decode(data), np.array(first))


def test_a_transparent_gif():
    image = Image.fromarray(np.array([[0, 1]], np.uint8), 'P')
    image.putpalette([10, 20, 30, 40, 50, 60])
    data = _encode(image, 'GIF', transparency=1)
    np.testing.assert_array_equal(_decode(data), [[[10, 20, 30], [255, 255, 255]]])


@pytest.mark.parametrize('kind', ['PPM', 'EPS', 'PCX'])
def test_other_kinds_are_refused(kind):
    with pytest.raises(UnreadableImage, match='not one of JPEG, PNG, WEBP, BMP, TIFF, GIF'):
        _decode(_encode(_COLOURED, kind))


@pytest.mark.parametrize('data', [b'', b'<html>not found</html>', b'\xff\xd8\xff\xd9'])
def test_what_is_no_image_is_reported(data):
    with pytest.raises(UserError, match='x.jpg'):
        decode_image(data, 'x.jpg')


def test_jpeg_with_bytes_after_its_end():
    data = _encode(Image.fromarray(_smooth()), 'JPEG')
    np.testing.assert_array_equal(_decode(data + b'\0' * 300), _decode(data))
