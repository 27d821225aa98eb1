"""Operations that one operator of ONNX does together.

onnxruntime then keeps a chain of convolutions in its own layout. Without this, every bias and every ReLU6 between two
of them would convert the maps twice.
"""

from typing import Any

import numpy as np
from onnx import helper

from ssanet_jax.export.call import Call
from ssanet_jax.export.graph import Graph, Tensor

_CHANNELS_LAST = [0, 2, 3, 1]


def fuse_bias(graph: Graph, call: Call, x: Any, bias: Any) -> Tensor | None:
    """The sum of a convolution `[B, H, W, C]` and a constant per channel, as a convolution with a bias.

    Returns:
      None if the inputs are others.
    """
    values = graph.constant(bias)
    if not isinstance(x, Tensor) or values is None or len(call.shape) != 4:
        return None
    turned = graph.producer(x)
    convolution = graph.producer(turned.input[0]) if turned is not None and turned.op_type == 'Transpose' else None
    if turned is None or convolution is None or convolution.op_type != 'Conv' or len(convolution.input) != 2:
        return None
    order = list(helper.get_attribute_value(turned.attribute[0]))
    if order != _CHANNELS_LAST or not values.shape[-1:] == (values.size,) == call.shape[-1:]:
        return None
    attributes = {one.name: helper.get_attribute_value(one) for one in convolution.attribute}
    shape = tuple(call.shape[axis] for axis in (0, 3, 1, 2))
    fused = graph.op('Conv', [*convolution.input, values.reshape(-1)], shape, call.dtype, **attributes)
    return graph.transpose(fused, _CHANNELS_LAST)


def fuse_relu(graph: Graph, call: Call, x: Any, limit: Any) -> Tensor | None:
    """The maximum of a value and zero; None if the inputs are others."""
    lowest = graph.constant(limit)
    if not isinstance(x, Tensor) or call.dtype != np.float32 or lowest is None or lowest.size != 1 or lowest.any():
        return None
    return graph.elementwise('Relu', [x], call.shape, call.dtype)


def fuse_clip(graph: Graph, call: Call, x: Any, limit: Any) -> Tensor | None:
    """The minimum of a ReLU and a constant, such as ReLU6, as one operator; None if the inputs are others."""
    highest = graph.constant(limit)
    relu = graph.producer(x) if isinstance(x, Tensor) else None
    if relu is None or relu.op_type != 'Relu' or highest is None or highest.size != 1:
        return None
    limits = [np.zeros((), call.dtype), highest.reshape(())]
    return graph.op('Clip', [relu.input[0], *limits], call.shape, call.dtype, held=x.held)
