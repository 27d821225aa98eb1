"""The copy of a data set is what is on disk: replaced, swapped and repaired files are noticed."""

import os
import shutil

import numpy as np
import pytest
from data_samples import make_config, write_image

from ssanet_jax.data import builder, source_files
from ssanet_jax.data.registry import load_dataset, read_listing
from ssanet_jax.errors import UserError


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """Treats the files of the test as old, so that their states count."""
    monkeypatch.setattr(source_files, '_UNSETTLED_NS', 0)


@pytest.fixture
def config(tmp_path, cub_folder):
    return make_config(name='cub', dir=str(cub_folder), prepared_dir=str(tmp_path / 'copies'))


@pytest.fixture
def copies(monkeypatch):
    """The number of copies written so far, in a list."""
    written = []
    write = builder.RecordBuilder.write
    monkeypatch.setattr(builder.RecordBuilder, 'write', lambda self: (written.append(1), write(self)))
    return written


def pixels(config):
    data = load_dataset(config)
    return {source[i]['file']: source[i]['image'] for source in (data.train, data.test) for i in range(len(source))}


def files_of(config):
    listing = read_listing(config)
    return [listing.root / record.path for record in listing.records]


def replaced(files):
    write_image(files[0].with_name('other.jpg'), 24, 32)
    os.replace(files[0].with_name('other.jpg'), files[0])


def swapped(files):
    """By renaming: both files keep their size and times."""
    aside = files[0].with_name('aside')
    files[0].rename(aside)
    files[1].rename(files[0])
    aside.rename(files[1])


def swapped_in_place(files):
    """By copying with times: size, times and inode of both are as before, as after `cp --preserve`."""
    whole = max(file.stat().st_size for file in files[:2])
    contents = [file.read_bytes().ljust(whole, b'\0') for file in files[:2]]
    for file, content in zip(files, reversed(contents)):
        file.write_bytes(content)
        os.utime(file, ns=(10**18, 10**18))


def rewritten_with_its_time(files):
    status = files[0].stat()
    data = bytearray(files[0].read_bytes())
    data[-40] ^= 1  # of the same size
    files[0].write_bytes(data)
    os.utime(files[0], ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize('change', [replaced, swapped, swapped_in_place, rewritten_with_its_time])
def test_changed_files_are_noticed(config, copies, change):
    files = files_of(config)
    if change is swapped_in_place:
        swapped_in_place(files)
    pixels(config)
    change(files)
    found = pixels(config)
    expected = pixels(make_config(**{**config, 'prepared_dir': config.prepared_dir + '_new'}))
    for name, image in expected.items():
        np.testing.assert_array_equal(found[name], image)
    assert len(copies) == 3  # before, after, and the fresh one
    assert len(list(os.scandir(config.prepared_dir))) == 1, 'the old copy does not fill the disk'
    pixels(config)
    assert len(copies) == 3


def test_a_repaired_file_is_noticed(config, copies):
    file = files_of(config)[0]
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match='cannot read'):
        pixels(config)
    file.write_bytes(whole)
    assert len(pixels(config)) == 7 and len(copies) == 2


def test_the_same_contents_are_not_copied_again(config, copies, tmp_path):
    """Times and inodes change when a folder is restored from a backup, or mounted elsewhere."""
    before = pixels(config)
    for file in files_of(config):
        shutil.copy(file, file.with_name('copy'))
        os.replace(file.with_name('copy'), file)
        file.chmod(0o600)
    for _ in range(2):
        assert pixels(config).keys() == before.keys() and len(copies) == 1
    compared = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source_files, 'read_file', compared.append)
        load_dataset(config)
    assert not compared, 'the new state was kept, so that contents need not be read again'


def test_a_copy_of_another_version_is_replaced(config, copies):
    listing = read_listing(config)
    old = builder._fingerprint_0_1_0(listing, None)
    folder = os.path.join(config.prepared_dir, f'cub-{old}')
    os.makedirs(os.path.join(folder, 'records'))
    pixels(config)
    assert not os.path.exists(folder) and len(os.listdir(config.prepared_dir)) == 1


def test_a_new_file_counts_as_unsettled(tmp_path, monkeypatch):
    """A second change within the resolution of the clock would leave the times as they are."""
    monkeypatch.setattr(source_files, '_UNSETTLED_NS', 60 * 10**9)
    file = tmp_path / 'a'
    file.write_bytes(b'1')
    before = source_files.SourceFiles(
        np.array([source_files.file_status(file)]), source_files.digest(b'1')[None], np.zeros(1, np.uint8)
    )
    assert source_files.compare(before, [file]).changed == []
    file.write_bytes(b'2')
    assert source_files.compare(before, [file]).changed == [0]
    file.unlink()
    assert source_files.compare(before, [file]).missing == [0]


def test_a_running_reader_survives_the_replacement(config):
    data = load_dataset(config)
    replaced(files_of(config))
    load_dataset(config)
    assert all(data.train[i]['image'].size for i in range(len(data.train)))
