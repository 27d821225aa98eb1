"""MATLAB files of data sets, checked before SciPy reads them.

SciPy looks up the types in a file in tables without checking them, so that one wrong byte can end the process.
"""

from __future__ import annotations

import io
import itertools
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import scipy.io

from ssanet_jax.filesystem.regular_files import read_regular_file

_HEADER = 128  # bytes
# Limits; the annotations of Stanford Cars have half as many elements, and a fifth of the rest.
_MAX_BYTES = 32 << 20  # of the file, and of all its variables, unpacked
_MAX_ELEMENTS = 400_000
_MAX_VALUES = 1_000_000  # numbers and characters
_MAX_DEPTH = 16

# Types of elements: integers, floats and text of several widths, an array, and a compressed element.
_INT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 5, 6, 14, 15
_NUMBERS = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13}
_TEXT = {1, 2, 3, 4, 16, 17, 18}
# Classes of arrays.
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMERIC = range(6, 16)


class _Element(NamedTuple):
    kind: int
    data: bytes


def load_matlab(path: Path, **options: Any) -> dict[str, Any]:
    """Reads a MATLAB file of version 5 to 7.2 that holds numbers, text, cells and structs.

    Args:
      path: the file.
      **options: as for `scipy.io.loadmat`.

    Raises:
      OSError: the file cannot be read.
      Exception: the file is damaged; SciPy's readers raise a different error for each kind of damage.
    """
    data = read_regular_file(path, _MAX_BYTES)
    order = {b'IM': '<', b'MI': '>'}.get(data[126:_HEADER])
    if order is None or 0 in data[:4] or len(data) < _HEADER:
        raise ValueError('not a MATLAB file of version 5')
    budget = _Budget()
    for element in _elements(data[_HEADER:], order, budget):
        if element.kind == _COMPRESSED:
            inflate = zlib.decompressobj()
            unpacked = inflate.decompress(element.data, budget.num_bytes + 1)
            budget.spend(num_bytes=len(unpacked))
            (element,) = _elements(unpacked, order, budget)
        _check_array(element, order, _MAX_DEPTH, budget)
    return scipy.io.loadmat(io.BytesIO(data), **options)


class _Budget:
    """What a file may still ask for."""

    def __init__(self) -> None:
        self.num_bytes, self._elements, self._values = _MAX_BYTES, _MAX_ELEMENTS, _MAX_VALUES

    def spend(self, num_bytes: int = 0, elements: int = 0, values: int = 0) -> None:
        """Subtracts what a part of the file needs; raises ValueError if that is more than there is left."""
        self.num_bytes -= num_bytes
        self._elements -= elements
        self._values -= values
        if min(self.num_bytes, self._elements, self._values) < 0:
            raise ValueError('far more data than annotations have')


def _elements(data: bytes, order: str, budget: _Budget) -> Iterator[_Element]:
    """Splits data into its elements."""
    place = 0
    while place < len(data):
        kind, size = struct.unpack_from(f'{order}II', data, place)
        if kind >> 16:  # up to four bytes inside the tag
            start, kind, size = place + 4, kind & 0xFFFF, kind >> 16
            place += 8
            if size > 4:
                raise ValueError('a small element of more than four bytes')
        else:
            start = place + 8
            place = start + size
            if kind != _COMPRESSED:
                place += -size % 8
        if start + size > len(data):
            raise ValueError('an element beyond the end')
        budget.spend(elements=1)
        yield _Element(kind, data[start : start + size])


def _check_array(element: _Element, order: str, depth: int, budget: _Budget) -> None:
    """Raises ValueError for an array whose parts do not fit together, or that exceeds the limits."""
    if element.kind != _MATRIX or not depth:
        raise ValueError('not an array')
    if not element.data:  # an empty cell
        return
    elements = _elements(element.data, order, budget)
    flags, dimensions, name = itertools.islice(elements, 3)
    if (flags.kind, len(flags.data)) != (_UINT32, 8) or dimensions.kind != _INT32 or name.kind != _INT8:
        raise ValueError('an array without a head')
    shape = struct.unpack(f'{order}{len(dimensions.data) // 4}i', dimensions.data)
    if not 2 <= len(shape) <= 32 or min(shape) < 0:
        raise ValueError('an array without a shape')
    (flag_bits,) = struct.unpack_from(f'{order}I', flags.data)
    array_class, is_complex, count = flag_bits & 0xFF, bool(flag_bits & 0x800), math.prod(shape)
    budget.spend(values=count)
    parts = list(elements)  # only after the shape was found to be within the limits
    if array_class in _NUMERIC:
        valid = len(parts) == 1 + is_complex and all(part.kind in _NUMBERS for part in parts)
    elif array_class == _CHAR:
        valid = len(parts) == 1 and parts[0].kind in _TEXT
    elif array_class in (_CELL, _STRUCT):
        if array_class == _STRUCT:
            count *= _num_fields(parts[:2], order)
            parts = parts[2:]
        valid = len(parts) == count
        for part in parts:
            _check_array(part, order, depth - 1, budget)
    else:
        valid = False
    if not valid:
        raise ValueError('an array whose parts do not fit together')


def _num_fields(parts: Sequence[_Element], order: str) -> int:
    length, names = parts
    if (length.kind, len(length.data), names.kind) != (_INT32, 4, _INT8):
        raise ValueError('a struct without fields')
    (width,) = struct.unpack(f'{order}i', length.data)
    if not 1 <= width <= 64 or len(names.data) % width or not names.data:
        raise ValueError('a struct without fields')
    return len(names.data) // width
