"""Rules for operations that move elements."""

from typing import Any

import numpy as np

from ssanet_jax.export.call import Call, Rule, Unsupported, of_both_parts
from ssanet_jax.export.graph import Complex, Empty, Graph, Tensor


def _reshape(graph: Graph, call: Call, x: Any) -> Any:
    return graph.reshape(x, call.shape)


def _transpose(graph: Graph, call: Call, x: Any) -> Any:
    return graph.transpose(x, call.params['permutation'])


def _broadcast_in_dim(graph: Graph, call: Call, x: Any) -> Any:
    aligned: list[Any] = [1] * len(call.shape)
    for size, axis in zip(x.shape, call.params['broadcast_dimensions']):
        aligned[axis] = size
    value = graph.reshape(x, aligned)
    if isinstance(value, np.ndarray):
        if all(isinstance(dim, int) for dim in call.shape):
            return np.broadcast_to(value, call.shape)
        return Tensor(graph.name(value), call.shape, call.dtype, value.shape)
    return Tensor(value.name, call.shape, call.dtype, value.held)


def _concatenate(graph: Graph, call: Call, *parts: Any) -> Any:
    return graph.op('Concat', parts, call.shape, call.dtype, axis=int(call.params['dimension']))


def _concatenate_values(graph: Graph, call: Call, *parts: Any) -> Any:
    """Leaves out parts without elements; their type may differ in being complex."""
    parts = tuple(part for part in parts if not isinstance(part, Empty) and 0 not in part_shape(part))
    if len(parts) == 1:
        return parts[0]
    return of_both_parts(_concatenate)(graph, call, *parts)


def part_shape(value: Any) -> Any:
    """The shape of a value."""
    return value.real.shape if isinstance(value, Complex) else value.shape


def _slice(graph: Graph, call: Call, x: Any) -> Any:
    starts, limits = call.params['start_indices'], call.params['limit_indices']
    steps = call.params['strides'] or [1] * len(starts)
    axes = [i for i, size in enumerate(x.shape) if (starts[i], limits[i], steps[i]) != (0, size, 1)]
    first, last, step = ([values[i] for i in axes] for values in (starts, limits, steps))
    return slice_axes(graph, x, axes, first, last, step, call.shape)


def slice_axes(graph: Graph, x: Any, axes: Any, starts: Any, limits: Any, steps: Any, shape: Any) -> Any:
    """Slices some axes of a tensor."""
    if not axes:
        return x
    indices = [np.array([int(value) for value in values], np.int64) for values in (starts, limits, axes, steps)]
    return graph.op('Slice', [x, *indices], shape, x.dtype)


def _rev(graph: Graph, call: Call, x: Any) -> Any:
    axes = [int(axis) for axis in call.params['dimensions']]
    count = len(axes)
    lowest = np.iinfo(np.int64).min + 1  # before the first element
    return slice_axes(graph, x, axes, [-1] * count, [lowest] * count, [-1] * count, call.shape)


def _pad(graph: Graph, call: Call, x: Any, value: Any) -> Any:
    low, high, inner = zip(*call.params['padding_config'])
    if any(inner) or min(*low, *high) < 0:
        raise Unsupported('pad between elements')
    return graph.op('Pad', [x, np.array([*low, *high], np.int64), value], call.shape, call.dtype)


def _split(graph: Graph, call: Call, x: Any) -> list[Any]:
    axis, start, parts = int(call.params['axis']), 0, []
    for size, form in zip(call.params['sizes'], call.outputs):
        parts.append(slice_axes(graph, x, [axis], [start], [start + size], [1], form.shape))
        start += size
    return parts


def _stack(graph: Graph, call: Call, *parts: Any) -> Any:
    axis = int(call.params.get('axis', call.params.get('dimension', 0)))
    expanded = [graph.reshape(part, (*part.shape[:axis], 1, *part.shape[axis:])) for part in parts]
    return graph.op('Concat', expanded, call.shape, call.dtype, axis=axis)


def _unstack(graph: Graph, call: Call, x: Any) -> list[Any]:
    axis, parts = int(call.params['axis']), []
    for index, form in enumerate(call.outputs):
        shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
        parts.append(graph.reshape(slice_axes(graph, x, [axis], [index], [index + 1], [1], shape), form.shape))
    return parts


RULES: dict[str, Rule] = {
    'reshape': of_both_parts(_reshape),
    'squeeze': of_both_parts(_reshape),
    'expand_dims': of_both_parts(_reshape),
    'transpose': of_both_parts(_transpose),
    'broadcast_in_dim': of_both_parts(_broadcast_in_dim),
    'concatenate': _concatenate_values,
    'slice': of_both_parts(_slice),
    'rev': of_both_parts(_rev),
    'pad': of_both_parts(_pad),
    'split': of_both_parts(_split),
    'stack': of_both_parts(_stack),
    'unstack': _unstack,
}
