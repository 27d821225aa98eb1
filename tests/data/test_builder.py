"""The stored copy of a data set: small images byte for byte, large ones at the size that the network needs."""

import errno
import io
import json
import os
import pathlib

import chex
import cv2
import numpy as np
import pytest
from damages import DAMAGES
from data_samples import make_config, write_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ssanet_jax.data import builder, record_builder
from ssanet_jax.data.images import decode_image
from ssanet_jax.data.listing import Listing, Record
from ssanet_jax.data.registry import load_dataset
from ssanet_jax.errors import UnreadableImage, UserError


def _encoded(height, width, kind='PNG'):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (5, 5, 3), np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)  # smooth, as photos are
    out = io.BytesIO()
    Image.fromarray(image).save(out, kind, **({'quality': 95} if kind == 'JPEG' else {}))
    return image, out.getvalue()


@settings(max_examples=25, deadline=None)
@given(height=st.integers(20, 200), width=st.integers(20, 200), side=st.integers(16, 64), banner=st.integers(0, 4))
def test_what_is_stored(height, width, side, banner):
    image, data = _encoded(height, width)
    stored = record_builder.convert_image(data, 'x.png', banner, side)
    image = image[: height - banner]
    if min(image.shape[:2]) < 1.5 * side:
        assert stored == (data, banner, 1.0)
        return
    pixels = decode_image(stored.data, 'x')
    assert stored.crop_bottom == 0 and min(pixels.shape[:2]) == side
    assert stored.scale == pytest.approx(side / min(image.shape[:2]))
    expected = cv2.resize(image, pixels.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(pixels.astype(int) - expected).mean() < 3


def test_without_a_size_every_file_is_kept():
    _, data = _encoded(90, 80)
    assert record_builder.convert_image(data, 'x.png', 7, None) == (data, 7, 1.0)


def test_a_damaged_file_is_kept_for_its_reader_to_report():
    data = _encoded(90, 80, 'JPEG')[1][:200]
    assert record_builder.convert_image(data, 'x.jpg', 0, 10) == (data, 0, 1.0)


@pytest.fixture
def listing(tmp_path):
    """A large, a small and a damaged training image, and one test image."""
    write_image(tmp_path / 'set/large.jpg', 120, 160)
    write_image(tmp_path / 'set/small.jpg', 30, 40)
    (tmp_path / 'set/damaged.jpg').write_bytes(b'no image')
    write_image(tmp_path / 'set/test.jpg', 60, 48)
    box, points = np.float32([20, 40, 100, 120]), np.float32([[60, 80, 1], [0, 0, 0]])
    records = [
        Record(f'{name}.jpg', label, 'test' if name == 'test' else 'train', box, points)
        for label, name in enumerate(('large', 'small', 'damaged', 'test'))
    ]
    return Listing('set', 'Set', tmp_path / 'set', ('a', 'b', 'c', 'd'), records)


@pytest.fixture
def config(tmp_path):
    return make_config(prepared_dir=str(tmp_path / 'prepared'), resize=24, shrink=True)


def test_annotations_shrink_with_their_image(listing, config):
    dataset = builder.build_dataset(listing, config)
    large, small = dataset.train[0], dataset.train[1]
    assert large['image'].shape == (24, 32, 3)
    np.testing.assert_allclose(large['box'], [4, 8, 20, 24], rtol=1e-6)
    np.testing.assert_allclose(large['keypoints'], [[12, 16, 1], [0, 0, 0]], rtol=1e-6)
    assert small['image'].shape == (30, 40, 3)
    np.testing.assert_array_equal(small['box'], [20, 40, 30, 40])  # it ends where the image ends
    with pytest.raises(UnreadableImage, match='damaged.jpg'):
        dataset.train[2]
    np.testing.assert_array_equal(dataset.train.labels, [0, 1, 2])
    np.testing.assert_array_equal(dataset.test.labels, [3])


def test_nothing_stays_in_the_temporary_folder(listing, config, tmp_path, monkeypatch):
    temporary = tmp_path / 'temporary'
    temporary.mkdir()
    monkeypatch.setattr('tempfile.tempdir', str(temporary))
    for _ in range(2):  # written, then opened
        builder.build_dataset(listing, config)
    assert not list(temporary.iterdir())


@pytest.fixture
def no_locks(monkeypatch):
    """A file system such as Lustre mounted without `flock`."""

    def refuse(descriptor, operation):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr('fcntl.flock', refuse)


def test_a_copy_on_a_file_system_without_locks(listing, config, no_locks):
    dataset = builder.build_dataset(listing, config)
    assert len(dataset.train) == 3 and len(dataset.test) == 1


def test_without_locks_the_copy_that_is_finished_first_is_used(listing, config, no_locks, monkeypatch):
    write = builder.RecordBuilder.write

    def write_too_late(copy):
        write(copy)  # as another process would
        raise OSError(errno.ENOTEMPTY, 'the folder to rename to is not empty')

    monkeypatch.setattr(builder.RecordBuilder, 'write', write_too_late)
    assert len(builder.build_dataset(listing, config).train) == 3
    monkeypatch.setattr(builder.RecordBuilder, 'write', lambda copy: pathlib.Path('/dev/null/x').mkdir())
    config.resize = 48
    with pytest.raises(UserError, match='cannot copy Set to .*Not a directory'):
        builder.build_dataset(listing, config)


def test_another_size_is_another_copy(listing, config, tmp_path):
    first = builder.build_dataset(listing, config)
    config.resize = 48
    second = builder.build_dataset(listing, config)
    config.shrink = False
    whole = builder.build_dataset(listing, config)
    shapes = [dataset.train[0]['image'].shape for dataset in (first, second, whole)]
    assert shapes == [(24, 32, 3), (48, 64, 3), (120, 160, 3)]
    assert len(list((tmp_path / 'prepared').glob('set-*'))) == 3
    config.resize = 24  # no part of what is stored now
    builder.build_dataset(listing, config)
    assert len(list((tmp_path / 'prepared').glob('set-*'))) == 3


FINGERPRINTS_0_1_0 = {
    (True, None): '42c043537dfbc686',
    (True, 448): '25985080bb9266ea',
    (False, None): '135a3d0a8d0e9aee',
    (False, 448): '98b2b3e213662bfd',
}


FINGERPRINTS = {
    (True, None): '87331efa5497fbcb',
    (True, 448): '831656431c36b072',
    (False, None): '5b12ac62dca3f02f',
    (False, 448): '100fa6e04eabf846',
}


@pytest.mark.parametrize('annotated, side', FINGERPRINTS_0_1_0)
def test_copies_of_released_versions_are_found(annotated, side):
    """A changed fingerprint makes every user copy all images again: change it only with the stored bytes.

    Copies of version 0.1.0 are found in order to remove them.
    """
    box, points = np.float32([20, 40, 100, 120]), np.float32([[60, 80, 1], [0, 0, 0]])
    annotations = (box, points) if annotated else (None, None)
    records = [
        Record('a/1.jpg', 0, 'train', *annotations),
        Record('b/2.jpg', 1, 'test', *annotations),
    ]
    listing = Listing('set', 'Set', pathlib.Path('/data/set'), ('a', 'b'), records)
    assert builder._hash_records(listing, side, [1700000000000000000, 5]) == FINGERPRINTS_0_1_0[annotated, side]
    assert builder._fingerprint(listing, side) == FINGERPRINTS[annotated, side]
    assert builder._digest(records).startswith('909c5b1d7481d125')


def test_the_stored_fields_are_those_of_released_versions(listing, config):
    builder.build_dataset(listing, config)
    (features,) = pathlib.Path(config.prepared_dir).glob('set-*/records/2.0.0/features.json')
    fields = json.loads(features.read_text())['featuresDict']['features']
    assert set(fields) == {'image', 'label', 'file', 'cut_bottom', 'box', 'keypoints'}


def _write_deep(path, largest, color=False):
    values = np.linspace(0, largest, 80 * 90).reshape(80, 90).astype(np.uint16)
    values = np.dstack([values, values // 2, values // 3]) if color else values
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, values)[1].tobytes())
    return values[..., ::-1] if color else values[..., None].repeat(3, -1)


@pytest.mark.parametrize('shrink', [False, True])
def test_one_bit_depth_for_all_images_of_a_data_set(shrink, tmp_path):
    folder = tmp_path / 'set'
    config = make_config(name='folder', dir=str(folder), prepared_dir=str(tmp_path / 'copies'), shrink=shrink)
    dark = _write_deep(folder / 'train/a/dark.png', 300)
    bright = _write_deep(folder / 'train/b/bright.tiff', 4000, color=True)
    test = _write_deep(folder / 'test/a/1.png', 1100)
    write_image(folder / 'test/b/plain.png')
    for _ in range(2):  # as it is written, and as it is found again
        data = load_dataset(config)
        assert data.bit_depth == 12
        for source, index, values in ((data.train, 0, dark), (data.train, 1, bright), (data.test, 0, test)):
            np.testing.assert_array_equal(source[index]['image'], values >> 4)
        (message,) = data.messages
        assert message == (
            'images of 16 bits per channel: 3 (train/a/dark.png, train/b/bright.tiff, test/a/1.png); their values are '
            'read as 12 bits (config.data.bit_depth)'
        )
    config.bit_depth = 16
    np.testing.assert_array_equal(load_dataset(config).train[1]['image'], bright >> 8)
    config.bit_depth = 10  # as recorded by a run on darker images
    with pytest.raises(UnreadableImage, match='use 10 bits'):
        load_dataset(config).train[1]
    config.bit_depth = 0
    brighter = _write_deep(folder / 'test/b/plain.png', 60_000)  # replaced: the depth is measured again
    data = load_dataset(config)
    assert data.bit_depth == 16
    np.testing.assert_array_equal(data.test[1]['image'], brighter >> 8)


def test_data_sets_of_eight_bits_have_no_bit_depth(listing, config):
    assert builder.build_dataset(listing, config).bit_depth == 0


def _copy(tmp_path):
    [folder] = [path for path in (tmp_path / 'prepared').iterdir() if path.is_dir()]
    return folder


def _images(dataset):
    return [dataset.train[0], dataset.train[1], dataset.test[0]]


@pytest.mark.parametrize('damage', ['flip', 'truncate', 'empty', 'missing', 'zeros', 'garbage', 'extended', 'pipe'])
@pytest.mark.parametrize(
    'pattern', ['*train.array_record*', '*test.array_record*', 'dataset_info.json', 'features.json']
)
def test_a_damaged_copy_is_written_again(listing, config, tmp_path, pattern, damage, caplog):
    before = _images(builder.build_dataset(listing, config))
    copy = _copy(tmp_path)
    [path] = (copy / 'records').rglob(pattern)
    DAMAGES[damage](path)
    chex.assert_trees_all_equal(_images(builder.build_dataset(listing, config)), before)
    said = [message for message in caplog.messages if 'set aside as records.damaged: it is written again' in message]
    assert len(said) == 1 and path.name in said[0] and str(copy) in said[0]
    assert (copy / 'records.damaged').is_dir()
    caplog.clear()
    chex.assert_trees_all_equal(_images(builder.build_dataset(listing, config)), before)
    assert not caplog.messages


@pytest.mark.parametrize('damage', ['flip', 'truncate', 'empty', 'missing', 'garbage', 'pipe'])
@pytest.mark.parametrize('name', ['source_files.npz', 'checksums.json', 'request.json'])
def test_a_copy_whose_notes_are_damaged_serves_or_is_written_again(listing, config, tmp_path, name, damage):
    before = _images(builder.build_dataset(listing, config))
    DAMAGES[damage](_copy(tmp_path) / name)
    chex.assert_trees_all_equal(_images(builder.build_dataset(listing, config)), before)


def test_a_copy_that_is_damaged_while_it_is_read_is_one_line(listing, config, tmp_path):
    dataset = builder.build_dataset(listing, config)

    class Broken(list):
        def __getitem__(self, index):
            raise RuntimeError('CRC mismatch')

    dataset.train._records = Broken([0, 1, 2])
    with pytest.raises(UserError, match=r'of the data set is damaged \(record 1 of 3\): rename') as error:
        dataset.train[1]
    assert not isinstance(error.value, UnreadableImage) and '\n' not in str(error.value)
