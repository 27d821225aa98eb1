"""Stanford Cars: a tiny data set with images, and the real annotation files."""

import numpy as np
import pytest
import scipy.io
from data_samples import make_config, real_folder, write_image

from ssanet_jax.data import cars
from ssanet_jax.data.registry import load_dataset, read_listing
from ssanet_jax.errors import UserError

_BOX = [('bbox_x1', 'O'), ('bbox_y1', 'O'), ('bbox_x2', 'O'), ('bbox_y2', 'O')]


def _annotations(rows, labelled=True):
    fields = _BOX + ([('class', 'O')] if labelled else []) + [('fname', 'O')]
    return {'annotations': np.array([rows], fields)}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / 'stanford_cars'
    (root / 'devkit').mkdir(parents=True)
    names = np.array(['Audi TT', 'Fiat 500', 'Ram C/V'], object)
    scipy.io.savemat(root / 'devkit/cars_meta.mat', {'class_names': names})
    train = [(1, 2, 30, 20, 3, '00001.jpg'), (5, 5, 9, 9, 1, '00002.jpg'), (5, 5, 9, 9, 2, '00003.jpg')]
    test = [(3, 4, 10, 12, 2, '00001.jpg')]
    scipy.io.savemat(root / 'devkit/cars_train_annos.mat', _annotations(train))
    scipy.io.savemat(root / 'devkit/cars_test_annos_withlabels.mat', _annotations(test))
    for file in ('cars_train/00001.jpg', 'cars_train/00002.jpg', 'cars_train/00003.jpg', 'cars_test/00001.jpg'):
        write_image(root / file)
    return root


@pytest.fixture
def config(folder, tmp_path):
    return make_config(name='cars', dir=str(folder), prepared_dir=str(tmp_path / 'prepared'))


def test_reads_labels_and_boxes(config):
    data = load_dataset(config)
    assert data.name == 'Stanford Cars (3 of 196 classes)'
    assert data.class_names == ('Audi TT', 'Fiat 500', 'Ram C/V')
    assert (len(data.train), len(data.test)) == (3, 1)
    assert [int(data.train[i]['label']) for i in range(3)] == [2, 0, 1]
    assert data.test[0]['file'] == 'cars_test/00001.jpg'
    assert data.test[0]['image'].shape == (24, 32, 3)
    # One-based and inclusive in the file: the first pixel's box is (0, 0, 1, 1).
    np.testing.assert_array_equal(data.train[0]['box'], [1, 0, 20, 30])


def test_test_labels_beside_the_devkit(config, folder):
    name = 'cars_test_annos_withlabels.mat'
    (folder / 'devkit' / name).rename(folder / name)
    assert int(load_dataset(config).test[0]['label']) == 1


_LABELS = 'devkit/cars_test_annos_withlabels.mat'
_NESTED = {'cars_train': 'cars_train/cars_train', 'cars_test': 'cars_test/cars_test'}
_LAYOUTS = {
    'torchvision': {_LABELS: 'cars_test_annos_withlabels.mat'},
    'nested': {'devkit': 'car_devkit/devkit'} | _NESTED,
    'nested, labels beside': {_LABELS: 'cars_test_annos_withlabels (1).mat', 'devkit': 'car_devkit/devkit'} | _NESTED,
    'devkit renamed': {'devkit': 'car_devkit'},
    'one folder nested': {'cars_test': 'cars_test/cars_test'},
    'flat': {
        _LABELS: 'cars_test_annos_withlabels.mat',
        'devkit/cars_meta.mat': 'cars_meta.mat',
        'devkit/cars_train_annos.mat': 'cars_train_annos.mat',
    },
}


@pytest.mark.parametrize('above', ['stanford_cars', '.'])
@pytest.mark.parametrize('layout', _LAYOUTS)
def test_layouts_of_mirrors(config, folder, tmp_path, layout, above):
    for old, new in _LAYOUTS[layout].items():
        # By way of another name: 'cars_train' goes into a folder of its own name.
        (folder / old).rename(tmp_path / 'moving')
        (folder / new).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'moving').rename(folder / new)
    config.dir = str(tmp_path / above)
    listing = read_listing(config)
    assert listing.root == folder
    assert [record.label for record in listing.records] == [2, 0, 1, 1]
    assert all((folder / record.path).is_file() for record in listing.records)


def test_the_plain_name_of_the_test_labels_goes_first(config, folder):
    scipy.io.savemat(folder / 'devkit/cars_test_annos_withlabels (1).mat', _annotations([(1, 1, 2, 2, 3, '00001.jpg')]))
    assert read_listing(config).records[-1].label == 1


def test_missing_test_labels_are_named(config, folder):
    path = folder / 'devkit/cars_test_annos_withlabels.mat'
    path.rename(folder / 'devkit/cars_test_annos.mat')
    with pytest.raises(UserError, match='cars_test_annos_withlabels.mat is missing.*mirrors') as caught:
        load_dataset(config)
    assert '\n' not in str(caught.value)


def test_a_mirror_without_the_devkit(config, folder):
    (folder / 'devkit').rename(folder / 'kit')
    (folder / 'kit/cars_train_annos.mat').rename(folder / 'kit/cars_annos.mat')
    with pytest.raises(
        UserError, match='devkit/cars_train_annos.mat or .* is missing in .*devkit/, which some mirrors'
    ):
        load_dataset(config)


def test_unlabelled_test_file_under_the_labelled_name(config, folder):
    rows = [(3, 4, 10, 12, '00001.jpg')]
    path = folder / 'devkit/cars_test_annos_withlabels.mat'
    scipy.io.savemat(path, _annotations(rows, labelled=False))
    with pytest.raises(UserError, match='has no labels'):
        load_dataset(config)


@pytest.mark.parametrize('file', ['cars_meta.mat', 'cars_train_annos.mat'])
def test_missing_and_damaged_files(config, folder, file):
    (folder / 'devkit' / file).write_bytes(b'MATLAB 5.0')
    with pytest.raises(UserError, match=f'{file} is not the MATLAB file'):
        load_dataset(config)
    (folder / 'devkit' / file).unlink()
    with pytest.raises(UserError, match=f'{file} is missing'):
        load_dataset(config)


def test_rows_that_are_no_annotations(config, folder):
    path = folder / 'devkit/cars_train_annos.mat'
    scipy.io.savemat(path, _annotations([(1, 1, 2, 2, np.array([]), '00001.jpg')]))
    with pytest.raises(UserError, match="'00001.jpg' lacks a name, a class or a box"):
        load_dataset(config)
    scipy.io.savemat(path, {'annotations': np.array([(1, 'a')], [('class', 'O'), ('relative_im_path', 'O')])})
    with pytest.raises(UserError, match='does not list images with boxes'):
        load_dataset(config)


def test_label_outside_the_classes(config, folder):
    scipy.io.savemat(folder / 'devkit/cars_train_annos.mat', _annotations([(1, 1, 2, 2, 4, '00001.jpg')]))
    with pytest.raises(UserError, match='class 4, outside 1..3'):
        load_dataset(config)


def test_missing_image(config, folder):
    (folder / 'cars_train/00002.jpg').unlink()
    with pytest.raises(UserError, match='00002.jpg is listed but missing'):
        load_dataset(config)


def test_real_annotations():
    devkit = real_folder('stanford_cars/devkit')
    names = cars.read_class_names(devkit / 'cars_meta.mat')
    assert len(names) == 196 and names[0] == 'AM General Hummer SUV 2000'
    records = cars.read_annotations(devkit / 'cars_train_annos.mat', 'train', 196)
    assert len(records) == 8144
    assert {record.label for record in records} == set(range(196))
    assert records[0].path == 'cars_train/00001.jpg' and records[0].label == 13
    np.testing.assert_array_equal(records[0].box, [115, 38, 375, 569])
    boxes = np.array([record.box for record in records])
    assert boxes.min() >= 0 and (boxes[:, 2:] - boxes[:, :2] > 20).all()
    assert len({record.path for record in records}) == 8144


def test_real_folder_lacks_the_test_labels():
    folder = real_folder('stanford_cars')
    with pytest.raises(UserError, match='cars_test_annos_withlabels.mat is missing'):
        cars.read_records(folder)
    with pytest.raises(UserError, match='has no labels'):
        cars.read_annotations(folder / 'devkit/cars_test_annos.mat', 'test', 196)
