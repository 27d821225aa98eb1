"""Folders of AVIF images, and of HEIC images with a stand-in for the plugin of Pillow."""

import io
import sys
import types

import numpy as np
import pytest
from data_samples import make_config
from PIL import Image, ImageFile, features

from ssanet_jax.data import image_formats
from ssanet_jax.data.image_inputs import find_images, read_image
from ssanet_jax.data.registry import load_dataset, read_listing
from ssanet_jax.doctor.scan import scan_images

RAMP = np.stack(np.meshgrid(np.linspace(0, 255, 48), np.linspace(0, 255, 32)), -1)
PIXELS = np.concatenate([RAMP, 255 - RAMP[..., :1]], -1).astype(np.uint8)
BRANDS = b'\0\0\0\x18ftypheic\0\0\0\0mif1heic'


def _image(split, label, number):
    return np.roll(PIXELS, 16 * (split == 'test') + 8 * label + number, 1)


class _StandIn(ImageFile.ImageFile):
    """Reads a JPEG after the brands of a HEIC file, as a plugin would read its content."""

    format, format_description = 'HEIF', 'stand-in'

    def _open(self):
        self.fp.seek(len(BRANDS))
        self._inner = Image.open(io.BytesIO(self.fp.read()))
        self._size, self._mode, self.info = self._inner.size, self._inner.mode, dict(self._inner.info)

    def load(self):
        if self._inner is not None:
            self.im, self._inner = self._inner.convert('RGB').im, None
        return super(ImageFile.ImageFile, self).load()


@pytest.fixture
def heif(monkeypatch):
    """Pillow with a plugin for HEIC, which its package registers."""
    for registry in ('OPEN', 'ID'):
        monkeypatch.setattr(Image, registry, getattr(Image, registry).copy())

    def register():
        Image.register_open('HEIF', _StandIn, lambda head: head[4:12] == b'ftypheic')

    package = types.ModuleType('pillow_heif')
    package.__spec__ = types.SimpleNamespace()
    package.register_heif_opener = register
    monkeypatch.setitem(sys.modules, 'pillow_heif', package)
    for cached in (image_formats.readable_formats, image_formats.image_suffixes):
        cached.cache_clear()
    yield
    for cached in (image_formats.readable_formats, image_formats.image_suffixes):
        cached.cache_clear()


def _encode(pixels, kind, **options):
    file = io.BytesIO()
    if kind == 'AVIF':
        Image.fromarray(pixels).save(file, 'AVIF', quality=100, subsampling='4:4:4', **options)
        return file.getvalue()
    Image.fromarray(pixels).save(file, 'JPEG', quality=100, subsampling=0, **options)
    return BRANDS + file.getvalue()


def _check_folder(folder, kind, names):
    """Training, evaluation, the doctor and prediction read the same pixels."""
    for split, count in (('train', 2), ('test', 1)):
        for label, name in enumerate(('crow', 'wren')):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                path = folder / split / name / names[number]
                path.write_bytes(_encode(_image(split, label, number), kind))
    config = make_config(name='folder', dir=str(folder), prepared_dir=str(folder.parent / 'copies'))
    dataset = load_dataset(config)
    assert dataset.messages == () and dataset.class_names == ('crow', 'wren')
    assert (len(dataset.train), len(dataset.test)) == (4, 2)
    for index in range(4):
        example = dataset.train[index]
        expected = _image('train', int(example['label']), names.index(example['file'].rpartition('/')[2]))
        assert np.abs(example['image'].astype(int) - expected).max() <= 6
    assert not [image.problem for image in scan_images(read_listing(config), 1) if image.problem]
    files, left_out = find_images([folder])
    assert len(files) == 6 and not left_out
    assert np.abs(read_image(folder / 'test/wren' / names[0]).astype(int) - _image('test', 1, 0)).max() <= 6


@pytest.mark.skipif(not features.check('avif'), reason='Pillow was built without AVIF')
def test_a_folder_of_avif_images(tmp_path):
    _check_folder(tmp_path / 'set', 'AVIF', ['a.avif', 'named_by_a_website.jpg'])
    # The orientation is applied once.
    exif = Image.Exif()
    exif[0x112] = 6
    (tmp_path / 'turned.avif').write_bytes(_encode(PIXELS, 'AVIF', exif=exif))
    turned = read_image(tmp_path / 'turned.avif')
    assert turned.shape == (48, 32, 3) and np.abs(turned.astype(int) - np.rot90(PIXELS, -1)).max() <= 6


@pytest.mark.skipif(not features.check('avif'), reason='Pillow was built without AVIF')
@pytest.mark.parametrize('mode', ['L', 'RGBA'])
def test_gray_and_transparent_avif(mode, tmp_path):
    image = Image.fromarray(PIXELS).convert(mode)
    if mode == 'RGBA':
        image.putalpha(0)
    file = io.BytesIO()
    image.save(file, 'AVIF', quality=100)
    (tmp_path / 'x.avif').write_bytes(file.getvalue())
    expected = np.full_like(PIXELS, 255) if mode == 'RGBA' else np.array(image.convert('RGB'))
    assert np.abs(read_image(tmp_path / 'x.avif').astype(int) - expected).max() <= 6


def test_a_folder_of_heic_images(tmp_path, heif):
    assert 'HEIF' in image_formats.readable_formats()
    _check_folder(tmp_path / 'set', 'HEIF', ['IMG_1.HEIC', 'IMG_2.heif'])


def test_without_the_plugin_a_folder_of_heic_images_names_it(tmp_path):
    if 'HEIF' in image_formats.readable_formats():
        pytest.skip('the HEIF plugin is installed')
    (tmp_path / 'IMG_1.HEIC').write_bytes(_encode(PIXELS, 'HEIF'))
    _, left_out = find_images([tmp_path, tmp_path / 'IMG_1.HEIC'])
    assert {item.reason for item in left_out} == {'HEIC, which needs the package pillow-heif'}
