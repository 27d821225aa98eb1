"""Rules for reading elements at computed places."""

from typing import Any

import numpy as np

from ssanet_jax.export.call import Call, Rule, Unsupported, of_both_parts
from ssanet_jax.export.graph import Graph
from ssanet_jax.export.shape_rules import slice_axes


def _gather(graph: Graph, call: Call, x: Any, indices: Any) -> Any:
    numbers, sizes = call.params['dimension_numbers'], call.params['slice_sizes']
    indexed = [int(axis) for axis in numbers.start_index_map]
    if isinstance(indices, np.ndarray) and indices.ndim == 1 and len(indices) == len(indexed):
        return _one_slice(graph, call, x, indices)
    # A slice as long as its axis can only start at 0.
    columns = [column for column, axis in enumerate(indexed) if sizes[axis] != x.shape[axis] or x.shape[axis] == 1]
    indices, indexed = _take_columns(graph, indices, columns), [indexed[column] for column in columns]
    shared, index_shared = ([int(axis) for axis in axes] for axes in _batching_axes(numbers))
    whole = [axis for axis in range(len(x.shape)) if axis not in (*indexed, *shared)]
    if any(sizes[axis] != 1 for axis in indexed) or any(sizes[axis] != x.shape[axis] for axis in whole):
        raise Unsupported(f'gather of slices {sizes} of {x.shape}')

    rest = [axis for axis in range(len(indices.shape) - 1) if axis not in index_shared]
    places = graph.transpose(indices, [*index_shared, *rest, len(indices.shape) - 1])
    source = graph.transpose(x, [*shared, *indexed, *whole])
    batch = [*index_shared, *rest]  # axes of the indices, in the order of the result
    shape = (*(indices.shape[axis] for axis in batch), *(x.shape[axis] for axis in whole))
    if not shared and len(indexed) == 1:
        found = graph.op('Gather', [source, graph.reshape(places, places.shape[:-1])], shape, call.dtype, axis=0)
    else:
        found = graph.op('GatherND', [source, _as_int64(graph, places)], shape, call.dtype, batch_dims=len(shared))
    return graph.reshape(graph.transpose(found, _order(call, numbers, batch, whole)), call.shape)


def _order(call: Call, numbers: Any, batch: list[int], whole: list[int]) -> list[int]:
    """Where the axes of the result come from; axes of length 1 that are kept are missing.

    The result has the axes of the indices in order, and between them, at `offset_dims`, those of the slices.
    """
    offsets = [int(axis) for axis in numbers.offset_dims]
    dropped = (*numbers.collapsed_slice_dims, *_batching_axes(numbers)[0])
    kept = iter(axis for axis in range(len(offsets) + len(dropped)) if axis not in dropped)
    slices = dict(zip(offsets, kept))
    places = iter(range(len(batch)))
    order = []
    for axis in range(len(call.shape)):
        if axis not in slices:
            order.append(batch.index(next(places)))
        elif slices[axis] in whole:
            order.append(len(batch) + whole.index(slices[axis]))
    return order


def _batching_axes(numbers: Any) -> tuple[Any, Any]:
    return numbers.operand_batching_dims, numbers.start_indices_batching_dims


def _one_slice(graph: Graph, call: Call, x: Any, indices: np.ndarray) -> Any:
    """A slice at a constant place; a place outside is moved inside, as XLA does."""
    numbers, sizes = call.params['dimension_numbers'], call.params['slice_sizes']
    axes = [axis for axis in numbers.start_index_map if sizes[axis] != x.shape[axis]]
    given = dict(zip(numbers.start_index_map, indices))
    starts = [min(max(int(given[axis]), 0), x.shape[axis] - sizes[axis]) for axis in axes]
    limits = [start + sizes[axis] for start, axis in zip(starts, axes)]
    return graph.reshape(slice_axes(graph, x, axes, starts, limits, [1] * len(axes), tuple(sizes)), call.shape)


def _take_columns(graph: Graph, indices: Any, columns: list[int]) -> Any:
    """Some columns of the last axis."""
    if columns == list(range(indices.shape[-1])):
        return indices
    if isinstance(indices, np.ndarray):
        return indices[..., columns]
    if columns != list(range(columns[0], columns[-1] + 1)):
        raise Unsupported(f'gather by the columns {columns}')
    shape = (*indices.shape[:-1], len(columns))
    return slice_axes(graph, indices, [len(shape) - 1], [columns[0]], [columns[-1] + 1], [1], shape)


def _as_int64(graph: Graph, indices: Any) -> Any:
    return indices.astype(np.int64) if isinstance(indices, np.ndarray) else graph.cast(indices, np.int64)


def _dynamic_slice(graph: Graph, call: Call, x: Any, *starts: Any) -> Any:
    if not all(isinstance(start, np.ndarray) for start in starts):
        raise Unsupported('a slice at a computed place')
    sizes = call.params['slice_sizes']
    axes = [axis for axis, size in enumerate(sizes) if size != x.shape[axis]]
    first = [min(max(int(starts[axis]), 0), x.shape[axis] - sizes[axis]) for axis in axes]
    last = [start + sizes[axis] for start, axis in zip(first, axes)]
    return slice_axes(graph, x, axes, first, last, [1] * len(axes), call.shape)


RULES: dict[str, Rule] = {'gather': of_both_parts(_gather), 'dynamic_slice': of_both_parts(_dynamic_slice)}
