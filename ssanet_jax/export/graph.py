"""A graph of ONNX under construction: values, nodes, and constants."""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ssanet_jax.export.program import BATCH

OPSET, IR_VERSION = 17, 8  # that of the first releases with this opset
Dim = Any  # an int, or a symbolic multiple of the batch
Shape = tuple[Dim, ...]

TYPES = {
    np.dtype(name): getattr(onnx.TensorProto, onnx_name)
    for name, onnx_name in {
        'float32': 'FLOAT',
        'int32': 'INT32',
        'int64': 'INT64',
        'uint8': 'UINT8',
        'bool': 'BOOL',
    }.items()
}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A value that is computed when the graph runs.

    Its array may be smaller than its shape: where `held` is 1, it is yet to be repeated, which operations that
    broadcast do by themselves.
    """

    name: str
    shape: Shape
    dtype: np.dtype
    held: Shape


@dataclasses.dataclass(frozen=True)
class Complex:
    """A complex value as two real ones."""

    real: Any
    imag: Any


@dataclasses.dataclass(frozen=True)
class Empty:
    """A value without elements, which needs no node."""

    shape: Shape
    dtype: np.dtype


Value = np.ndarray | Tensor | Complex | Empty  # NumPy arrays are constants


class Graph:
    """Collects nodes and constants; the same node is added only once.

    Args:
      input_name: name of the only input, the first axis of which is the batch.
    """

    def __init__(self, input_name: str):
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, np.ndarray] = {}
        self._input = input_name
        self._names: dict[Any, str] = {}
        self._producers: dict[str, onnx.NodeProto] = {}

    def op(
        self, kind: str, inputs: Sequence[Any], shape: Sequence[Dim], dtype: Any, held: Sequence[Dim] = (), **attributes
    ) -> Tensor:
        """Adds a node with one output.

        Args:
          kind: the operator of ONNX.
          inputs: values, which are repeated to their full shapes before, or names.
          shape, dtype: those of the output.
          held: the shape of the output's array, if it is smaller.
          attributes: of the node.
        """
        names = [value if isinstance(value, str) else self.name(value) for value in inputs]
        return Tensor(self._node(kind, names, attributes), tuple(shape), np.dtype(dtype), tuple(held or shape))

    def elementwise(self, kind: str, inputs: Sequence[Any], shape: Shape, dtype: Any, **attributes) -> Tensor:
        """Adds a node that broadcasts its inputs, which have the shape of the output or none."""
        compact = [squeeze_repeats(value) if isinstance(value, np.ndarray) else value for value in inputs]
        held = [value.held if isinstance(value, Tensor) else value.shape for value in compact]
        full = [dims for dims in held if len(dims) == len(shape)]
        result = tuple(next((d for d in column if d != 1), 1) for column in zip(*full)) if full else shape
        names = [value.name if isinstance(value, Tensor) else self.name(value) for value in compact]
        return Tensor(self._node(kind, names, attributes), shape, np.dtype(dtype), result)

    def name(self, value: Any) -> str:
        """The name of a value at its full shape; a constant is added to the graph."""
        if isinstance(value, Tensor):
            return self.repeated(value).name
        array = np.asarray(value)
        array = np.array(array, order='C')  # `ascontiguousarray` makes scalars vectors
        key = array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest()
        if key not in self._names:
            self._names[key] = f'constant_{len(self._names)}'
            self.initializers[self._names[key]] = array
        return self._names[key]

    def repeated(self, value: Tensor) -> Tensor:
        """A value whose array has its full shape."""
        if value.held == value.shape:
            return value
        name = self._node('Expand', [value.name, self.shape_name(value.shape)], {})
        return dataclasses.replace(value, name=name, held=value.shape)

    def producer(self, value: Tensor | str) -> onnx.NodeProto | None:
        """The node that computes a value; None for the input and constants."""
        return self._producers.get(value if isinstance(value, str) else value.name)

    def constant(self, value: Any) -> np.ndarray | None:
        """The elements of a constant without repetitions; None for what is computed."""
        if isinstance(value, np.ndarray):
            return squeeze_repeats(value)
        return self.initializers.get(value.name) if isinstance(value, Tensor) else None

    def cast(self, value: Tensor, dtype: Any) -> Tensor:
        """Converts the elements of a value."""
        dtype = np.dtype(dtype)
        if value.dtype == dtype:
            return value
        return self.elementwise('Cast', [value], value.shape, dtype, to=TYPES[dtype])

    def reshape(self, value: Any, shape: Sequence[Dim]) -> Any:
        """Reshapes a constant or a tensor; at most one dimension of the result depends on the batch."""
        shape = tuple(shape)
        if isinstance(value, np.ndarray):
            return value.reshape(shape)
        if value.shape == shape:
            return value
        if _without_ones(value.held) == _without_ones(value.shape):
            held = shape
        elif all(dim == 1 for dim in value.held):
            held = (1,) * len(shape)
        elif (moved := _moved_ones(value, shape)) is not None:
            held = moved
        else:
            value, held = self.repeated(value), shape
        sizes = [dim if isinstance(dim, int) else -1 for dim in held]
        assert sizes.count(-1) <= 1, shape
        name = self._node('Reshape', [value.name, self.name(np.array(sizes, np.int64))], {})
        return Tensor(name, shape, value.dtype, held)

    def transpose(self, value: Any, order: Sequence[int]) -> Any:
        """Permutes the axes of a constant or a tensor."""
        order = [int(axis) for axis in order]
        if isinstance(value, np.ndarray):
            return value.transpose(order)
        if order == list(range(len(order))):
            return value
        permute = lambda dims: tuple(dims[axis] for axis in order)
        name = self._node('Transpose', [value.name], {'perm': order})
        return Tensor(name, permute(value.shape), value.dtype, permute(value.held))

    def shape_name(self, shape: Shape) -> str:
        """The name of a shape as int64 values, which are computed where they depend on the batch."""
        if all(isinstance(dim, int) for dim in shape):
            return self.name(np.array(shape, np.int64))
        runs: list[list[int] | str] = []
        for dim in shape:
            if not isinstance(dim, int):
                runs.append(self._batch_multiple(multiple_of_batch(dim)))
            elif runs and isinstance(runs[-1], list):
                runs[-1].append(dim)
            else:
                runs.append([dim])
        names = [run if isinstance(run, str) else self.name(np.array(run, np.int64)) for run in runs]
        return self._node('Concat', names, {'axis': 0})

    def _batch_multiple(self, factor: int) -> str:
        sizes = self._node('Shape', [self._input], {})
        batch = self._node('Slice', [sizes, self.name(np.array([0])), self.name(np.array([1]))], {})
        return batch if factor == 1 else self._node('Mul', [batch, self.name(np.array([factor]))], {})

    def _node(self, kind: str, inputs: Sequence[str], attributes: dict[str, Any]) -> str:
        key = kind, tuple(inputs), repr(sorted(attributes.items()))
        if key not in self._names:
            self._names[key] = f'{kind.lower()}_{len(self._names)}'
            self.nodes.append(helper.make_node(kind, inputs, [self._names[key]], **attributes))
            self._producers[self._names[key]] = self.nodes[-1]
        return self._names[key]

    def model(self, spec: Any, outputs: dict[str, Tensor]) -> onnx.ModelProto:
        """The finished graph, without the nodes and constants that no output depends on.

        Args:
          spec: shape and type of the input.
          outputs: the values that the graph returns.
        """
        ends = [helper.make_node('Identity', [self.name(value)], [name]) for name, value in outputs.items()]
        needed, kept = set(outputs), []
        for node in reversed([*self.nodes, *ends]):
            if needed & set(node.output):
                needed |= set(node.input)
                kept.append(node)
        constants = [
            numpy_helper.from_array(array, name) for name, array in self.initializers.items() if name in needed
        ]
        graph = helper.make_graph(
            kept[::-1],
            'ssanet',
            [_value_info(self._input, spec)],
            [_value_info(name, value) for name, value in outputs.items()],
            constants,
        )
        opsets = [helper.make_opsetid('', OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name='ssanet_jax')


def multiple_of_batch(dim: Dim) -> int:
    """The factor c of a symbolic dimension c * batch."""
    found = re.fullmatch(rf'(?:(\d+)\*)?{BATCH}', str(dim))
    if not found:
        raise ValueError(f'a dimension that is no multiple of the batch: {dim}')
    return int(found[1] or 1)


def _value_info(name: str, value: Any) -> onnx.ValueInfoProto:
    dims = [dim if isinstance(dim, int) else BATCH for dim in value.shape]
    return helper.make_tensor_value_info(name, TYPES[np.dtype(value.dtype)], dims)


def squeeze_repeats(array: np.ndarray) -> np.ndarray:
    """A broadcast array without its repetitions."""
    for axis, (size, stride) in enumerate(zip(array.shape, array.strides)):
        if size > 1 and stride == 0:
            array = array.take([0], axis)
    return array


def _without_ones(shape: Shape) -> list[Dim]:
    return [dim for dim in shape if not (isinstance(dim, int) and dim == 1)]


def _moved_ones(value: Tensor, shape: Shape) -> Shape | None:
    """What a tensor that is not fully repeated holds after a reshape that only adds or drops axes of length 1."""
    if _without_ones(value.shape) != _without_ones(shape):
        return None
    held = [kept for dim, kept in zip(value.shape, value.held) if not (isinstance(dim, int) and dim == 1)]
    rest = iter(held)
    return tuple(1 if isinstance(dim, int) and dim == 1 else next(rest) for dim in shape)
