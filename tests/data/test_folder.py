"""A user's own folders of images."""

import collections
import os
import pathlib
import tempfile

import numpy as np
import pytest
from data_samples import make_config, write_image
from hypothesis import given, settings
from hypothesis import strategies as st

from ssanet_jax.data import dataset, folder
from ssanet_jax.errors import UserError


@pytest.fixture
def root(tmp_path):
    return tmp_path / 'my birds'


@pytest.fixture
def config(root, tmp_path):
    return make_config(name='folder', dir=str(root), prepared_dir=str(tmp_path / 'prepared'))


def test_train_and_test_folders(root, config):
    for file in ('train/owl/1.jpg', 'train/owl/deep/2.PNG', 'train/emu/3.webp', 'test/owl/4.jpg'):
        write_image(root / file)
    (root / 'train/owl/notes.txt').write_text('not an image')
    write_image(root / 'train/.cache/5.jpg')
    data = dataset.load(config)
    assert data.name == 'my birds'
    assert data.class_names == ('emu', 'owl')
    assert [data.train[i]['file'] for i in range(3)] == [
        'train/emu/3.webp',
        'train/owl/1.jpg',
        'train/owl/deep/2.PNG',
    ]
    assert [int(data.train[i]['label']) for i in range(3)] == [0, 1, 1]
    assert set(data.test[0]) == {'image', 'label', 'file'}


def test_a_replaced_file_is_noticed(root, config):
    for file in ('train/owl/1.png', 'test/owl/2.png'):
        write_image(root / file)
    dataset.load(config)
    new = write_image(root / 'train/owl/1.png', height=10, width=10)
    os.utime(root / 'train/owl/1.png', ns=(1, 1))
    np.testing.assert_array_equal(dataset.load(config).train[0]['image'], new)


def test_class_folders_alone_are_split(root, config):
    for i in range(10):
        write_image(root / f'owl/{i}.jpg')
        write_image(root / f'emu/{i}.jpg')
    data = dataset.load(config)
    assert data.name == 'my birds (random 80/20 split)'
    assert (len(data.train), len(data.test)) == (16, 4)


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4), seed=st.integers(0, 9))
def test_split_is_stratified_and_seeded(sizes, seed):
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        for number, size in enumerate(sizes):
            for i in range(size):
                path = root / f'class{number}' / f'{i}.jpg'
                path.parent.mkdir(exist_ok=True)
                path.touch()
        names, records = folder.read_records(root, seed)
        again = folder.read_records(root, seed)[1]
    assert [r.path for r in records] == [r.path for r in again]
    assert [r.split for r in records] == [r.split for r in again]
    assert len({r.path for r in records}) == len(records) == sum(sizes)
    count = collections.Counter((r.label, r.split) for r in records)
    for label, class_name in enumerate(names):
        size = sizes[int(class_name.removeprefix('class'))]
        train, test = count[label, 'train'], count[label, 'test']
        assert train >= 1 and (test >= 1 or size == 1)
        assert abs(train - 0.8 * size) <= 1


def test_another_seed_is_another_split(root):
    for i in range(20):
        write_image(root / f'owl/{i}.jpg', height=2, width=2)
    splits = [[r.path for r in folder.read_records(root, seed)[1]] for seed in (0, 1)]
    assert splits[0] != splits[1] and sorted(splits[0]) == sorted(splits[1])


def test_errors(root, config):
    with pytest.raises(UserError, match='is not a folder'):
        dataset.load(config)
    root.mkdir()
    with pytest.raises(UserError, match='no images in class folders'):
        dataset.load(config)
    write_image(root / 'train/owl/1.jpg')
    with pytest.raises(UserError, match='has train/ but no test/'):
        dataset.load(config)
    (root / 'test').mkdir()
    with pytest.raises(UserError, match='no test images'):
        dataset.load(config)
    write_image(root / 'test/emu/1.jpg')
    with pytest.raises(UserError, match="without training images, such as 'emu'"):
        dataset.load(config)
