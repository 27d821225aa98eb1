"""Reading `.pth` files without torch, and without running what is in them.

A `.pth` file is a pickle, and a pickle is a program: loading one from a stranger may do anything.
The unpickler here knows tensors and plain containers, and refuses every other name it meets, before
anything is called. Both formats of `torch.save` are read: the zip archive (since torch 1.6) and the
older one, a row of pickles followed by the raw numbers.
"""

import pickle
import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from ssanet_jax.errors import UserError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001

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
      Name -> array, in the file's order; bfloat16 tensors come as `ml_dtypes.bfloat16`.

    Raises:
      UserError: the file is missing, truncated or damaged, or names anything but tensors and plain
        containers (nothing of it has run then).
    """
    path = Path(path)
    try:
        with open(path, 'rb') as file:
            content = _read_zip(file, path) if zipfile.is_zipfile(file) else _read_legacy(file, path)
    except OSError as error:
        raise UserError(f'cannot read the weights {path}: {error.strerror or error}; check the path') from error
    except UserError:
        raise
    except _Refused as error:
        raise UserError(
            f'{path} is refused: it asks for {error}, which is not a tensor or a plain container; '
            'save a plain state dict with torch.save(model.state_dict(), path)'
        ) from error
    except Exception as error:  # A damaged pickle can raise nearly anything.
        raise _damaged(path, str(error) or type(error).__name__) from error
    return _state_dict(content, path)


class _Refused(Exception):
    """The pickle names something that is neither a tensor nor a plain container."""


@dataclass
class _Storage:
    """A flat run of numbers; the legacy format names it first and gives its bytes later."""

    dtype: np.dtype
    count: int
    data: np.ndarray | None = None


@dataclass
class _Tensor:
    """A view of a storage: what `torch._utils._rebuild_tensor_v2` would have built."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        if not all(isinstance(n, int) and n >= 0 for n in (self.offset, *self.shape, *self.strides)):
            raise ValueError('a tensor has a negative or fractional shape')
        if len(self.shape) != len(self.strides) or len(self.shape) > 32:
            raise ValueError('a tensor has a shape that does not fit its strides')
        if 0 in self.shape:
            return np.empty(self.shape, self.storage.dtype)
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides))
        # A stride of 0 lets a few bytes claim to be terabytes: the elements must exist one by one.
        if last >= self.storage.count or int(np.prod(self.shape, dtype=object)) > self.storage.count:
            raise ValueError('a tensor is larger than its storage')
        size = self.storage.dtype.itemsize
        view = np.lib.stride_tricks.as_strided(
            self.storage.data[self.offset :], self.shape, tuple(step * size for step in self.strides)
        )
        return np.array(view)


class _OrderedDict(OrderedDict):
    """torch hangs `_metadata` on a state dict; nobody needs it here."""

    def __setstate__(self, state: Any) -> None:
        del state


def _rebuild_tensor(storage, offset, shape, strides, requires_grad=False, hooks=None, metadata=None):
    del requires_grad, hooks, metadata
    if not isinstance(storage, _Storage):
        raise ValueError('a tensor without a storage')
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(data, requires_grad=False, hooks=None):
    del requires_grad, hooks
    return data


_KNOWN = {
    ('collections', 'OrderedDict'): _OrderedDict,
    ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
    ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
    **{('torch', name): dtype for name, dtype in _STORAGES.items()},
}


class _Unpickler(pickle.Unpickler):
    """A pickle machine that knows the names in `_KNOWN` and refuses all others."""

    def __init__(self, file: BinaryIO, load_storage):
        super().__init__(file, encoding='utf-8')
        self._load_storage = load_storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise _Refused(f'{module}.{name}')
        return _KNOWN[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count, *_ = pid
        if kind != 'storage' or not isinstance(dtype, np.dtype) or not isinstance(count, int) or count < 0:
            raise ValueError('an unknown kind of storage')
        return self._load_storage(dtype, str(key), count)


def _read_zip(file: BinaryIO, path: Path) -> Any:
    with zipfile.ZipFile(file) as archive:
        entries = {name.partition('/')[2]: archive.getinfo(name) for name in archive.namelist()}
        if 'data.pkl' not in entries:
            raise UserError(f'{path} is a zip archive but not a torch file (no data.pkl in it); check the path')
        if 'byteorder' in entries and archive.read(entries['byteorder']).strip() != b'little':
            raise UserError(f'{path} was saved on a big-endian machine; save it again on a little-endian one')
        file_size = path.stat().st_size
        storages: dict[str, _Storage] = {}

        def load_storage(dtype, key, count):
            if key in storages:
                return storages[key]
            entry = entries.get(f'data/{key}')
            wanted = count * dtype.itemsize
            # torch stores without compression, so a storage can never be larger than the file.
            if entry is None or entry.file_size != wanted or wanted > file_size:
                raise ValueError(f'storage {key} declares {wanted} bytes that are not there')
            storages[key] = _Storage(dtype, count, np.frombuffer(archive.read(entry), dtype))
            return storages[key]

        if entries['data.pkl'].file_size > file_size:
            raise ValueError('data.pkl declares more bytes than the file has')
        with archive.open(entries['data.pkl']) as pickled:
            return _Unpickler(pickled, load_storage).load()


def _read_legacy(file: BinaryIO, path: Path) -> Any:
    file.seek(0)
    file_size = path.stat().st_size
    storages: dict[str, _Storage] = {}

    def load_storage(dtype, key, count):
        if count * dtype.itemsize > file_size:
            raise ValueError(f'storage {key} declares {count * dtype.itemsize} bytes that are not there')
        return storages.setdefault(key, _Storage(dtype, count))

    def load():
        return _Unpickler(file, load_storage).load()

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
        raise UserError(f'{path} was saved on a big-endian machine; save it again on a little-endian one')
    content = load()
    for key in load():
        if key not in storages:
            raise ValueError(f'storage {key} belongs to no tensor')
        storage = storages[key]
        (count,) = struct.unpack('<q', _exactly(file, 8))
        if count != storage.count:
            raise ValueError(f'storage {key} has {count} elements instead of {storage.count}')
        storage.data = np.frombuffer(_exactly(file, count * storage.dtype.itemsize), storage.dtype)
    missing = [key for key, storage in storages.items() if storage.data is None]
    if missing:
        raise ValueError(f'{len(missing)} storages have no numbers')
    return content


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise EOFError('the file ends too early')
    return data


def _state_dict(content: Any, path: Path) -> dict[str, np.ndarray]:
    for nest in _NESTS:
        if isinstance(content, dict) and isinstance(content.get(nest), dict):
            content = content[nest]
            break
    tensors = {k: v for k, v in content.items() if isinstance(v, _Tensor)} if isinstance(content, dict) else {}
    if not tensors or not all(isinstance(name, str) for name in tensors):
        raise UserError(f'{path} holds no tensors by name; save a state dict with torch.save(model.state_dict(), path)')
    try:
        return {name: tensor.array() for name, tensor in tensors.items()}
    except Exception as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f'{path} is damaged or cut short ({" ".join(why.split())[:120]}); fetch it again')
