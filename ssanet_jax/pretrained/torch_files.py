"""Reading `.pth` files without torch, and without running what is in them.

A `.pth` file holds a pickle, which `pickles.py` follows: it knows tensors and plain containers, and
refuses every other name. Both formats of `torch.save` are read: the zip archive (since torch 1.6) and the
older one, a row of pickles followed by the raw numbers. First the pickle says which tensors there are; only
then are their numbers read, storage by storage, and the arrays are views of these: one copy in memory.
"""

import io
import struct
import warnings
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from ssanet_jax.errors import UserError
from ssanet_jax.pretrained.pickles import Function, Refused, follow

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_LONGEST_LINE = 4096  # of a name in a pickle; without a bound, one could claim a whole file

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

# Training checkpoints keep the weights next to the optimiser, under one of these keys.
_NESTS = ('state_dict', 'model', 'model_state_dict')


def read_torch_file(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the tensors of a state dict that `torch.save` wrote.

    Args:
      path: a `.pth` or `.pt` file holding a dict of tensors, or a checkpoint whose entry
        'state_dict', 'model' or 'model_state_dict' is one.

    Returns:
      Name -> array, in the file's order, not to be written to; bfloat16 tensors come as
      `ml_dtypes.bfloat16`.

    Raises:
      UserError: the file is missing, truncated or damaged, or names anything but tensors and plain
        containers (nothing of it has run then).
    """
    path = Path(path)
    try:
        with open(path, 'rb') as file, warnings.catch_warnings():
            warnings.simplefilter('ignore', DeprecationWarning)  # of odd escapes in a damaged text
            read = _read_zip if zipfile.is_zipfile(file) else _read_legacy
            return read(file, path)
    except OSError as error:
        raise UserError(f'cannot read the weights {path}: {error.strerror or error}; check the path') from error
    except UserError:
        raise
    except Refused as error:
        if str(error).startswith('torch.') and str(error).endswith('Storage'):
            raise UserError(
                f'{path} holds numbers of the kind {error}, which cannot be read; save them as float32'
            ) from error
        raise UserError(
            f'{path} is refused: it asks for {_brief(error)}, which is not a tensor or a plain container; '
            'save a plain state dict with torch.save(model.state_dict(), path)'
        ) from error
    except Exception as error:  # A damaged file can raise nearly anything.
        raise UserError(
            f'{path} is damaged or cut short ({_brief(error) or type(error).__name__}); fetch it again'
        ) from error


@dataclass
class _Storage:
    """A flat run of numbers; its bytes are read once it is known who needs them."""

    key: str
    dtype: np.dtype
    count: int
    data: np.ndarray | None = None

    @property
    def size(self) -> int:
        return self.count * self.dtype.itemsize


@dataclass
class _Tensor:
    """A view of a storage: what `torch._utils._rebuild_tensor_v2` would have built."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        """The tensor, not to be written to; raises ValueError where it does not fit its storage."""
        if not all(isinstance(n, int) and n >= 0 for n in (self.offset, *self.shape, *self.strides)):
            raise ValueError('a tensor has a negative or fractional shape')
        if len(self.shape) != len(self.strides) or len(self.shape) > 32:
            raise ValueError('a tensor has a shape that does not fit its strides')
        if 0 in self.shape:
            return np.empty(self.shape, self.storage.dtype)
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides))
        # A stride of 0 lets a few bytes claim to be terabytes: the elements must exist one by one.
        if last >= self.storage.data.size or int(np.prod(self.shape, dtype=object)) > self.storage.data.size:
            raise ValueError('a tensor is larger than its storage')
        steps = tuple(step * self.storage.dtype.itemsize for step in self.strides)
        return np.lib.stride_tricks.as_strided(self.storage.data[self.offset :], self.shape, steps)


def _rebuild_tensor(storage, offset, shape, strides, requires_grad=False, hooks=None, metadata=None):
    del requires_grad, hooks, metadata
    if not isinstance(storage, _Storage):
        raise ValueError('a tensor without a storage')
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(data, requires_grad=False, hooks=None):
    del requires_grad, hooks
    return data


def _ordered_dict(items=()):
    if not all(isinstance(item, list | tuple) and len(item) == 2 and isinstance(item[0], str) for item in items):
        raise ValueError('an ordered dict that is none')
    return dict(items)


_KNOWN = {
    ('collections', 'OrderedDict'): Function(_ordered_dict),
    ('torch._utils', '_rebuild_tensor_v2'): Function(_rebuild_tensor),
    ('torch._utils', '_rebuild_parameter'): Function(_rebuild_parameter),
    **{('torch', name): dtype for name, dtype in _STORAGES.items()},
}


class _Storages:
    """The storages that a file's pickle speaks of, by key."""

    def __init__(self):
        self.by_key: dict[str, _Storage] = {}

    def persistent(self, pid: Any) -> _Storage:
        """A persistent id -> its storage, the same one each time."""
        kind, dtype, key, _, count, *view = pid
        if kind != 'storage' or not isinstance(dtype, np.dtype) or not isinstance(count, int) or count < 0:
            raise ValueError('an unknown kind of storage')
        if view not in ([], [None]):
            raise ValueError('a storage within another, as torch before 0.4 wrote')
        return self.by_key.setdefault(str(key), _Storage(str(key), dtype, count))


def _read_zip(file: BinaryIO, path: Path) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        entries = {name.partition('/')[2]: archive.getinfo(name) for name in archive.namelist()}
        file_size = path.stat().st_size

        def read(name, size=None):
            # torch stores without compression. A packed or oversized entry could claim any amount of memory.
            entry = entries.get(name)
            size = entry.file_size if entry and size is None else size
            if entry is None or entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f'{name} is not there, or packed')
            if not entry.compress_size == entry.file_size == size <= file_size:
                raise ValueError(f'{name} declares {entry.file_size} bytes, which does not fit')
            return archive.read(entry)

        if 'data.pkl' not in entries:
            raise UserError(f'{path} is a zip archive but not a torch file (no data.pkl in it); check the path')
        if 'byteorder' in entries and read('byteorder').strip() != b'little':
            raise _big_endian(path)
        storages = _Storages()
        tensors = _tensors(follow(io.BytesIO(read('data.pkl')), _KNOWN, storages.persistent), path)
        needed = _needed(tensors, file_size)
        for storage in needed:
            storage.data = np.frombuffer(read(f'data/{storage.key}', storage.size), storage.dtype)
    return {name: tensor.array() for name, tensor in tensors.items()}


def _read_legacy(file: BinaryIO, path: Path) -> dict[str, np.ndarray]:
    file.seek(0)
    file_size = path.stat().st_size
    bounded, storages = _Bounded(file, file_size), _Storages()

    def load():
        return follow(bounded, _KNOWN, storages.persistent)

    try:
        magic = load()
    except Exception:
        magic = None
    if magic != _LEGACY_MAGIC:
        file.seek(0)
        if file.read(2) == b'PK':  # A zip archive keeps its table of contents at the end.
            raise EOFError('the end of the archive is missing')
        raise UserError(f'{path} is not a torch file, or its beginning is damaged; check the path or fetch it again')
    if load() != _LEGACY_VERSION:
        raise ValueError('unknown version of the format')
    if not load().get('little_endian', True):
        raise _big_endian(path)
    tensors = _tensors(load(), path)
    needed = {storage.key for storage in _needed(tensors, file_size)}
    for key in load():
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
        raise ValueError(f'{len(needed)} storages have no numbers')
    return {name: tensor.array() for name, tensor in tensors.items()}


class _Bounded:
    """A file that never sets aside more memory than it has bytes left, whatever it is asked for."""

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._size = file, size
        self.tell = file.tell

    def read(self, count: int) -> bytes:
        return self._file.read(min(count, self._size - self._file.tell()))

    def readline(self) -> bytes:
        return self._file.readline(_LONGEST_LINE)

    def exactly(self, count: int) -> bytes:
        data = self.read(count)
        if len(data) != count:
            raise EOFError('the file ends too early')
        return data

    def skip(self, count: int) -> None:
        if count > self._size - self._file.tell():
            raise EOFError('the file ends too early')
        self._file.seek(count, io.SEEK_CUR)


def _tensors(content: Any, path: Path) -> dict[str, _Tensor]:
    for nest in _NESTS:
        if isinstance(content, dict) and isinstance(content.get(nest), dict):
            content = content[nest]
            break
    tensors = {k: v for k, v in content.items() if isinstance(v, _Tensor)} if isinstance(content, dict) else {}
    if not tensors or not all(isinstance(name, str) for name in tensors):
        raise UserError(f'{path} holds no tensors by name; save a state dict with torch.save(model.state_dict(), path)')
    return tensors


def _needed(tensors: dict[str, _Tensor], file_size: int) -> Iterable[_Storage]:
    """The storages of these tensors, each once; they are in one file, so together they are no larger than that."""
    needed = {tensor.storage.key: tensor.storage for tensor in tensors.values()}.values()
    declared = sum(storage.size for storage in needed)
    if declared > file_size:
        raise ValueError(f'its tensors declare {declared} bytes that are not there')
    return needed


def _big_endian(path: Path) -> UserError:
    return UserError(f'{path} was saved on a big-endian machine; save it again on a little-endian one')


def _brief(error: Exception) -> str:
    return ' '.join(str(error).split())[:120]
