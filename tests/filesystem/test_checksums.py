"""Checksums of folders: every difference is found."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssanet_jax.filesystem.checksums import compute_checksum, compute_checksums, find_difference


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'd').mkdir()
    (tmp_path / 'a').write_bytes(b'123456789')
    (tmp_path / 'd' / 'b').write_bytes(bytes(3_000_000))
    return tmp_path


def test_the_checksum_is_the_published_one(folder):
    assert compute_checksum(folder / 'a') == (9, 'cbf43926')  # the check value of CRC-32
    assert compute_checksum(folder / 'a', num_bytes=3)[0] == 3


def test_a_folder_agrees_with_itself(folder):
    files = compute_checksums(folder, sync=True)
    assert list(files) == ['a', 'd/b'] and find_difference(folder, files) == ''


@pytest.mark.parametrize(
    ('harm', 'message'),
    [
        (lambda folder: (folder / 'a').unlink(), 'a is missing'),
        (lambda folder: (folder / 'c').touch(), 'c does not belong to it'),
        (lambda folder: (folder / 'd' / 'c').write_text('x'), 'd/c does not belong to it'),
        (lambda folder: (folder / 'a').write_bytes(b''), 'a has 0 bytes instead of 9'),
        (lambda folder: (folder / 'a').write_bytes(b'1234567890'), 'a has 10 bytes instead of 9'),
        (lambda folder: (folder / 'a').write_bytes(b'123456788'), 'a differs from its checksum'),
        (lambda folder: os.truncate(folder / 'd' / 'b', 2_999_999), 'd/b has 2999999 bytes instead of 3000000'),
        (lambda folder: (folder / 'a').rename(folder / 'b'), 'a is missing'),
    ],
)
def test_differences(folder, harm, message):
    files = compute_checksums(folder)
    harm(folder)
    assert find_difference(folder, files) == message


@pytest.mark.parametrize('name', ['.DS_Store', '._a', '.nfs0001', 'Thumbs.db', 'd/desktop.ini'])
def test_files_of_file_managers_are_no_difference(folder, name):
    files = compute_checksums(folder)
    (folder / name).write_text('x')
    assert find_difference(folder, files) == ''


@pytest.mark.parametrize('recorded', [None, 3, [], [9], ['9', 'cbf43926'], {}])
def test_checksums_that_are_no_checksums(folder, recorded):
    assert find_difference(folder, {'a': recorded, 'd/b': compute_checksums(folder)['d/b']})


@settings(deadline=None)  # disks wait
@given(st.binary(min_size=1, max_size=200), st.data())
def test_every_flipped_bit_shows(tmp_path_factory, content, data):
    path = tmp_path_factory.getbasetemp() / 'flipped'
    path.write_bytes(content)
    before = compute_checksum(path)
    position = data.draw(st.integers(0, 8 * len(content) - 1))
    flipped = bytearray(content)
    flipped[position // 8] ^= 1 << position % 8
    path.write_bytes(flipped)
    assert compute_checksum(path) != before
