"""Weights of 16 bits in an ONNX file. The computation stays in float32."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

_SMALLEST = 512  # elements; rounding fewer saves nothing
_PRODUCTS = {'Conv': (1,), 'MatMul': (0, 1)}  # operators, and their inputs that may be weights


def round_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model whose weights of convolutions and matrix products are stored as float16.

    Biases, statistics and tables stay as they are. Weights beyond the range of float16 do, too.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    weights = {
        node.input[place] for node in graph.node for place in _PRODUCTS.get(node.op_type, ()) if place < len(node.input)
    }
    casts = []
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        if tensor.name not in weights or array.dtype != np.float32 or array.size < _SMALLEST:
            continue
        if np.abs(array).max() > np.finfo(np.float16).max:
            continue
        full, rounded = tensor.name, f'{tensor.name}_float16'
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), rounded))
        casts.append(helper.make_node('Cast', [rounded], [full], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return result
