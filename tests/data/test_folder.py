"""Folders and CSV files of the user's own images."""

import collections
import os
import pathlib
import tempfile

import numpy as np
import pytest
from data_samples import make_config, write_image
from hypothesis import given, settings
from hypothesis import strategies as st

from ssanet_jax.data import folder, pipeline
from ssanet_jax.data.image_formats import image_suffixes
from ssanet_jax.data.image_inputs import find_images
from ssanet_jax.data.registry import load_dataset, read_listing
from ssanet_jax.errors import UnreadableImage, UserError


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
    data = load_dataset(config)
    assert data.name == 'my birds'
    assert data.class_names == ('emu', 'owl')
    assert [data.train[i]['file'] for i in range(3)] == [
        'train/emu/3.webp',
        'train/owl/1.jpg',
        'train/owl/deep/2.PNG',
    ]
    assert [int(data.train[i]['label']) for i in range(3)] == [0, 1, 1]
    assert set(data.test[0]) == {'image', 'label', 'file'}


def test_names_that_are_not_utf8(root, config):
    """File names on Linux may be any bytes, such as é in Latin-1, which Python represents as surrogates."""
    latin, utf8 = os.fsdecode(b'\xe9ta.jpg'), 'été.jpg'
    for file in ('train/parrot/0.jpg', 'train/owl/1.jpg', f'train/owl/{utf8}', 'test/owl/2.jpg'):
        write_image(root / file)
    try:
        os.replace(root / 'train/owl/1.jpg', root / 'train/owl' / latin)
        (root / 'test/owl' / latin).write_bytes(b'no image')
        root = root.rename(root.with_name(os.fsdecode(b's\xe9t')))
    except OSError:
        pytest.skip('this file system takes UTF-8 names only')
    config.dir = str(root)
    for data in (load_dataset(config), load_dataset(config)):  # as it is written, and found again
        names = [data.train[i]['file'] for i in range(2)]
        assert sorted(names) == sorted(f'train/owl/{name}' for name in (latin, utf8))
        assert all((root / name).is_file() for name in names)
        index = names.index(f'train/owl/{utf8}')
        assert data.train._records[index]['file'] == b'train/owl/\xc3\xa9t\xc3\xa9.jpg'  # as earlier copies have it
        with pytest.raises(UnreadableImage, match=f'test/owl/{latin}'):
            [data.test[i] for i in range(2)]
    config.batch_size = 3
    (batch,) = pipeline.train_batches(data.train, config, seed=0, epochs=1)
    assert sorted(batch['index']) == [0, 1, 2]
    assert pipeline.list_unreadable(data.test, range(2))
    (root / 'train/owl' / latin).unlink()
    os.symlink(root / 'nowhere', root / 'train/owl' / latin)
    with pytest.raises(UserError, match=f'train/owl/{latin} is a link to {root}/nowhere, which is missing'):
        load_dataset(config)


@pytest.mark.parametrize('field', ['dir', 'csv', 'prepared_dir'])
def test_a_home_that_nobody_has(root, config, field):
    for file in ('train/emu/0.jpg', 'train/owl/1.jpg', 'test/owl/2.jpg'):
        write_image(root / file)
    config[field] = '~nosuchuser/x'
    with pytest.raises(UserError, match=f'config.data.{field}=~nosuchuser/x: .* ~nosuchuser: give the full path'):
        load_dataset(config)


def test_a_replaced_file_is_noticed(root, config):
    for file in ('train/owl/1.png', 'train/parrot/1.png', 'test/owl/2.png'):
        write_image(root / file)
    load_dataset(config)
    new = write_image(root / 'train/owl/1.png', height=10, width=10)
    os.utime(root / 'train/owl/1.png', ns=(1, 1))
    np.testing.assert_array_equal(load_dataset(config).train[0]['image'], new)


def test_class_folders_alone_are_split(root, config):
    for i in range(10):
        write_image(root / f'owl/{i}.jpg')
        write_image(root / f'emu/{i}.jpg')
    data = load_dataset(config)
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
        listing = folder.read_folder(root, seed)
        names, records = listing.class_names, listing.records
        again = folder.read_folder(root, seed).records
    assert listing.name == f'{root.name} (random 80/20 split)'
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
    splits = [[r.path for r in folder.read_folder(root, seed).records] for seed in (0, 1)]
    assert splits[0] != splits[1] and sorted(splits[0]) == sorted(splits[1])


@pytest.mark.parametrize('name', ['val', 'valid', 'Validation'])
def test_val_stands_in_for_test(root, config, name):
    for file in ('Train/owl/1.jpg', 'Train/emu/2.jpg', f'{name}/owl/3.jpg'):
        write_image(root / file)
    data = load_dataset(config)
    assert data.name == 'my birds (tested on val)'
    assert data.class_names == ('emu', 'owl')
    assert data.test[0]['file'] == f'{name}/owl/3.jpg'


def test_val_beside_test_is_left_out(root, config):
    for file in ('train/owl/1.jpg', 'train/parrot/9.jpg', 'test/owl/2.jpg', 'val/owl/3.jpg', 'val/emu/4.jpg'):
        write_image(root / file)
    data = load_dataset(config)
    assert data.name == 'my birds (val ignored)'
    assert data.class_names == ('owl', 'parrot')
    assert [data.train[0]['file'], data.test[0]['file']] == ['train/owl/1.jpg', 'test/owl/2.jpg']
    assert (len(data.train), len(data.test)) == (2, 1)
    assert data.messages == ('2 validation images not used, since there are test images',)


def test_a_class_may_be_called_val(root):
    for file in ('val/1.jpg', 'val/2.jpg', 'crest/3.jpg', 'crest/4.jpg'):
        write_image(root / file)
    assert folder.read_folder(root).class_names == ('crest', 'val')


def test_hidden_folders_are_left_out(root):
    for file in ('owl/1.jpg', 'owl/.thumbnails/1.jpg', 'owl/2.jpg', '.git/3.jpg'):
        write_image(root / file)
    assert sorted(record.path for record in folder.read_folder(root).records) == ['owl/1.jpg', 'owl/2.jpg']


def test_files_that_are_left_out_are_named(root, config):
    for file in ('train/owl/1.jpg', 'train/owl/deep/2.PNG', 'test/owl/3.tiff', 'train/loose.jpg', 'train/.hidden.jpg'):
        write_image(root / file)
    for file in ('train/owl/a.HEIC', 'train/owl/deep/b', 'test/owl/c.txt', 'train/README.md', 'train/owl/.DS_Store'):
        (root / file).touch()
    (root / 'train/owl/folder.d').mkdir()
    listing = read_listing(config)
    assert [record.path for record in listing.records] == ['train/owl/1.jpg', 'train/owl/deep/2.PNG', 'test/owl/3.tiff']
    assert tuple(item.path for item in listing.left_out) == (
        'test/owl/c.txt',
        'train/loose.jpg',
        'train/owl/a.HEIC',
        'train/owl/deep/b',
    )


def test_a_folder_with_nothing_but_other_files(root, config):
    for name in ('b', 'a'):
        (root / name).mkdir(parents=True)
        (root / name / '1.heic').touch()
    with pytest.raises(UserError, match=r'no images in class folders \(left out 2 of 2 files: HEIC, .*: a/1.heic, b'):
        load_dataset(config)


def test_a_broken_link_is_listed_and_then_reported(root, config):
    for number in range(4):
        write_image(root / f'owl/{number}.jpg')
        write_image(root / f'emu/{number}.jpg')
    (root / 'owl/9.jpg').symlink_to('/nowhere/9.jpg')
    assert len(folder.read_folder(root).records) == 9  # for the doctor
    with pytest.raises(UserError, match='9.jpg is a link to /nowhere/9.jpg, which is missing: mount or restore'):
        load_dataset(config)


@pytest.fixture
def table(root, config):
    """Returns a function that writes the configured CSV file; the folder has the images 0 to 9."""
    for i in range(10):
        write_image(root / f'shots/{i}.jpg')
    config.csv = 'birds.csv'

    def write(*lines, encoding='utf-8'):
        (root / 'birds.csv').write_bytes('\r\n'.join(lines).encode(encoding))

    return write


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig'])
def test_csv_with_splits(config, table, encoding):
    table(
        'path,label,split',
        'shots/3.jpg,Kākāpō,train',
        ' shots/1.jpg , "owl, barn", Train ',
        '',
        './shots/0.jpg,Kākāpō,test',
        'shots/2.jpg,Kākāpō,train',
        encoding=encoding,
    )
    data = load_dataset(config)
    assert data.name == 'my birds (birds.csv)'
    assert data.class_names == ('Kākāpō', 'owl, barn')
    assert [data.train[i]['file'] for i in range(3)] == ['shots/2.jpg', 'shots/3.jpg', 'shots/1.jpg']
    assert [int(data.train[i]['label']) for i in range(3)] == [0, 0, 1]
    assert (data.test[0]['file'], len(data.test)) == ('shots/0.jpg', 1)


def test_csv_columns_in_any_order_and_an_absolute_name(root, config, table, tmp_path):
    (tmp_path / 'lists').mkdir()
    (tmp_path / 'lists/a.csv').write_text(
        'Split,Path,Label\nvalid,shots/1.jpg,owl\ntrain,shots/2.jpg,owl\ntrain,shots/3.jpg,emu\n'
    )
    config.csv = str(tmp_path / 'lists/a.csv')
    data = load_dataset(config)
    assert data.name == 'my birds (a.csv, tested on val)'
    assert [data.train[1]['file'], data.test[0]['file']] == ['shots/2.jpg', 'shots/1.jpg']


def test_csv_without_splits_is_drawn_like_folders(root, config, table):
    table('path,label', *(f'shots/{i}.jpg,{"owl" if i < 5 else "emu"}' for i in range(10)))
    data = load_dataset(config)
    assert data.name == 'my birds (birds.csv, random 80/20 split)'
    assert (len(data.train), len(data.test)) == (8, 2)
    train = {data.train[i]['file'] for i in range(8)}
    config.split_seed = 1
    other = load_dataset(config)
    assert train != {other.train[i]['file'] for i in range(8)}
    assert load_dataset(config).class_names == ('emu', 'owl')


_HEADER = 'path,label,split'
_FIRST = 'shots/1.jpg,owl,train'


@pytest.mark.parametrize(
    'lines, message',
    [
        ([], r'line 1: expected the header path,label,split or path,label with commas'),
        ([_FIRST], r'line 1: expected the header'),
        (['path;label;split'], r'line 1: expected the header .*path;label;split'),
        (['path,label,spilt'], r'line 1: expected the header .*spilt'),
        (['path,label,label'], r'line 1: expected the header'),
        ([_HEADER], r'lists no images'),
        ([_HEADER, _FIRST, 'shots/2.jpg,owl'], r'line 3: 2 fields, but the header has 3'),
        ([_HEADER, _FIRST, 'shots/2.jpg,owl, barn,test'], r'line 3: 4 fields.*: quote fields'),
        ([_HEADER, 'shots/2.jpg,,test'], r'line 2: the label is empty'),
        ([_HEADER, 'shots/2.jpg,owl,fold'], r"line 2: unknown split 'fold': .* train, test, val, valid, validation"),
        ([_HEADER, 'shots/2.jpg,owl,'], r"line 2: unknown split ''"),
        ([_HEADER, '../my birds/shots/2.jpg,owl,test'], r'line 2: .* is not inside .*: write it relative'),
        ([_HEADER, '/shots/2.jpg,owl,test'], r'line 2: .* is not inside'),
        ([_HEADER, 'shots/x.jpg,owl,test'], r"line 2: 'shots/x.jpg' is not a file in"),
        ([_HEADER, 'shots,owl,test'], r"line 2: 'shots' is not a file in"),
        ([_HEADER, ',owl,test'], r"line 2: '' is not a file in"),
        ([_HEADER, _FIRST, 'shots//1.jpg,owl,test'], r'line 3: shots/1.jpg is already in line 2'),
        ([_HEADER, _FIRST, '"shots/2.jpg,owl,test'], r'line 3: .*check the quotes'),
        ([_HEADER, _FIRST], r'birds.csv has no test split'),
        ([_HEADER, 'shots/2.jpg,owl,val'], r'birds.csv has no train split'),
        ([_HEADER, _FIRST, 'shots/2.jpg,emu,test'], r"birds.csv has test images of classes .* such as 'emu'"),
    ],
)
def test_csv_errors_name_the_line_and_the_cure(config, table, lines, message):
    table(*lines)
    with pytest.raises(UserError, match=message) as caught:
        load_dataset(config)
    assert 'birds.csv' in str(caught.value) and '\n' not in str(caught.value)


def test_csv_in_another_encoding(config, table):
    table(_HEADER, _FIRST, 'shots/2.jpg,Käuzchen,test', encoding='latin-1')
    with pytest.raises(UserError, match='birds.csv, after line .*save the file as CSV UTF-8'):
        load_dataset(config)


def test_missing_csv(config, table):
    with pytest.raises(UserError, match='birds.csv is missing: set config.data.csv'):
        load_dataset(config)


def test_errors(root, config):
    with pytest.raises(UserError, match='is not a folder'):
        load_dataset(config)
    root.mkdir()
    with pytest.raises(UserError, match='no images in class folders'):
        load_dataset(config)
    write_image(root / 'train/owl/1.jpg')
    with pytest.raises(UserError, match='has no test split'):
        load_dataset(config)
    (root / 'test').mkdir()
    with pytest.raises(UserError, match='has no test split, but 1 class: owl; 1 training images'):
        load_dataset(config)
    write_image(root / 'test/emu/1.jpg')
    with pytest.raises(UserError, match="without training images, such as 'emu'"):
        load_dataset(config)


def test_more_images_hardly_move_the_draw(root):
    for number in range(100):
        write_image(root / f'owl/b{number:03d}.jpg', 2, 2)
    before = {record.path: record.split for record in folder.read_folder(root).records}
    for number in range(5):
        write_image(root / f'owl/a{number}.jpg', 2, 2)
    after = {record.path: record.split for record in folder.read_folder(root).records}
    moved = [path for path, split in before.items() if after[path] != split]
    assert len(moved) <= 5 and len(after) == 105


def test_every_image_that_trains_can_be_predicted(tmp_path):
    files = [tmp_path / name / f'{name}{suffix}' for name in 'ab' for suffix in image_suffixes()]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.touch()
    records = folder.read_folder(tmp_path).records
    assert sorted(tmp_path / record.path for record in records) == find_images([tmp_path]).files == sorted(files)
