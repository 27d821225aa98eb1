"""Reading of torch files (`.pth`, `.pt`, `.bin`, `.ckpt`) without torch, and without running code from them.

A torch file contains a pickle, which `pickles.py` interprets: only tensors and plain containers are allowed. Both
formats of `torch.save` are supported: the zip archive (since torch 1.6), and the legacy format, a sequence of pickles
followed by the raw data. The pickle is interpreted first, to find out which tensors there are. Then the data of each
storage is read once, and the arrays are views of it.
"""

import io
import struct
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.archives import open_zip
from ssanet_jax.pretrained.pickles import AllowedFunction, ExceedsLimit, UnsafePickle, check_key, interpret
from ssanet_jax.pretrained.state_dicts import StateDict, find_state_dict

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_MAX_LINE = 4096  # bytes of a name in a pickle; a damaged file could otherwise claim all of its bytes
# Limits, ten times above what training checkpoints of large networks have.
_MAX_PICKLE = 1 << 24  # bytes
_MAX_DIMENSIONS = 32

_STORAGES = {
    'DoubleStorage': np.dtype('<f8'),
    'FloatStorage': np.dtype('<f4'),
    'HalfStorage': np.dtype('<f2'),
    'BFloat16Storage': np.dtype(ml_dtypes.bfloat16),
    'LongStorage': np.dtype('<i8'),
    'IntStorage': np.dtype('<i4'),
    'ShortStorage': np.dtype('<i2'),
    'CharStorage': np.dtype('i1'),
    'ByteStorage': np.dtype('u1'),
    'BoolStorage': np.dtype('?'),
}


def read_torch_file(path: str | Path) -> StateDict:
    """Reads the tensors of a state dict written by `torch.save`.

    Args:
      path: a file with a dict of tensors, or a training checkpoint that contains one, see `state_dicts`.

    Returns:
      The tensors as read-only arrays, in the order of the file. bfloat16 tensors are `ml_dtypes.bfloat16`.

    Raises:
      UserError: the file is missing, truncated or damaged, contains anything but tensors and plain data, or holds
        several sets of tensors. No code from the file is run.
    """
    path = Path(path)
    try:
        with open(path, 'rb') as file, warnings.catch_warnings():
            warnings.simplefilter('ignore', DeprecationWarning)  # about invalid escapes in damaged strings
            read = _read_zip if zipfile.is_zipfile(file) else _read_legacy
            return read(file, path)
    except OSError as error:
        raise UserError(f'cannot read the weights {path}: {error.strerror or error}; check the path') from error
    except UserError:
        raise
    except UnsafePickle as error:
        if str(error).startswith('torch.') and str(error).endswith('Storage'):
            raise UserError(
                f'{path} contains a {error}, which is not supported; save the weights as float32'
            ) from error
        raise UserError(
            f'{path} is refused: it uses {_brief(error)}, which is neither a tensor nor a plain container; '
            'save a plain state dict with torch.save(model.state_dict(), path)'
        ) from error
    except ExceedsLimit as error:
        raise UserError(
            f'{path} is refused: it has {_brief(error)}, more than weights need; save the state dict of the network '
            'alone with torch.save(model.state_dict(), path)'
        ) from error
    except Exception as error:  # Damaged files raise exceptions of almost any type.
        raise UserError(
            f'{path} is damaged or truncated ({_brief(error) or type(error).__name__}); download it again'
        ) from error


@dataclass
class _Storage:
    """A flat array of numbers. Its data is None until it is known that a tensor needs it."""

    key: str
    dtype: np.dtype
    count: int
    data: np.ndarray | None = None

    @property
    def size(self) -> int:
        return self.count * self.dtype.itemsize


@dataclass
class _Tensor:
    """A view of a storage, as `torch._utils._rebuild_tensor_v2` builds it. Offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        """The tensor as a read-only array; raises ValueError if it does not fit its storage."""
        if not all(isinstance(n, int) and n >= 0 for n in (self.offset, *self.shape, *self.strides)):
            raise ValueError('a tensor has a negative or fractional shape')
        if len(self.shape) != len(self.strides):
            raise ValueError('a tensor has a shape that does not match its strides')
        if 0 in self.shape:
            return np.empty(self.shape, self.storage.dtype)
        data = self.storage.data
        if data is None:
            raise ValueError('a tensor whose storage was not read')
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides))
        # With a stride of 0, a few bytes could claim to be terabytes: every element must exist in the storage.
        if last >= data.size or int(np.prod(self.shape, dtype=object)) > data.size:
            raise ValueError('a tensor is larger than its storage')
        steps = tuple(step * self.storage.dtype.itemsize for step in self.strides)
        return np.lib.stride_tricks.as_strided(data[self.offset :], self.shape, steps)


def _rebuild_tensor(storage, offset, shape, strides, requires_grad=False, hooks=None, metadata=None):
    del requires_grad, hooks, metadata
    if not isinstance(storage, _Storage):
        raise ValueError('a tensor without a storage')
    if max(len(shape), len(strides)) > _MAX_DIMENSIONS:
        raise ExceedsLimit(f'a tensor of more than {_MAX_DIMENSIONS} dimensions')
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(data, requires_grad=False, hooks=None):
    del requires_grad, hooks
    return data


def _ordered_dict(items=()):
    if not all(isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], str) for item in items):
        raise ValueError('an ordered dict of something else than pairs')
    for key, _ in items:
        check_key(key)
    return dict(items)


def _rebuild_subclass(function, kind, arguments, state):
    """A parameter with attributes of its own, which are not needed."""
    del kind, state
    if not isinstance(function, AllowedFunction):
        raise ValueError('a call of something that is not a function')
    return function.call(*arguments)


# Training checkpoints also hold settings and scores. Those of these types are left out; nothing is constructed.
_OMITTED = AllowedFunction(lambda *arguments: None)
_OMITTED_TYPES = (
    ('argparse', 'Namespace'),
    ('pathlib', 'PosixPath'),
    ('torch', 'device'),
    ('torch', 'Size'),
    ('numpy', 'dtype'),
    ('numpy.core.multiarray', 'scalar'),
    ('numpy._core.multiarray', 'scalar'),
    ('_codecs', 'encode'),  # the bytes of NumPy's scalars
    ('__builtin__', 'set'),
    ('builtins', 'set'),
)

_KNOWN = {
    ('collections', 'OrderedDict'): AllowedFunction(_ordered_dict),
    ('torch._utils', '_rebuild_tensor_v2'): AllowedFunction(_rebuild_tensor),
    ('torch._utils', '_rebuild_parameter'): AllowedFunction(_rebuild_parameter),
    ('torch._tensor', '_rebuild_from_type_v2'): AllowedFunction(_rebuild_subclass),
    ('torch.nn.parameter', 'Parameter'): None,
    **{('torch', name): dtype for name, dtype in _STORAGES.items()},
    **dict.fromkeys((('torch', name) for name in ('float64', 'float32', 'float16', 'bfloat16', 'int64')), None),
    **dict.fromkeys(_OMITTED_TYPES, _OMITTED),
}


class _Storages:
    """The storages that the pickle of a file refers to, by key."""

    def __init__(self):
        self.by_key: dict[str, _Storage] = {}

    def persistent(self, pid: Any) -> _Storage:
        """Maps a persistent id to its storage, always the same object."""
        if not isinstance(pid, tuple) or not 5 <= len(pid) <= 6:
            raise ValueError('an unknown kind of storage')
        kind, dtype, key, _, count, *view = pid
        if not isinstance(key, str | int):
            raise ValueError('a storage whose key is not a string')
        check_key(key)
        if kind != 'storage' or not isinstance(dtype, np.dtype) or not isinstance(count, int) or count < 0:
            raise ValueError('an unknown kind of storage')
        if view not in ([], [None]):
            raise ValueError('a view of a storage, as in files of torch before 0.4')
        return self.by_key.setdefault(str(key), _Storage(str(key), dtype, count))


def _read_zip(file: BinaryIO, path: Path) -> StateDict:
    with open_zip(file) as archive:
        entries = {name.partition('/')[2]: archive.getinfo(name) for name in archive.namelist()}
        file_size = path.stat().st_size

        def read(name, size=None):
            # torch does not compress. A compressed or oversized entry could claim any amount of memory.
            entry = entries.get(name)
            if entry is None or entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f'{name} is missing or compressed')
            size = entry.file_size if size is None else size
            if not entry.compress_size == entry.file_size == size <= file_size:
                raise ValueError(f'{name} has {entry.file_size} bytes instead of {size}, or more than the file')
            return archive.read(entry)

        if 'data.pkl' not in entries:
            raise UserError(f'{path} is a zip archive but not a torch file (it has no data.pkl); check the path')
        if 'constants.pkl' in entries:
            raise UserError(
                f'{path} is a TorchScript program, not weights; save its weights with '
                'torch.save(torch.jit.load(path).state_dict(), path)'
            )
        if 'byteorder' in entries and read('byteorder').strip() != b'little':
            raise _big_endian(path)
        storages = _Storages()
        if entries['data.pkl'].file_size > _MAX_PICKLE:
            raise ExceedsLimit(f'a pickle of {entries["data.pkl"].file_size} bytes')
        content = interpret(io.BytesIO(read('data.pkl')), _KNOWN, storages.persistent)
        found = find_state_dict(content, _Tensor, path)
        needed = _needed(found.tensors, file_size)
        for storage in needed:
            storage.data = np.frombuffer(read(f'data/{storage.key}', storage.size), storage.dtype)
    return _arrays(found)


def _read_legacy(file: BinaryIO, path: Path) -> StateDict:
    file.seek(0)
    file_size = path.stat().st_size
    bounded, storages = _Bounded(file, file_size), _Storages()

    def load():
        return interpret(bounded, _KNOWN, storages.persistent)

    try:
        magic = load()
    except Exception:
        magic = None
    if magic != _LEGACY_MAGIC:
        file.seek(0)
        if file.read(2) == b'PK':  # the directory of a zip archive is at its end
            raise EOFError('the end of the archive is missing')
        raise UserError(
            f'{path} is neither a torch nor a safetensors file, or its beginning is damaged; convert it, or download '
            'it again'
        )
    if load() != _LEGACY_VERSION:
        raise ValueError('unknown version of the format')
    if not load().get('little_endian', True):
        raise _big_endian(path)
    found = find_state_dict(load(), _Tensor, path)
    needed = {storage.key for storage in _needed(found.tensors, file_size)}
    for key in load():
        check_key(key)
        storage = storages.by_key[key]
        (count,) = struct.unpack('<q', bounded.exactly(8))
        if count != storage.count or storage.data is not None:
            raise ValueError(f'storage {key} has {count} elements instead of {storage.count}')
        if key in needed:
            storage.data = np.frombuffer(bounded.exactly(storage.size), storage.dtype)
            needed.remove(key)
        else:
            bounded.skip(storage.size)
    if needed:
        raise ValueError(f'{len(needed)} storages have no data')
    return _arrays(found)


class _Bounded:
    """A file whose reads never allocate more memory than it has bytes left, whatever size is requested."""

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._size = file, size
        self.tell = file.tell

    def read(self, count: int) -> bytes:
        return self._file.read(min(count, self._size - self._file.tell()))

    def readline(self) -> bytes:
        return self._file.readline(_MAX_LINE)

    def exactly(self, count: int) -> bytes:
        data = self.read(count)
        if len(data) != count:
            raise EOFError('the file ends too early')
        return data

    def skip(self, count: int) -> None:
        if count > self._size - self._file.tell():
            raise EOFError('the file ends too early')
        self._file.seek(count, io.SEEK_CUR)


def _arrays(found: StateDict) -> StateDict:
    return found._replace(tensors={name: tensor.array() for name, tensor in found.tensors.items()})


def _needed(tensors: Mapping[str, _Tensor], file_size: int) -> Iterable[_Storage]:
    """The storages of these tensors, each once. Raises ValueError if they are larger than the file."""
    needed = {tensor.storage.key: tensor.storage for tensor in tensors.values()}.values()
    declared = sum(storage.size for storage in needed)
    if declared > file_size:
        raise ValueError(f'its tensors have {declared} bytes, more than the file')
    return needed


def _big_endian(path: Path) -> UserError:
    return UserError(f'{path} was saved on a big-endian machine; save it again on a little-endian one')


def _brief(error: Exception) -> str:
    return ' '.join(str(error).split())[:120]
