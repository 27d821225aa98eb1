"""CUB: annotations, the stored copy and errors, on a tiny data set and on real files."""

import csv
import subprocess
import sys

import numpy as np
import pytest
from data_samples import make_config, real_folder
from PIL import Image

from ssanet_jax.data import cub, dataset, pipeline
from ssanet_jax.data.registry import load_dataset, read_listing
from ssanet_jax.errors import UserError


@pytest.fixture
def config(cub_folder, tmp_path):
    return make_config(name='cub', dir=str(cub_folder), prepared_dir=str(tmp_path / 'prepared'))


def test_reads_labels_split_boxes_and_key_points(config, cub_folder):
    data = load_dataset(config)

    assert data.class_names == ('Black footed Albatross', 'Sooty Albatross')
    assert data.name == 'CUB-2 (2 of 200 classes, official split)'
    assert (len(data.train), len(data.test)) == (4, 3)
    assert isinstance(data.train, dataset.Source)
    assert [int(data.train[i]['label']) for i in range(4)] == [0, 0, 1, 1]

    example = data.train[1]  # Image number 5.
    assert example['file'] == 'images/001.Black_footed_Albatross/bird_5.jpg'
    assert example['label'].dtype == np.int32
    with Image.open(cub_folder / example['file']) as image:
        np.testing.assert_array_equal(example['image'], np.array(image))
    np.testing.assert_array_equal(example['box'], np.float32([2, 5, 7.5, 15]))
    assert example['box'].dtype == np.float32
    assert example['keypoints'].shape == (15, 3) and example['keypoints'].dtype == np.float32
    np.testing.assert_array_equal(example['keypoints'][1], [5.5, 2, 1])
    np.testing.assert_array_equal(example['keypoints'][0], [0.5, 0, 0])


def test_grayscale_becomes_rgb(config):
    image = load_dataset(config).test[1]['image']  # Image number 6.
    assert image.shape == (24, 32, 3)
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_stored_bytes_are_the_files_bytes(config, cub_folder):
    data = load_dataset(config)
    stored = data.train._records[0]
    assert stored['image'] == (cub_folder / data.train[0]['file']).read_bytes()


def test_a_prepared_copy_is_read_by_several_threads(config):
    source = load_dataset(config).train
    first, second = (
        list(pipeline.train_batches(source, make_config(num_workers=threads), seed=0, epochs=5)) for threads in (0, 4)
    )
    assert len(first) == 5
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one['image'], other['image'])


def test_prepares_once(config, cub_folder):
    load_dataset(config)
    for image in cub_folder.glob('images/*/*.jpg'):
        image.unlink()
    assert load_dataset(config).train[0]['image'].shape == (24, 32, 3)


def test_other_annotations_get_their_own_copy(config, cub_folder, tmp_path):
    load_dataset(config)
    labels = cub_folder / 'image_class_labels.txt'
    labels.write_text(labels.read_text().replace('5 1', '5 3'))
    assert int(load_dataset(config).train[1]['label']) == 1

    moved = cub_folder.rename(tmp_path / 'elsewhere')
    config.dir = str(moved)
    load_dataset(config)
    # One per folder: the copy with the earlier labels is of no use.
    assert len(list((tmp_path / 'prepared').glob('cub-*'))) == 2


def test_a_killed_preparation_is_not_used(config, tmp_path):
    # The child dies without cleaning up, as with SIGKILL, while it writes the test images.
    child = """
import os, sys
from ssanet_jax.data import record_builder
from ssanet_jax.data.registry import load_dataset
from ml_collections import ConfigDict
generate = record_builder.RecordBuilder._generate_examples
def dying(self, split):
    for key, example in generate(self, split):
        if split == 'test' and key == 1:
            os._exit(9)
        yield key, example
record_builder.RecordBuilder._generate_examples = dying
load_dataset(ConfigDict(dict(name="cub", dir=sys.argv[1], prepared_dir=sys.argv[2])))
"""
    command = [sys.executable, '-c', child, config.dir, config.prepared_dir]
    assert subprocess.run(command, capture_output=True).returncode == 9
    left = list((tmp_path / 'prepared').glob('cub-*/records/*'))
    assert len(left) == 1 and 'incomplete' in left[0].name

    data = load_dataset(config)
    assert (len(data.train), len(data.test)) == (4, 3)
    assert not left[0].exists()


def test_a_damaged_copy_is_reported_and_written_again(config, tmp_path, caplog):
    train = load_dataset(config).train
    images = [train[i]['image'] for i in range(4)]
    (info,) = (tmp_path / 'prepared').glob('cub-*/records/*/dataset_info.json')
    info.unlink()
    again = load_dataset(config).train
    (said,) = [message for message in caplog.messages if 'is damaged' in message]
    assert 'dataset_info.json is missing' in said and 'set aside as records.damaged: it is written again' in said
    assert len(list((tmp_path / 'prepared').glob('cub-*/records.damaged'))) == 1 and info.is_file()
    for i in range(4):
        np.testing.assert_array_equal(again[i]['image'], images[i])


@pytest.mark.parametrize(
    'file',
    [
        'images.txt',
        'image_class_labels.txt',
        'train_test_split.txt',
        'classes.txt',
        'bounding_boxes.txt',
        'parts/part_locs.txt',
    ],
)
def test_names_the_missing_file(config, cub_folder, file):
    (cub_folder / file).unlink()
    with pytest.raises(UserError, match=f'{file} is missing'):
        load_dataset(config)


def test_missing_folder(config):
    config.dir = '/nowhere'
    with pytest.raises(UserError, match='config.data.dir=/nowhere is not a folder'):
        load_dataset(config)
    config.dir = ''
    with pytest.raises(UserError, match='config.data.dir is not set'):
        load_dataset(config)


def test_a_folder_that_holds_cub(config, cub_folder, tmp_path):
    config.dir = str(tmp_path)
    listing = read_listing(config)
    assert listing.root == cub_folder and len(listing.records) == 7

    # One deeper, beside a link to it and a deleted one.
    nested = cub_folder.rename(cub_folder.with_name('moving'))
    cub_folder.mkdir()
    nested = nested.rename(cub_folder / 'CUB_200_2011')
    (cub_folder / 'link').symlink_to(nested)
    (cub_folder / '.trash').mkdir()
    (cub_folder / '.trash/images.txt').touch()
    assert read_listing(config).root == nested

    (cub_folder / 'copy').mkdir()
    (cub_folder / 'copy/images.txt').touch()
    with pytest.raises(UserError, match='several copies of the data set .*CUB_200_2011 and .*copy'):
        read_listing(config)


def test_a_folder_without_cub(config, tmp_path):
    (tmp_path / 'empty').mkdir()
    config.dir = str(tmp_path / 'empty')
    with pytest.raises(UserError, match='images.txt is missing in .*empty and its subfolders: set config.data.dir'):
        read_listing(config)


def test_a_file_that_is_no_text(config, cub_folder):
    (cub_folder / 'images.txt').write_bytes(b'\x80\x81\xff')
    with pytest.raises(UserError, match='images.txt, line 1'):
        load_dataset(config)


def test_no_images(config, cub_folder):
    (cub_folder / 'images.txt').write_text('')
    with pytest.raises(UserError, match='lists no images'):
        load_dataset(config)


def test_no_test_images(config, cub_folder):
    split = cub_folder / 'train_test_split.txt'
    split.write_text(split.read_text().replace(' 0', ' 1'))
    with pytest.raises(UserError, match='no test images'):
        load_dataset(config)


def test_missing_image_leaves_nothing_behind(config, cub_folder, tmp_path):
    next(cub_folder.glob('images/*/bird_9.jpg')).unlink()
    with pytest.raises(UserError, match='bird_9.jpg is listed but missing'):
        load_dataset(config)
    assert not (tmp_path / 'prepared').exists()


@pytest.mark.parametrize('name', ['x' * 5000 + '.jpg', 'x' * 5000 + '/y.jpg'])
def test_a_name_that_no_file_can_have(name, config, cub_folder):
    images = cub_folder / 'images.txt'
    first, *others = images.read_text().splitlines()
    images.write_text('\n'.join([f'{first.split()[0]} {name}', *others]))
    with pytest.raises(UserError, match='jpg is listed but missing'):
        load_dataset(config)


def test_malformed_lines(config, cub_folder):
    path = cub_folder / 'images.txt'
    path.write_text(path.read_text() + 'twelve x.jpg\n')
    with pytest.raises(UserError, match='images.txt, line 8'):
        load_dataset(config)


@pytest.mark.parametrize('file', ['image_class_labels.txt', 'bounding_boxes.txt', 'classes.txt'])
def test_annotations_that_disagree(config, cub_folder, file):
    path = cub_folder / file
    path.write_text('\n'.join(path.read_text().splitlines()[:-1]))
    with pytest.raises(UserError, match='annotation files disagree .first mismatch: '):
        load_dataset(config)


def test_a_prepared_dir_that_cannot_be_written(config, tmp_path):
    (tmp_path / 'file').write_text('')
    config.prepared_dir = str(tmp_path / 'file')
    with pytest.raises(UserError, match='config.data.prepared_dir'):
        load_dataset(config)


def test_unknown_set_names_the_choices():
    with pytest.raises(UserError, match="'dogs'.*toy_birds, cub, cars, aircraft, folder"):
        load_dataset(make_config(name='dogs'))


@pytest.fixture(scope='module')
def real(tmp_path_factory):
    folder = real_folder('CUB_200_2011')
    prepared = tmp_path_factory.mktemp('prepared')
    config = make_config(name='cub', dir=str(folder), prepared_dir=str(prepared))
    return folder, load_dataset(config)


def _table(path):
    with open(path) as file:
        return {row[0]: row[1:] for row in csv.reader(file, delimiter=' ')}


def test_real_counts_and_order(real):
    folder, data = real
    assert (len(data.train), len(data.test), len(data.class_names)) == (1500, 1389, 50)
    assert data.name == 'CUB-50 (50 of 200 classes, official split)'
    assert data.class_names[0] == 'Black footed Albatross'
    split, paths = _table(folder / 'train_test_split.txt'), _table(folder / 'images.txt')
    train = [f'images/{path}' for image, (path,) in paths.items() if split[image] == ['1']]
    stored = data.train._records  # Without decoding.
    assert [stored[i]['file'].decode() for i in range(0, 1500, 50)] == train[::50]


def test_real_grayscale_images_decode_to_rgb(real):
    folder, data = real
    gray = set()
    for path in folder.glob('images/*/*.jpg'):
        with Image.open(path) as image:
            if image.mode == 'L':
                gray.add(path.relative_to(folder).as_posix())
    assert len(gray) == 2
    found = 0
    for source in (data.train, data.test):
        for i in range(len(source)):
            if source._records[i]['file'].decode() in gray:
                image = source[i]['image']
                assert image.ndim == 3 and (image[..., 0] == image[..., 1]).all()
                found += 1
    assert found == 2


def test_real_box_and_key_points_of_one_image(real):
    folder, data = real
    paths = _table(folder / 'images.txt')
    example = data.test[100]
    image = next(key for key, (path,) in paths.items() if f'images/{path}' == example['file'])
    x, y, width, height = map(float, _table(folder / 'bounding_boxes.txt')[image])
    np.testing.assert_allclose(example['box'], [y, x, y + height, x + width])
    label = int(_table(folder / 'image_class_labels.txt')[image][0])
    assert int(example['label']) == label - 1
    with open(folder / 'parts/part_locs.txt') as file:
        rows = [line.split() for line in file if line.split()[0] == image]
    assert len(rows) == 15
    names = (folder / 'parts/parts.txt').read_text().splitlines()
    assert [f'{i + 1} {name}' for i, name in enumerate(data.keypoint_names)] == names
    assert data.keypoint_groups == cub.KEYPOINT_GROUPS
    for _, part, px, py, visible in rows:
        np.testing.assert_allclose(
            example['keypoints'][int(part) - 1], [float(py), float(px), float(visible)], rtol=1e-6
        )


def test_reads_records_without_preparing(cub_folder):
    names, records = cub.read_records(cub_folder)
    assert len(names) == 2 and len(records) == 7


def test_boxes_end_where_their_image_ends(config, cub_folder):
    lines = (cub_folder / 'bounding_boxes.txt').read_text().splitlines()
    lines[0] = lines[0].split()[0] + ' -3.0 2.0 90.0 100.0'
    (cub_folder / 'bounding_boxes.txt').write_text('\n'.join(lines) + '\n')
    example = load_dataset(config).train[0]
    np.testing.assert_array_equal(example['box'], [2, 0, *example['image'].shape[:2]])


@pytest.mark.slow
def test_real_boxes_lie_in_their_images(real):
    """Three published boxes extend beyond their image by more than a pixel."""
    folder, data = real
    published = {f'images/{path}': key for key, (path,) in _table(folder / 'images.txt').items()}
    boxes = _table(folder / 'bounding_boxes.txt')
    overrun = 0
    for source in (data.train, data.test):
        for index in range(len(source)):
            example = source[index]
            size = np.array(example['image'].shape[:2])
            assert (example['box'][:2] >= 0).all() and (example['box'][2:] <= size).all()
            assert (example['box'][:2] < example['box'][2:]).all()
            x, y, width, height = map(float, boxes[published[example['file']]])
            overrun += max(y + height - size[0], x + width - size[1]) > 1
    assert overrun == 3
