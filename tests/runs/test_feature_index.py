"""`index.npz`: what is written is read, a slow search agrees, and other files end with one line."""

import os
import zipfile

import numpy as np
import pytest
from damages import DAMAGES

from ssanet_jax.errors import UserError
from ssanet_jax.evaluation import neighbors
from ssanet_jax.evaluation.neighbors import nearest_images
from ssanet_jax.runs.feature_index import INDEX_FILE, network_digest, read_index, row_type, write_index

N, C, K, D = 40, 6, 3, 5
FILES = [os.fsdecode(f'class {i % 4}/photo é{i}.jpg'.encode() + b'\xe9') for i in range(N)]


def rows(n=N):
    rng = np.random.default_rng(0)
    made = np.zeros(n, row_type(C, K, D))
    for name in ('image', 'parts', 'boxes'):
        made[name] = rng.normal(size=made[name].shape)
    made['present'] = rng.random((n, K)) < 0.8
    made['label'], made['position'] = np.arange(n) % 4, np.arange(n)
    return made


def write(path, made=None, files=FILES, stage='fit', network='abc'):
    made = rows() if made is None else made
    with write_index(path, stage, network) as writer:
        for start in range(0, len(made), 7):  # in pieces
            writer.add(made[start : start + 7], files[start : start + 7])


@pytest.fixture
def path(tmp_path):
    write(tmp_path / INDEX_FILE)
    return tmp_path / INDEX_FILE


def test_what_is_written_is_read_here_and_by_numpy(path):
    index = read_index(path, 'cure')
    np.testing.assert_array_equal(index.rows, rows())
    assert isinstance(index.rows, np.memmap), 'features stay on the disk'
    assert (list(index.files), index.stage, index.network, index.num_parts) == (FILES, 'fit', 'abc', K)
    np.testing.assert_array_equal(index.labels, np.arange(N) % 4)
    with np.load(path) as arrays:
        np.testing.assert_array_equal(arrays['rows'], rows())
    assert [file.name for file in path.parent.iterdir()] == [INDEX_FILE]
    assert read_index(path.with_name('missing.npz'), 'cure') is None


def test_without_parts(path):
    made = np.zeros(2, row_type(C, 0, 0))
    write(path, made, ['a', 'b'])
    index = read_index(path, 'cure')
    assert index.num_parts == 0 and index.files == ('a', 'b')
    assert len(nearest_images(index, np.ones(C, np.float16))) == 2


def test_what_is_broken_off_leaves_the_earlier_file(path):
    with pytest.raises(TypeError):
        write(path, files=FILES[:2] + [None] * N, stage='other')
    assert read_index(path, 'cure').stage == 'fit'
    with pytest.raises(UserError, match='no training image can be read'), write_index(path, 'other', 'x'):
        pass
    assert [file.name for file in path.parent.iterdir()] == [INDEX_FILE]


@pytest.mark.parametrize('damage', ['flip', 'truncate', 'empty', 'zeros', 'garbage', 'folder', 'pipe'])
@pytest.mark.parametrize('seed', range(3))
def test_damaged_files(path, damage, seed):
    DAMAGES[damage](path, seed)
    with pytest.raises(UserError, match=r'index\.npz (is damaged|cannot be read).*: write it again'):
        read_index(path, 'write it again')


def _with(path, **changes):
    """Writes the same archive with other arrays, whose checksums are right."""
    with np.load(path) as arrays:
        found = dict(arrays) | changes
    np.savez(path, **found)


@pytest.mark.parametrize(
    'changes',
    [
        dict(rows=rows()[:5]),
        dict(rows=np.zeros(N)),
        dict(rows=np.zeros(N, np.dtype([('image', '<f2', (C,))]))),
        dict(rows=rows().reshape(8, 5)),
        dict(name_ends=np.arange(N)[::-1]),
        dict(name_ends=np.full(N, -1)),
        dict(names=np.zeros(3, np.uint8)),
        dict(stage=np.array(3)),
        dict(network=np.array(['a', 'b'])),
        dict(rows=np.array([print] * N, object)),
    ],
    ids=lambda changes: '-'.join(changes),
)
def test_arrays_that_make_no_sense(path, changes):
    _with(path, **changes)
    with pytest.raises(UserError, match=r'index\.npz is damaged'):
        read_index(path, 'cure')


def test_compressed_rows_are_refused(path):
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    with pytest.raises(UserError, match='is damaged'):
        read_index(path, 'cure')


def slow_search(query, part, label):
    """Every image in a loop, in double precision."""
    found = []
    for i, row in enumerate(rows()):
        vector = row['image'] if part is None else row['parts'][part]
        if (label is not None and row['label'] != label) or (part is not None and not row['present'][part]):
            continue
        a, b = vector.astype(float), query.astype(float)
        found.append((sum(x * y for x, y in zip(a, b)) / (sum(a * a) * sum(b * b)) ** 0.5, i))
    return sorted(found, reverse=True)


@pytest.mark.parametrize('part', [None, 0, 2])
@pytest.mark.parametrize('label', [None, 1])
def test_a_slow_search_finds_the_same_neighbors(path, monkeypatch, part, label):
    monkeypatch.setattr(neighbors, '_CHUNK_BYTES', 6 * rows().itemsize)  # several chunks
    index = read_index(path, 'cure')
    query = np.random.default_rng(1).normal(size=C if part is None else D).astype(np.float16)
    expected = slow_search(query, part, label)
    found = nearest_images(index, query, part, k=4, label=label)
    assert [each.row for each in found] == [i for _, i in expected[:4]]
    np.testing.assert_allclose([each.similarity for each in found], [cosine for cosine, _ in expected[:4]], atol=1e-5)
    assert [each.file for each in found] == [FILES[each.row] for each in found]
    assert [each.label for each in found] == [each.row % 4 for each in found]
    assert len(nearest_images(index, query, part, k=1000, label=label)) == len(expected)


def test_questions_that_make_no_sense(path):
    index = read_index(path, 'cure')
    with pytest.raises(ValueError, match='part 3 of 3'):
        nearest_images(index, np.zeros(D), 3)
    with pytest.raises(ValueError, match='shape'):
        nearest_images(index, np.zeros(D + 1), 0)
    assert nearest_images(index, np.ones(C), label=99) == []


def test_a_digest_is_that_of_the_weights():
    weights = {'a': {'w': np.arange(4.0, dtype=np.float32)}, 'b': {'w': np.zeros(())}}
    other = {'a': {'w': np.arange(4.0, dtype=np.float32)}, 'b': {'w': np.ones(())}}
    digests = [network_digest(weights, {}), network_digest({}, weights), network_digest(other, {})]
    assert digests[0] == digests[1] != digests[2]
