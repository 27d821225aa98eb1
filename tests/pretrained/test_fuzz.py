"""Thousands of damaged weights files: each is read or refused in one line, without running code or much memory."""

import gc
import io
import json
import pickle
import random
import struct
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
from torch_pickles import number, tensor, text, tuple_of

from ssanet_jax.errors import UserError
from ssanet_jax.pretrained.load import read_tensors

FILES = 1000  # of each kind
# Whatever the file: Python's own buffers, an error with its traceback, and zipfile's of a wrong name (64 KB, escaped).
FIXED = 384 * 1024

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
WEIGHT = np.arange(10_000, dtype=np.float32).reshape(100, 100)
BIAS = np.arange(100, dtype=np.float32)
COUNT = np.array(7, np.int64)
STORAGES = (('0', 'FloatStorage', WEIGHT), ('1', 'FloatStorage', BIAS), ('2', 'LongStorage', COUNT))
EVIL = (
    b'cos\nsystem\n(X\x0b\x00\x00\x00touch ownedtR',
    b'cbuiltins\neval\n(X\x03\x00\x00\x001+1tR',
    b'cbuiltins\nexec\n(X\x04\x00\x00\x00passtR',
    b'\x8c\x02os\x8c\x06system\x93\x8c\x0btouch owned\x85R',
    b'(X\x0b\x00\x00\x00touch ownedios\nsystem\n',
    b'(cos\nsystem\nX\x0b\x00\x00\x00touch ownedo',
    b'cnumpy\nload\n(X\x01\x00\x00\x00xtR',
    b'ctorch\nload\n(X\x01\x00\x00\x00xtR',
    b'ctorch._utils\n_rebuild_tensor_v2\n}X\x0c\x00\x00\x00__defaults__)sb0',
    b'ctorch\nFloatStorage\n(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb0',
    b'cbuiltins\ngetattr\n0',
    b'\x82\x01',  # a name by number
    b'r\xff\xff\xff\x7f',  # remembered at place 2 147 483 647
    b'\x8e\xff\xff\xff\xff\xff\xff\xff\x0f',  # so many bytes
    b'\x96\xff\xff\xff\xff\xff\xff\xff\x0f',
    b'\x95\xff\xff\xff\xff\xff\xff\xff\x0f',
    b'B\xff\xff\xff\xff',
    b'\x8b\xff\xff\xff\x7f',
)


def state_pickle(storages=STORAGES, extra=b''):
    """A state dict pickled by hand, opcode by opcode, so that tests can change each opcode."""
    names = ('weight', 'bias', 'num_batches_tracked')
    items = b''.join(text(name) + tensor(*row, extra) for name, row in zip(names, storages))
    return b'\x80\x02ccollections\nOrderedDict\n)Rq\x01(' + items + b'u}X\x01\x00\x00\x00aK\x01sb.'


def zipped(content, storages=STORAGES):
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr('archive/data.pkl', content)
        archive.writestr('archive/byteorder', 'little')
        for key, _, array in storages:
            archive.writestr(f'archive/data/{key}', array.tobytes())
    return file.getvalue()


def legacy(content, storages=STORAGES, little_endian=True):
    head = (pickle.dumps(part, 2) for part in (MAGIC, VERSION, {'little_endian': little_endian}))
    keys = pickle.dumps([key for key, *_ in storages], 2)
    numbers = (struct.pack('<q', array.size) + array.tobytes() for *_, array in storages)
    return b''.join(head) + content + keys + b''.join(numbers)


def safetensors(header=None):
    if header is None:
        header, at = {}, 0
        for name, kind, array in (('weight', 'F32', WEIGHT), ('bias', 'F32', BIAS), ('count', 'I64', COUNT)):
            header[name] = {'dtype': kind, 'shape': array.shape, 'data_offsets': [at, at + array.nbytes]}
            at += array.nbytes
    content = json.dumps(header).encode()
    return struct.pack('<Q', len(content)) + content + b''.join(a.tobytes() for a in (WEIGHT, BIAS, COUNT))


def flip_bits(data, chance):
    for _ in range(chance.randint(1, 8)):
        data[_place(data, chance)] ^= 1 << chance.randrange(8)


def cut_off(data, chance):
    del data[chance.randrange(len(data)) :]


def swap_bytes(data, chance):
    for _ in range(chance.randint(1, 4)):
        a, b = _place(data, chance), _place(data, chance)
        data[a], data[b] = data[b], data[a]


def change_size(data, chance):
    """Overwrites 1, 2, 4 or 8 bytes with a boundary value, which may become a size or an offset."""
    width = chance.choice((1, 2, 4, 8))
    value = chance.choice((0, 1, 2 ** (8 * width - 1) - 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1, 10**9, 10**15))
    at = _place(data, chance)
    data[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, chance.choice(('little', 'big')))


def insert_bytes(data, chance):
    at = _place(data, chance)
    data[at:at] = chance.randbytes(chance.randint(1, 20))


def splice(data, chance):
    at = _place(data, chance)
    data[at:at] = chance.choice(EVIL)


def _place(data, chance):
    """A position, most often near the ends of the file, which hold its structure and no weights."""
    where = chance.random()
    if where < 0.6 and len(data) > 2000:
        return chance.randrange(1500)
    if where < 0.9 and len(data) > 2000:
        return len(data) - 1 - chance.randrange(1000)
    return chance.randrange(max(len(data), 1))


DAMAGE = (flip_bits, cut_off, swap_bytes, change_size, insert_bytes, splice)


def spoilt(data, chance):
    data = bytearray(data)
    for _ in range(chance.randint(1, 2)):
        if data:
            chance.choice(DAMAGE)(data, chance)
    return bytes(data)


def whole_files(kind, chance):
    """Yields `FILES` damaged files: in any byte, or only in the pickle of an otherwise valid file."""
    for _ in range(FILES):
        match kind:
            case 'zip':
                yield spoilt(zipped(state_pickle()), chance)
            case 'pickle in zip':
                yield zipped(spoilt(state_pickle(), chance))
            case 'legacy':
                yield spoilt(legacy(state_pickle()), chance)
            case 'pickle in legacy':
                yield legacy(spoilt(state_pickle(), chance))
            case 'safetensors':
                yield spoilt(safetensors(), chance)


@pytest.mark.parametrize('kind', ['zip', 'pickle in zip', 'legacy', 'pickle in legacy', 'safetensors'])
def test_spoilt_files_are_read_or_refused(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where `touch owned` would leave its mark
    path = tmp_path / ('weights.safetensors' if kind == 'safetensors' else 'weights.pth')
    read = 0
    tracemalloc.start()
    try:
        for data in whole_files(kind, random.Random(kind)):
            path.write_bytes(data)
            gc.collect(0)  # or what it frees now and then would be counted
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            try:
                read += bool(read_tensors(path).tensors)
            except UserError as error:
                assert '\n' not in str(error) and str(path) in str(error)
            taken = tracemalloc.get_traced_memory()[1] - before
            assert taken <= 4 * len(data) + FIXED, f'{taken} bytes for a file of {len(data)}'
    finally:
        tracemalloc.stop()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert 0 < read < FILES, 'damage must hit, and must not always be fatal'


@pytest.mark.parametrize('pack', [zipped, legacy])
@pytest.mark.parametrize('evil', EVIL, ids=range(len(EVIL)))
def test_each_evil_pickle_does_nothing(pack, evil, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'weights.pth'
    path.write_bytes(pack(b'\x80\x02' + evil + b'0' + state_pickle()[2:]))
    try:
        assert (read_tensors(path).tensors['weight'] == WEIGHT).all()
    except UserError as error:
        assert '\n' not in str(error)
    assert not (tmp_path / 'owned').exists()


@pytest.mark.parametrize('pack', [zipped, legacy])
def test_a_storage_cannot_be_stretched_after_it_was_checked(pack, tmp_path):
    # BUILD sets attributes of what it finds on the stack; were it the storage, it would read what lies behind it.
    storage = tuple_of(text('storage'), b'ctorch\nFloatStorage\n', text('0'), text('cpu'), number(WEIGHT.size)) + b'Q'
    stretched = storage + b'}' + text('count') + number(10**9) + b'sb'
    view = tuple_of(stretched, number(10**8), tuple_of(number(4)), tuple_of(number(1)), b'\x89', b'}')
    content = b'\x80\x02}' + text('weight') + b'ctorch._utils\n_rebuild_tensor_v2\n' + view + b'Rs.'
    path = tmp_path / 'weights.pth'
    path.write_bytes(pack(content, STORAGES[:1]))
    with pytest.raises(UserError, match='larger than its storage'):
        read_tensors(path)


@pytest.mark.parametrize('pack', [zipped, legacy])
@pytest.mark.parametrize(
    'change, words',
    [
        (lambda s: s.replace(number(WEIGHT.size), number(10**12)), 'damaged'),
        (lambda s: s.replace(number(WEIGHT.size), number(-1)), 'damaged'),
        (lambda s: s.replace(b'FloatStorage', b'QInt8Storage'), 'torch.QInt8Storage, which is not supported'),
        (lambda s: s.replace(b'FloatStorage', b'ComplexFloatStorage'), 'save the weights as float32'),
        (lambda s: state_pickle(extra=tuple_of(text('0'), number(4), number(2))), 'torch before 0.4'),
    ],
)
def test_sizes_and_kinds_that_cannot_be_have_a_clear_line(pack, change, words, tmp_path):
    path = tmp_path / 'weights.pth'
    path.write_bytes(pack(change(state_pickle())))
    with pytest.raises(UserError, match=words) as caught:
        read_tensors(path)
    assert '\n' not in str(caught.value)


def test_big_endian_files_have_a_clear_line(tmp_path):
    path = tmp_path / 'weights.pth'
    for data in (zipped(state_pickle()).replace(b'little', b'biggg!'), legacy(state_pickle(), little_endian=False)):
        if data[:2] == b'PK':
            file = io.BytesIO()
            with zipfile.ZipFile(file, 'w') as archive:
                archive.writestr('archive/data.pkl', state_pickle())
                archive.writestr('archive/byteorder', 'big')
            data = file.getvalue()
        path.write_bytes(data)
        with pytest.raises(UserError, match='big-endian'):
            read_tensors(path)


def test_a_packed_archive_is_refused_before_it_unfolds(tmp_path):
    path = tmp_path / 'weights.pth'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('archive/data.pkl', b'\0' * 10_000_000)
    with pytest.raises(UserError, match='packed'):
        read_tensors(path)


@pytest.mark.parametrize('pack', [zipped, legacy])
@pytest.mark.parametrize('kind, dtype', [('HalfStorage', np.float16), ('BFloat16Storage', ml_dtypes.bfloat16)])
def test_half_precision_is_read(pack, kind, dtype, tmp_path):
    storages = (('0', kind, WEIGHT[:2, :3].astype(dtype).copy()),)
    path = tmp_path / 'weights.pth'
    path.write_bytes(pack(state_pickle(storages), storages))
    read = read_tensors(path).tensors['weight']
    assert read.dtype == dtype
    np.testing.assert_array_equal(read.astype(np.float32), storages[0][2].astype(np.float32))


@pytest.mark.parametrize(
    'data',
    [
        b'',
        struct.pack('<Q', 2**63) + b'{}',
        struct.pack('>Q', 2) + b'{}',  # the wrong end first
        safetensors({'weight': {'dtype': 'F32', 'shape': [10**9, 10**9], 'data_offsets': [0, 4 * 10**18]}}),
        safetensors({'weight': {'dtype': 'F32', 'shape': [2, 2], 'data_offsets': [0, 10**9]}}),
        safetensors({'weight': {'dtype': 'X9', 'shape': [2], 'data_offsets': [0, 8]}}),
        safetensors({'weight': {'dtype': 'F32', 'shape': [-2], 'data_offsets': [0, 8]}}),
        struct.pack('<Q', 4000) + b'[' * 4000,
    ],
    ids=range(8),
)
def test_wrong_safetensors_have_a_clear_line(data, tmp_path):
    path = tmp_path / 'weights.safetensors'
    path.write_bytes(data)
    with pytest.raises(UserError, match='damaged'):
        read_tensors(path)
