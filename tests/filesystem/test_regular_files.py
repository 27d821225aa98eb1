"""Reading of files of a limited size."""

import tracemalloc
from pathlib import Path

import pytest

from ssanet_jax.filesystem.regular_files import read_regular_file


def test_a_small_file_takes_little_memory_whatever_the_limit(tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(b'content')
    tracemalloc.start()
    try:
        assert read_regular_file(path, 1 << 29) == b'content'
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize('more', [0, 1])
def test_the_limit(more, tmp_path):
    path = tmp_path / 'file'
    path.write_bytes(bytes(2_000_000 + more))
    if more:
        with pytest.raises(OSError, match='more than 2 MB'):
            read_regular_file(path, 2_000_000)
    else:
        assert len(read_regular_file(path, 2_000_000)) == 2_000_000


def test_a_file_with_more_than_its_size_says():
    path = Path('/proc/self/status')  # its size is 0
    if not path.exists():
        pytest.skip('no /proc')
    assert read_regular_file(path, 1 << 20).startswith(b'Name:')
    with pytest.raises(OSError, match='more than'):
        read_regular_file(path, 100)
