"""MATLAB files: what data sets hold is read as SciPy reads it, and no file reaches SciPy that could end the process."""

import io
import random
import struct

import numpy as np
import pytest
import scipy.io

from ssanet_jax.data.matlab import load_matlab

VARIABLES = {
    'numbers': np.arange(6).reshape(2, 3),
    'floats': np.array([[0.5, np.inf]], np.float32),
    'complex': np.array([[1 + 2j]]),
    'text': np.array(['ab', 'cd']),
    'cells': np.array([[np.array([1]), np.array(['x'])]], object),
    'struct': np.array([(1, 'a'), (2, 'bc')], [('number', 'O'), ('name', 'O')]),
    'empty': np.zeros((0, 0)),
}


def encode(variables, **options) -> bytes:
    out = io.BytesIO()
    scipy.io.savemat(out, variables, **options)
    return out.getvalue()


@pytest.fixture
def load(tmp_path):
    def read(data, **options):
        (tmp_path / 'a.mat').write_bytes(data)
        return load_matlab(tmp_path / 'a.mat', **options)

    return read


@pytest.mark.parametrize('packed', [False, True])
@pytest.mark.parametrize('name', VARIABLES)
def test_variables_are_those_of_scipy(load, name, packed):
    data = encode({name: VARIABLES[name]}, do_compression=packed)
    expected = scipy.io.loadmat(io.BytesIO(data), squeeze_me=True)[name]
    np.testing.assert_equal(load(data, squeeze_me=True)[name], expected)


def test_a_type_that_does_not_exist_is_refused(load):
    """With it, SciPy 1.16 reads beyond a table, and the process ends."""
    data = encode({'labels': np.array([[1, 2, 1, 2, 1, 2]], np.uint8)})
    place = data.index(struct.pack('<II', 2, 6))
    with pytest.raises(ValueError, match='do not fit together'):
        load(data[:place] + struct.pack('<I', 0x4002) + data[place + 4 :])


@pytest.mark.parametrize(
    'data',
    [
        b'',
        b'MATLAB 5.0 MAT-file'.ljust(126) + b'IM' + b'\0' * 7,
        b'\0' * 200,
        b'MATLAB 7.3 MAT-file'.ljust(126) + b'IM' + b'\x89HDF\r\n\x1a\n' + bytes(100),
        encode({'a': scipy.sparse.csc_array(np.eye(3))}),
        encode({'a': np.eye(2)}, format='4'),
        encode({'a': np.eye(2)})[:-20],
    ],
    ids=['empty', 'cut', 'zeros', 'hdf5', 'sparse', 'version 4', 'cut in the numbers'],
)
def test_other_files_are_refused(load, data):
    with pytest.raises((ValueError, struct.error)):
        load(data)


def test_a_shape_beyond_the_limits_is_refused_before_the_parts_are_read(load):
    flags = struct.pack('<IIII', 6, 8, 1, 0)  # of a cell array
    shape = struct.pack('<IIii', 5, 8, 1, 2_000_000)
    unreadable = struct.pack('<II', 14, 1000)
    body = flags + shape + struct.pack('<II', 1, 0) + unreadable
    header = b'MATLAB 5.0 MAT-file'.ljust(124) + struct.pack('<H', 0x0100) + b'IM'
    with pytest.raises(ValueError, match='far more data'):
        load(header + struct.pack('<II', 14, len(body)) + body)


def test_nesting_without_end_is_refused(load):
    cell = np.zeros((1, 1))
    for _ in range(40):
        outer = np.empty((1, 1), object)
        outer[0, 0] = cell
        cell = outer
    with pytest.raises(ValueError, match='not an array'):
        load(encode({'a': cell}))


@pytest.mark.parametrize('seed', range(3))
def test_damage_raises_an_exception_at_most(load, seed):
    rng = random.Random(seed)
    good = encode(VARIABLES, do_compression=seed == 2)
    for _ in range(300):
        data = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            load(bytes(data))
        except Exception as error:
            assert not isinstance(error, MemoryError)
