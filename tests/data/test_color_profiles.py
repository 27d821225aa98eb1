"""Color profiles: colors come out as sRGB, by a computation of our own from the profile's numbers."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from ssanet_jax.data.color_profiles import srgb_transform
from ssanet_jax.data.images import decode_image, from_pillow

# Columns: XYZ of red, green and blue relative to the white D50 of profiles (Bradford-adapted).
ADOBE = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
DISPLAY_P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
WHITE = (0.9642, 1, 0.8249)
COLORS = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)


def _fixed(values):
    return b''.join(struct.pack('>i', round(value * 65536)) for value in values)


def _profile(space, tags):
    """An ICC profile of version 2."""
    tags = {b'desc': b'desc\0\0\0\0\0\0\0\2x\0' + bytes(78), b'cprt': b'text\0\0\0\0x\0\0\0'} | tags
    place, table, body = 128 + 4 + 12 * len(tags), struct.pack('>I', len(tags)), b''
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack('>II', place + len(body), len(content))
        body += content
    kind, connection = (b'prtr', b'Lab ') if space == b'CMYK' else (b'mntr', b'XYZ ')
    header = struct.pack('>I4xI4s4s4s', place + len(body), 0x02100000, kind, space, connection)
    header += bytes(12) + b'acsp' + bytes(28) + _fixed(WHITE)
    return header.ljust(128, b'\0') + table + body


def _curve(gamma):
    return b'curv\0\0\0\0' + struct.pack('>IH', 1, round(gamma * 256))


def _rgb_profile(primaries, gamma):
    xyz = lambda values: b'XYZ \0\0\0\0' + _fixed(values)
    columns = {f'{name}XYZ'.encode(): xyz(primaries[:, i]) for i, name in enumerate('rgb')}
    return _profile(b'RGB ', {b'wtpt': xyz(WHITE)} | columns | {f'{n}TRC'.encode(): _curve(gamma) for n in 'rgb'})


def _gray_profile(gamma):
    return _profile(b'GRAY', {b'wtpt': b'XYZ \0\0\0\0' + _fixed(WHITE), b'kTRC': _curve(gamma)})


def _cmyk_profile():
    """Inks that darken Lab linearly: L falls with all of them, a with cyan, b with yellow... in a 2^4 table."""
    grid = np.stack(np.meshgrid(*[[0, 255]] * 4, indexing='ij'), -1).reshape(-1, 4)
    identity = np.arange(256, dtype=np.uint8).tobytes()
    table = b'mft1\0\0\0\0' + bytes([4, 3, 2, 0]) + _fixed(np.eye(3).ravel())
    return _profile(b'CMYK', {b'A2B0': table + 4 * identity + _lab_bytes(grid).tobytes() + 3 * identity})


def _lab_bytes(inks):
    """Lab of inks in 0..255, in the bytes of a profile: L in 0..255, a and b offset by 128."""
    cyan, magenta, yellow, black = np.moveaxis(np.asarray(inks, float) / 255, -1, 0)
    light = 255 * (1 - 0.35 * cyan) * (1 - 0.4 * magenta) * (1 - 0.1 * yellow) * (1 - black)
    return np.stack([light, 128 + 40 * (magenta - cyan), 128 + 40 * (yellow - cyan / 2)], -1).round().astype(np.uint8)


def _encode_srgb(linear):
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _file(pixels, kind, profile, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, icc_profile=profile, **options)
    return buffer.getvalue()


@pytest.mark.parametrize('primaries, gamma', [(ADOBE, 563 / 256), (DISPLAY_P3, 2.25), (SRGB, 1.0), (SRGB, 1.8)])
@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'WEBP'])
def test_wide_gamuts_and_other_gammas_become_srgb(primaries, gamma, kind):
    expected = _encode_srgb((COLORS / 255) ** gamma @ primaries.T @ np.linalg.inv(SRGB).T)
    options = {'lossless': True} if kind == 'WEBP' else {}
    data = _file(COLORS, kind, _rgb_profile(primaries, gamma), **options)
    # Eight bits of a linear scale leave dark colors uncertain by more than one level.
    np.testing.assert_allclose(decode_image(data, 'x'), expected, atol=1.5 if gamma > 1 else 4)


def test_jpegs_of_wide_gamuts_and_large_profiles():
    smooth = np.stack(np.mgrid[0:256:8, 0:256:8].tolist() + [np.full((32, 32), 90)], -1).astype(np.uint8)
    profile = _rgb_profile(ADOBE, 563 / 256)
    profile = struct.pack('>I', len(profile) + 200_000) + profile[4:] + bytes(200_000)  # four segments
    options = {'quality': 100, 'subsampling': 0}
    plain = decode_image(_file(smooth, 'JPEG', None, **options), 'x')
    expected = _encode_srgb((plain / 255) ** (563 / 256) @ ADOBE.T @ np.linalg.inv(SRGB).T)
    assert np.abs(expected - plain).max() > 20
    np.testing.assert_allclose(decode_image(_file(smooth, 'JPEG', profile, **options), 'x'), expected, atol=1.5)


def test_alpha_palettes_orientation_and_depth_go_with_profiles():
    profile = _rgb_profile(ADOBE, 563 / 256)
    convert = lambda colors: _encode_srgb((colors / 255) ** (563 / 256) @ ADOBE.T @ np.linalg.inv(SRGB).T)
    alpha = np.full((24, 32, 1), 255, np.uint8)
    alpha[12:] = 0
    pixels = decode_image(_file(np.concatenate([COLORS, alpha], -1), 'PNG', profile), 'x')
    np.testing.assert_allclose(pixels[:12], convert(COLORS[:12]), atol=1.5)
    assert (pixels[12:] == 255).all()

    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8), 'P')
    palette.putpalette([10, 200, 30, 40, 50, 60, 255, 255, 255])
    buffer = io.BytesIO()
    palette.save(buffer, 'PNG', icc_profile=profile, transparency=1)
    expected = [convert(np.array([10, 200, 30])), [255] * 3, [255] * 3]
    np.testing.assert_allclose(decode_image(buffer.getvalue(), 'x')[0], expected, atol=1.5)

    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decode_image(_file(COLORS, 'PNG', profile, exif=exif), 'x')
    np.testing.assert_allclose(turned, np.rot90(convert(COLORS), -1), atol=1.5)


def test_grayscale_profiles():
    gray = np.arange(256, dtype=np.uint8).reshape(8, 32)
    for kind in ('PNG', 'JPEG'):
        options = {'quality': 100} if kind == 'JPEG' else {}
        data = _file(gray, kind, _gray_profile(1.8), **options)
        np.testing.assert_allclose(decode_image(data, 'x')[..., 1], _encode_srgb((gray / 255) ** 1.8), atol=2)
    deep = Image.fromarray(gray.astype(np.uint16) << 4)
    deep.info['icc_profile'] = _gray_profile(1.8)
    np.testing.assert_allclose(from_pillow(deep, 12)[..., 1], _encode_srgb((gray / 255) ** 1.8), atol=2)


@pytest.mark.parametrize('kind', ['JPEG', 'TIFF'])
def test_cmyk_with_a_profile(kind):
    inks = np.zeros((32, 32, 4), np.uint8)
    inks[..., 0], inks[..., 1], inks[..., 3] = np.arange(0, 256, 8), np.arange(0, 256, 8)[:, None], 40
    buffer = io.BytesIO()
    options = {'quality': 100, 'subsampling': 0} if kind == 'JPEG' else {}
    Image.fromarray(inks, 'CMYK').save(buffer, kind, icc_profile=_cmyk_profile(), **options)
    pixels = decode_image(buffer.getvalue(), 'x').astype(float)
    # Lab -> XYZ (CIE 15) -> sRGB, for the corners of the table, where nothing is interpolated.
    for corner in ([0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 0, 0], [0, 0, 255, 0]):
        light, a, b = _lab_bytes(corner).astype(float)
        fy = (light * 100 / 255 + 16) / 116
        f = np.array([fy + (a - 128) / 500, fy, fy - (b - 128) / 200])
        xyz = np.where(f > 6 / 29, f**3, (f - 4 / 29) * 3 * (6 / 29) ** 2) * WHITE
        patch = Image.new('CMYK', (8, 8), tuple(corner))
        patch.info['icc_profile'] = _cmyk_profile()
        np.testing.assert_allclose(from_pillow(patch)[0, 0], _encode_srgb(np.linalg.inv(SRGB) @ xyz), atol=4)
    assert pixels[0, 0].mean() > pixels[-1, -1].mean() + 40  # more ink is darker
    plain = np.asarray(Image.fromarray(inks, 'CMYK').convert('RGB')).astype(float)
    assert np.abs(pixels - plain).max() > 20


def test_lab_images():
    lab = ImageCms.profileToProfile(
        Image.fromarray(COLORS), ImageCms.createProfile('sRGB'), ImageCms.createProfile('LAB'), outputMode='LAB'
    )
    buffer = io.BytesIO()
    lab.save(buffer, 'TIFF')
    difference = np.abs(decode_image(buffer.getvalue(), 'x').astype(int) - COLORS)
    assert difference.mean() < 2  # Lab of eight bits is coarse


@pytest.mark.parametrize(
    'profile',
    [
        b'',
        bytes(500),
        _rgb_profile(ADOBE, 2.2)[:200],
        _gray_profile(1.0),
        _cmyk_profile(),
        ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes(),
    ],
    ids=['empty', 'zeros', 'cut', 'of gray', 'of CMYK', 'sRGB'],
)
@pytest.mark.parametrize('kind', ['PNG', 'JPEG'])
def test_damaged_and_foreign_profiles_and_srgb_leave_the_pixels_as_they_are(profile, kind):
    plain = decode_image(_file(COLORS, kind, None), 'x')
    np.testing.assert_array_equal(decode_image(_file(COLORS, kind, profile), 'x'), plain)


def test_mutated_profiles_never_crash():
    rng = np.random.default_rng(0)
    profiles = {'RGB': _rgb_profile(ADOBE, 2.2), 'L': _gray_profile(1.0), 'CMYK': _cmyk_profile()}
    converted = 0
    for number in range(600):
        mode = list(profiles)[number % 3]
        spoilt = bytearray(profiles[mode])
        for place in rng.integers(len(spoilt), size=rng.integers(1, 6)):
            spoilt[place] = rng.integers(256)
        transform = srgb_transform(bytes(spoilt), mode)
        if transform is not None:
            converted += 1
            assert transform.apply(Image.new(mode, (4, 4))).mode == 'RGB'
    assert converted > 100
