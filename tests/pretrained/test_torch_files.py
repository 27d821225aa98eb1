"""Torch files: valid ones are read, invalid ones are refused, and no code from them is run."""

import io
import pickle
import random
import struct
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from ssanet_jax.errors import UserError
from ssanet_jax.pretrained.torch_files import read_torch_file

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
COUNTS = np.array([7, 8], np.int64)


class Storage:
    """Pickles like a torch storage: as a persistent id."""

    def __init__(self, kind, key, array, count=None):
        self.id = ('storage', kind, key, 'cpu', array.size if count is None else count)
        self.key, self.array = key, array


class Tensor:
    """Pickles like a torch tensor: as a call of `_rebuild_tensor_v2`."""

    def __init__(self, storage, shape, strides, offset=0):
        self.parts = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self):
        return sys.modules['torch._utils']._rebuild_tensor_v2, self.parts


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return value.id if isinstance(value, Storage) else None


@pytest.fixture
def torch_names(monkeypatch):
    """Stubs for torch, so that pickle writes its names although the package is not installed."""
    torch, utils = types.ModuleType('torch'), types.ModuleType('torch._utils')
    for name in ('FloatStorage', 'LongStorage'):
        setattr(torch, name, type(name, (), {'__module__': 'torch'}))

    def _rebuild_tensor_v2(*parts):
        raise AssertionError(parts)

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = 'torch._utils', '_rebuild_tensor_v2'
    utils._rebuild_tensor_v2, torch._utils = _rebuild_tensor_v2, utils
    monkeypatch.setitem(sys.modules, 'torch', torch)
    monkeypatch.setitem(sys.modules, 'torch._utils', utils)
    return torch


def pickled(value):
    file = io.BytesIO()
    Pickler(file, 2).dump(value)
    return file.getvalue()


def content(torch, count=None, shape=(2, 3), strides=(3, 1), offset=0):
    weight = Storage(torch.FloatStorage, '0', WEIGHT, count)
    counts = Storage(torch.LongStorage, '1', COUNTS)
    state = OrderedDict(weight=Tensor(weight, shape, strides, offset), counts=Tensor(counts, (2,), (1,)))
    state._metadata = {'': {'version': 1}}
    return state, (weight, counts)


def legacy(state, storages):
    head = (0x1950A86A20F9469CFC6C, 1001, {'little_endian': True}, state, [s.key for s in storages])
    tail = (struct.pack('<q', s.array.size) + s.array.tobytes() for s in storages)
    return b''.join(pickle.dumps(part, 2) if part is not state else pickled(part) for part in head) + b''.join(tail)


def zipped(state, storages, root='archive'):
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr(f'{root}/data.pkl', pickled(state))
        archive.writestr(f'{root}/byteorder', 'little')
        for storage in storages:
            archive.writestr(f'{root}/data/{storage.key}', storage.array.tobytes())
    return file.getvalue()


FORMATS = pytest.mark.parametrize('write', [legacy, zipped])


def written(tmp_path, data):
    path = tmp_path / 'weights.pth'
    path.write_bytes(data)
    return path


@FORMATS
def test_reads_names_numbers_and_types(write, torch_names, tmp_path):
    tensors = read_torch_file(written(tmp_path, write(*content(torch_names)))).tensors
    assert list(tensors) == ['weight', 'counts']
    np.testing.assert_array_equal(tensors['weight'], WEIGHT)
    np.testing.assert_array_equal(tensors['counts'], COUNTS)
    assert tensors['weight'].dtype == np.float32 and tensors['counts'].dtype == np.int64


@FORMATS
def test_reads_views_and_checkpoints(write, torch_names, tmp_path):
    state, storages = content(torch_names, shape=(2, 2), strides=(1, 3), offset=1)
    found = read_torch_file(written(tmp_path, write({'epoch': 3, 'state_dict': state}, storages)))
    assert found.key == 'state_dict'
    np.testing.assert_array_equal(found.tensors['weight'], [[1, 4], [2, 5]])


@FORMATS
@pytest.mark.parametrize(
    'wrong',
    [
        dict(count=7),
        dict(count=10**15),
        dict(count=-1),
        dict(shape=(3, 3)),
        dict(offset=1),
        dict(offset=-1),
        dict(shape=(10**6, 10**6), strides=(0, 0)),
        dict(strides=(-3, 1)),
        dict(shape=(2,)),
    ],
)
def test_wrong_sizes_are_refused_before_anything_is_allocated(write, wrong, torch_names, tmp_path):
    path = written(tmp_path, write(*content(torch_names, **wrong)))
    with pytest.raises(UserError, match='damaged'):
        read_torch_file(path)


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), 'w')


@FORMATS
def test_a_malicious_pickle_is_refused_by_name_and_not_run(write, torch_names, tmp_path):
    target = tmp_path / 'was_run'
    path = written(tmp_path, write({'weight': Malicious(target)}, ()))
    with pytest.raises(UserError, match=r'refused: it uses (io|_io)\.open'):
        read_torch_file(path)
    assert not target.exists()


@FORMATS
def test_every_truncation_is_one_clear_error(write, torch_names, tmp_path):
    data = write(*content(torch_names))
    for length in range(0, len(data), 7):
        with pytest.raises(UserError) as caught:
            read_torch_file(written(tmp_path, data[:length]))
        assert '\n' not in str(caught.value)


@FORMATS
def test_mutated_files_are_read_or_refused(write, torch_names, tmp_path):
    data, chance = write(*content(torch_names)), random.Random(0)
    for _ in range(300):
        mutated = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            mutated[chance.randrange(len(mutated))] = chance.randrange(256)
        try:
            read_torch_file(written(tmp_path, bytes(mutated)))
        except UserError as error:
            assert '\n' not in str(error)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match='check the path'):
        read_torch_file(tmp_path / 'nothing.pth')
    with pytest.raises(UserError, match='neither a torch nor a safetensors file'):
        read_torch_file(written(tmp_path, b'hello world'))
    with pytest.raises(UserError, match='does not contain named tensors'):
        read_torch_file(written(tmp_path, legacy({'epoch': 3}, ())))
