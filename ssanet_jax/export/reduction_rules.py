"""Rules for reductions."""

from typing import Any

import numpy as np

from ssanet_jax.export.call import Call, Rule, Unsupported
from ssanet_jax.export.graph import Graph, Tensor


def _axes(call: Call) -> list[int]:
    return [int(axis) for axis in call.params['axes']]


def _reduce_sum(graph: Graph, call: Call, x: Any) -> Tensor:
    return graph.op('ReduceSum', [x, np.array(_axes(call), np.int64)], call.shape, call.dtype, keepdims=0)


def _by(operator: str) -> Rule:
    def rule(graph: Graph, call: Call, x: Any) -> Tensor:
        return graph.op(operator, [x], call.shape, call.dtype, axes=_axes(call), keepdims=0)

    return rule


def _of_booleans(operator: str) -> Rule:
    """The largest or smallest of zeros and ones."""

    def rule(graph: Graph, call: Call, x: Any) -> Tensor:
        if call.dtype != np.bool_:
            raise Unsupported(f'{call.name} of {call.dtype}')
        found = graph.op(operator, [graph.cast(x, np.int32)], call.shape, np.int32, axes=_axes(call), keepdims=0)
        return graph.cast(found, np.bool_)

    return rule


def _index_of(operator: str) -> Rule:
    """The first index of the largest or smallest value."""

    def rule(graph: Graph, call: Call, x: Any) -> Tensor:
        (axis,) = _axes(call)
        x = graph.cast(x, np.int32) if x.dtype == np.bool_ else x
        return graph.cast(graph.op(operator, [x], call.shape, np.int64, axis=axis, keepdims=0), call.dtype)

    return rule


def _window(operator: str) -> Rule:
    """A pool over the two middle axes: `[B, H, W, C]`."""

    def rule(graph: Graph, call: Call, x: Any) -> Tensor:
        window, strides, padding = (call.params[name] for name in ('window_dimensions', 'window_strides', 'padding'))
        if len(window) != 4 or {window[0], window[3], strides[0], strides[3]} != {1}:
            raise Unsupported(f'{call.name} over {window}')
        size = [int(window[axis]) for axis in (1, 2)]
        attributes: dict[str, Any] = {
            'kernel_shape': size,
            'strides': [int(strides[axis]) for axis in (1, 2)],
            'pads': [int(padding[axis][side]) for side in (0, 1) for axis in (1, 2)],
        }
        if operator == 'AveragePool':
            attributes['count_include_pad'] = 1
        channels_first = graph.transpose(x, (0, 3, 1, 2))
        shape = tuple(call.shape[axis] for axis in (0, 3, 1, 2))
        pooled = graph.op(operator, [channels_first], shape, call.dtype, **attributes)
        if operator == 'AveragePool':
            pooled = graph.elementwise('Mul', [pooled, np.float32(size[0] * size[1])], shape, call.dtype)
        return graph.transpose(pooled, (0, 2, 3, 1))

    return rule


RULES: dict[str, Rule] = {
    'reduce_sum': _reduce_sum,
    'reduce_max': _by('ReduceMax'),
    'reduce_min': _by('ReduceMin'),
    'reduce_prod': _by('ReduceProd'),
    'reduce_or': _of_booleans('ReduceMax'),
    'reduce_and': _of_booleans('ReduceMin'),
    'argmax': _index_of('ArgMax'),
    'argmin': _index_of('ArgMin'),
    'reduce_window_max': _window('MaxPool'),
    'reduce_window_sum': _window('AveragePool'),
}
