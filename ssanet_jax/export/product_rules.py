"""Rules for products of matrices, convolutions, and Fourier transforms of a few values, which are products as well."""

from typing import Any

import jax
import numpy as np

from ssanet_jax.export.call import Call, Rule, Unsupported
from ssanet_jax.export.graph import Complex, Empty, Graph, Tensor


def _dot_general(graph: Graph, call: Call, x: Any, y: Any) -> Any:
    (x_sum, y_sum), (x_batch, y_batch) = call.params['dimension_numbers']
    if not x_batch and len(x.shape) == 4 and tuple(x_sum) == (3,) and isinstance(y, np.ndarray) and y.ndim == 2:
        return _pointwise(graph, call, x, y if tuple(y_sum) == (0,) else y.T)
    if isinstance(x, np.ndarray):  # constants go second, where onnxruntime lays them out once
        swapped = call._replace(
            params={**call.params, 'dimension_numbers': ((y_sum, x_sum), (y_batch, x_batch))},
            outputs=[call.outputs[0]._replace(shape=_swapped_shape(call.shape, x, x_sum, x_batch))],
        )
        product = _product(graph, swapped, y, x)
        shared, own = len(x_batch), len(x.shape) - len(x_sum) - len(x_batch)
        theirs = len(call.shape) - shared - own
        order = [*range(shared), *range(shared + theirs, shared + theirs + own), *range(shared, shared + theirs)]
        return graph.transpose(product, order)
    return _product(graph, call, x, y)


def _swapped_shape(shape: Any, x: Any, x_sum: Any, x_batch: Any) -> Any:
    """The shape of a product whose factors have changed places."""
    shared, own = len(x_batch), len(x.shape) - len(x_sum) - len(x_batch)
    return (*shape[:shared], *shape[shared + own :], *shape[shared : shared + own])


def _product(graph: Graph, call: Call, x: Any, y: Any) -> Any:
    (x_sum, y_sum), (x_batch, y_batch) = call.params['dimension_numbers']
    x_free = [axis for axis in range(len(x.shape)) if axis not in (*x_sum, *x_batch)]
    y_free = [axis for axis in range(len(y.shape)) if axis not in (*y_sum, *y_batch)]
    shared = tuple(x.shape[axis] for axis in x_batch)
    rows, columns = _size(x, x_free), _size(y, y_free)
    left = graph.reshape(graph.transpose(x, [*x_batch, *x_free, *x_sum]), (*shared, rows, _size(x, x_sum)))
    right = graph.reshape(graph.transpose(y, [*y_batch, *y_sum, *y_free]), (*shared, _size(y, y_sum), columns))
    product = graph.op('MatMul', [left, right], (*shared, rows, columns), call.dtype)
    return graph.reshape(product, call.shape)


def _size(value: Any, axes: Any) -> Any:
    """The number of elements along some axes."""
    size: Any = 1
    for axis in axes:
        size = size * value.shape[axis]
    return size


def _pointwise(graph: Graph, call: Call, x: Any, weights: np.ndarray) -> Any:
    """A product over the channels of maps `[B, H, W, C]`, as a 1 x 1 convolution."""
    channels_first = graph.transpose(x, (0, 3, 1, 2))
    shape = tuple(call.shape[axis] for axis in (0, 3, 1, 2))
    convolved = graph.op('Conv', [channels_first, weights.T[:, :, None, None]], shape, call.dtype, kernel_shape=[1, 1])
    return graph.transpose(convolved, (0, 2, 3, 1))


def _convolution(graph: Graph, call: Call, x: Any, kernel: Any) -> Any:
    params = call.params
    numbers = params['dimension_numbers']
    if params['batch_group_count'] != 1 or set(params['lhs_dilation']) != {1} or len(x.shape) != 4:
        raise Unsupported('a transposed or grouped convolution')
    ints = lambda values: [int(value) for value in values]
    filters = graph.transpose(kernel, numbers.rhs_spec)
    shape = tuple(call.shape[axis] for axis in numbers.out_spec)
    convolved = graph.op(
        'Conv',
        [graph.transpose(x, numbers.lhs_spec), filters],
        shape,
        call.dtype,
        kernel_shape=ints(filters.shape[2:]),
        strides=ints(params['window_strides']),
        dilations=ints(params['rhs_dilation']),
        group=int(params['feature_group_count']),
        pads=[int(pair[side]) for side in (0, 1) for pair in params['padding']],
    )
    return graph.transpose(convolved, np.argsort(numbers.out_spec).tolist())


def _fft(graph: Graph, call: Call, x: Any) -> Any:
    """The transform of a real signal along the last axis, or its inverse, by products with cosines and sines."""
    (length,) = (int(value) for value in call.params['fft_lengths'])
    kind = jax.lax.FftType(call.params['fft_type'])
    frequencies = np.arange(length // 2 + 1)
    angles = 2 * np.pi * np.outer(np.arange(length), frequencies) / length  # [S, F]
    if kind == jax.lax.FftType.RFFT:
        real, imag = (table.astype(np.float32) for table in (np.cos(angles), -np.sin(angles)))
        return Complex(_times(graph, x, real, call.shape), _times(graph, x, imag, call.shape))
    if kind != jax.lax.FftType.IRFFT:
        raise Unsupported(f'fft of kind {kind.name}')
    # Frequencies between the first and the last stand for two each.
    count = np.where((frequencies == 0) | (2 * frequencies == length), 1, 2)[:, None] / length
    real, imag = ((table * count).astype(np.float32) for table in (np.cos(angles).T, -np.sin(angles).T))
    parts = [_times(graph, x.real, real, call.shape), _times(graph, x.imag, imag, call.shape)]
    return graph.elementwise('Add', parts, call.shape, np.float32)


def _times(graph: Graph, x: Any, table: np.ndarray, shape: Any) -> Tensor:
    return graph.op('MatMul', [x, table], shape, np.float32)


def _complex(graph: Graph, call: Call, real: Any, imag: Any) -> Complex | Empty:
    return Complex(real, imag)


RULES: dict[str, Rule] = {
    'dot_general': _dot_general,
    'conv_general_dilated': _convolution,
    'fft': _fft,
    'complex': _complex,
    'real': lambda graph, call, x: x.real,
    'imag': lambda graph, call, x: x.imag,
}
