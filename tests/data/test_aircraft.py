"""FGVC-Aircraft, on a tiny data set."""

import numpy as np
import pytest
from data_samples import make_config, write_image
from PIL import Image

from ssanet_jax.data.registry import load_dataset, read_listing
from ssanet_jax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / 'fgvc-aircraft-2013b'
    images = {
        '0034309': ('707-320', 'Boeing 707'),
        '1025794': ('A340-200', 'A340'),
        '0063650': ('707-320', 'Boeing 707'),
        '1140580': ('A340-200', 'A340'),
    }
    for image in images:
        write_image(root / f'data/images/{image}.jpg', height=60, width=80)
    train, test = list(images)[:2], list(images)[2:]
    data = root / 'data'
    (data / 'variants.txt').write_text('707-320\nA340-200\n')
    (data / 'families.txt').write_text('A340\nBoeing 707\n')
    for level, column in (('variant', 0), ('family', 1)):
        for split, chosen in (('trainval', train), ('test', test)):
            lines = [f'{image} {images[image][column]}\n' for image in chosen]
            (data / f'images_{level}_{split}.txt').write_text(''.join(lines))
    (data / 'images_box.txt').write_text(''.join(f'{image} 3 5 40 30\n' for image in images))
    return root


@pytest.fixture
def config(folder, tmp_path):
    return make_config(name='aircraft', dir=str(folder), prepared_dir=str(tmp_path / 'prepared'))


def test_variants(config, folder):
    data = load_dataset(config)
    assert data.name == 'FGVC-Aircraft (2 of 100 variants)'
    assert data.class_names == ('707-320', 'A340-200')
    assert [int(data.train[i]['label']) for i in range(2)] == [0, 1]
    assert [data.test[i]['file'] for i in range(2)] == [
        'images/0063650.jpg',
        'images/1140580.jpg',
    ]
    np.testing.assert_array_equal(data.train[0]['box'], [4, 2, 30, 40])
    # The last 20 of the 60 rows are the photographer's banner.
    with Image.open(folder / 'data' / data.train[0]['file']) as image:
        np.testing.assert_array_equal(data.train[0]['image'], np.array(image)[:40])


def test_families_have_names_with_spaces(config):
    config.level = 'family'
    data = load_dataset(config)
    assert data.class_names == ('A340', 'Boeing 707')
    assert [int(data.train[i]['label']) for i in range(2)] == [1, 0]


@pytest.mark.parametrize('place', ['fgvc-aircraft-2013b/data', '.'])
def test_other_folders_that_people_point_at(config, tmp_path, place):
    config.dir = str(tmp_path / place)
    assert read_listing(config).root == tmp_path / 'fgvc-aircraft-2013b/data'


def test_names_have_spaces_and_slashes(config, folder):
    data = folder / 'data'
    (data / 'variants.txt').write_text('Challenger 600\nF/A-18\n')
    (data / 'manufacturers.txt').write_text('Canadair\nMcDonnell Douglas\n')
    names = {'variant': ('Challenger 600', 'F/A-18'), 'manufacturer': ('Canadair', 'McDonnell Douglas')}
    for level, (first, second) in names.items():
        (data / f'images_{level}_trainval.txt').write_text(f'1025794 {second}\r\n0034309 {first}\r\n')
        (data / f'images_{level}_test.txt').write_text(f'0063650 {second}\n')
        config.level = level
        listing = read_listing(config)
        assert listing.class_names == (first, second)
        assert [record.label for record in listing.records] == [1, 0, 1]
        assert next(record.path for record in listing.records) == 'images/1025794.jpg'


def test_boxes_are_optional(config, folder):
    (folder / 'data/images_box.txt').unlink()
    assert 'box' not in load_dataset(config).train[0]


def test_unknown_level(config):
    config.level = 'engine'
    with pytest.raises(UserError, match="'engine'.*variant, family, manufacturer"):
        load_dataset(config)


@pytest.mark.parametrize('file', ['variants.txt', 'images_variant_test.txt'])
def test_missing_files(config, folder, file):
    (folder / 'data' / file).unlink()
    with pytest.raises(UserError, match=f'{file} is missing'):
        load_dataset(config)


def test_malformed_lines(config, folder):
    path = folder / 'data/images_variant_trainval.txt'
    path.write_text(path.read_text() + '0063650 Spruce Goose\n')
    with pytest.raises(UserError, match='images_variant_trainval.txt, line 3'):
        load_dataset(config)
    (folder / 'data/images_box.txt').write_text('0034309 1 2 3\n')
    with pytest.raises(UserError, match='images_box.txt, line 1'):
        load_dataset(config)
