"""Torch files written by hand, without torch, so that tests can put anything into their pickles."""

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

STORAGES = {'f4': 'FloatStorage', 'f2': 'HalfStorage', 'i8': 'LongStorage', 'f8': 'DoubleStorage'}


def text(value):
    return b'X' + struct.pack('<I', len(value)) + value.encode()


def number(value):
    return b'\x8a\x09' + int(value).to_bytes(9, 'little', signed=True)


def tuple_of(*parts):
    return b'(' + b''.join(parts) + b't'


def tensor(key, kind, array, extra=b''):
    storage = tuple_of(text('storage'), f'ctorch\n{kind}\n'.encode(), text(key), text('cpu'), number(array.size), extra)
    shape = tuple_of(*map(number, array.shape))
    strides = tuple_of(*(number(step // array.itemsize) for step in array.strides))
    return (
        b'ctorch._utils\n_rebuild_tensor_v2\n'
        + tuple_of(storage + b'Q', number(0), shape, strides, b'\x89', b'ccollections\nOrderedDict\n)R')
        + b'R'
    )


def write_torch_file(path: Path, content: Any) -> Path:
    """Writes nested dictionaries of arrays, strings and numbers as `torch.save` does; bytes are opcodes."""
    arrays: list[np.ndarray] = []

    def opcodes(value: Any) -> bytes:
        if isinstance(value, dict):
            return b'}(' + b''.join(opcodes(part) for item in value.items() for part in item) + b'u'
        if isinstance(value, np.ndarray):
            arrays.append(value)
            return tensor(str(len(arrays) - 1), STORAGES[value.dtype.str[1:]], value)
        if isinstance(value, bytes):
            return value
        return text(value) if isinstance(value, str) else number(value)

    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', b'\x80\x02' + opcodes(content) + b'.')
        for key, array in enumerate(arrays):
            archive.writestr(f'archive/data/{key}', array.tobytes())
    return path
