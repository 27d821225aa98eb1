"""Reading of ONNX files from strangers, without the package onnx: the little of protobuf that this needs.

onnxruntime would read whatever files a model refers to. So every message of the file is looked at before: it may hold
its weights, and operators that an export writes, and nothing else.
"""

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
_MAX_VARINT = 10  # bytes

# Field numbers of onnx.proto, version 8 of the format and later ones.
_MODEL_GRAPH, _MODEL_METADATA = 7, 14
_MODEL_FIELDS = {1, 2, 3, 4, 5, 6, _MODEL_GRAPH, 8, _MODEL_METADATA}  # without training and functions
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_GRAPH_FIELDS = {_GRAPH_NODE, 2, _GRAPH_INITIALIZER, 10, 11, 12, 13}  # without sparse tensors
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_NODE_FIELDS = {1, 2, 3, _NODE_OPERATOR, _NODE_ATTRIBUTE, 6, _NODE_DOMAIN}
_ATTRIBUTE_FIELDS = {1, 2, 3, 4, 7, 8, 13, 20}  # a name, numbers or a string: no tensors and no graphs
_TENSOR_FIELDS = {1, 2, 4, 5, 6, 7, 8, 9, 12}  # without 13 and 14, which refer to other files
_ENTRY_KEY, _ENTRY_VALUE = 1, 2

# Those that the rules of the converter use.
OPERATORS = frozenset(
    'Abs Add And ArgMax ArgMin AveragePool Cast Ceil Clip Concat Conv Cos Div Equal Erf Exp Expand Floor Gather '
    'GatherND Greater GreaterOrEqual Identity Less LessOrEqual Log MatMul Max MaxPool Min Mod Mul Neg Not Or Pad Pow '
    'Reciprocal ReduceMax ReduceMin ReduceProd ReduceSum Relu Reshape Round Shape Sigmoid Sign Sin Slice Sqrt Sub '
    'Tanh Transpose Where Xor'.split()
)


class Field(NamedTuple):
    """A field of a message."""

    number: int
    kind: int  # its wire type
    value: int | memoryview  # an integer for a varint, else the bytes


def read_fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message.

    Raises:
      ValueError: it is no message.
    """
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, place = _varint(message, place)
            yield Field(number, kind, value)
            continue
        if kind == BYTES:
            length, place = _varint(message, place)
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
        else:
            raise ValueError(f'wire type {kind}')
        if not number or length > len(message) - place:
            raise ValueError('a field longer than its message')
        yield Field(number, kind, message[place : place + length])
        place += length


def read_metadata(model: memoryview) -> dict[str, str]:
    """Checks a model, and returns its metadata.

    Args:
      model: the bytes of an ONNX file.

    Raises:
      ValueError: it is no model, or holds something else than an export writes.
    """
    entries = {}
    has_graph = False
    for field in _known_fields(model, _MODEL_FIELDS, 'model'):
        if field.number == _MODEL_GRAPH:
            has_graph = True
            _check_graph(_message(field))
        elif field.number == _MODEL_METADATA:
            entry = {part.number: str(_message(part), 'utf-8') for part in read_fields(_message(field))}
            entries[entry.get(_ENTRY_KEY, '')] = entry.get(_ENTRY_VALUE, '')
    if not has_graph:
        raise ValueError('no graph')
    return entries


def _check_graph(graph: memoryview) -> None:
    for field in _known_fields(graph, _GRAPH_FIELDS, 'graph'):
        if field.number == _GRAPH_NODE:
            _check_node(_message(field))
        elif field.number == _GRAPH_INITIALIZER:
            for _ in _known_fields(_message(field), _TENSOR_FIELDS, 'tensor'):
                pass


def _check_node(node: memoryview) -> None:
    for field in _known_fields(node, _NODE_FIELDS, 'node'):
        if field.number == _NODE_OPERATOR and (name := str(_message(field), 'utf-8')) not in OPERATORS:
            raise ValueError(f'the operator {name!r}')
        if field.number == _NODE_DOMAIN and len(_message(field)):
            raise ValueError('an operator of another domain')
        if field.number == _NODE_ATTRIBUTE:
            for _ in _known_fields(_message(field), _ATTRIBUTE_FIELDS, 'attribute'):
                pass


def _known_fields(message: memoryview, known: set[int], name: str) -> Iterator[Field]:
    """The fields of a message, none of which may be another than these."""
    for field in read_fields(message):
        if field.number not in known:
            raise ValueError(f'field {field.number} of a {name}')
        yield field


def _message(field: Field) -> memoryview:
    if isinstance(field.value, int) or field.kind != BYTES:
        raise ValueError(f'field {field.number} has no bytes')
    return field.value


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """An integer of variable length, and the place after it."""
    value = 0
    for index in range(_MAX_VARINT):
        if place >= len(message):
            raise ValueError('a truncated integer')
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, place
    raise ValueError('an integer of more than 64 bits')
