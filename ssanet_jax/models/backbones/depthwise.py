"""Depthwise convolution that is fast on every platform, forward and backward.

XLA's depthwise convolution on CPU is several times slower than the same sum written as k x k shifted products, which
XLA fuses into one vectorized loop: ten times slower at 7 x 7 forward, and three to seventy times backward.
On a GPU, that of `lax` is faster (docs/speed.md, "On a GPU"). `jax.lax.platform_dependent` selects the
branch when the program is lowered, not when it is traced, so a program that is exported or compiled for another
platform (`jax.export`, a TPU topology) gets that platform's branch.

The gradient is written by hand for the same reason: autodiff turns the shifted products into k * k padded copies of
the input, and a strided slice into a scatter.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from ssanet_jax.models.initializers import random_normal

Padding = str | Sequence[tuple[int, int]]
_Pads = tuple[tuple[int, int], tuple[int, int]]


def depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: Padding = 'SAME') -> jax.Array:
    """Convolves each channel with its own filter: y[b,u,v,c] = sum_ij x[b, su+i-p, sv+j-p, c] w[i,j,c].

    Chollet, "Xception", CVPR 2017. The result equals `jax.lax.conv_general_dilated` with `feature_group_count=C`.

    Args:
      x: [B, H, W, C] input, float.
      kernel: [k, k, C] filters, of the same dtype as `x`.
      stride: step in pixels along both axes.
      padding: 'SAME' (as in TensorFlow: the odd pixel goes below and to the right), 'VALID', or
        ((top, bottom), (left, right)) in pixels.

    Returns:
      [B, H', W', C], of the dtype of `x`.

    Raises:
      ValueError: the channels of `x` and `kernel` differ, or the stride is not positive.
    """
    if x.ndim != 4 or kernel.ndim != 3 or x.shape[-1] != kernel.shape[-1]:
        raise ValueError(f'depthwise_conv needs x [B, H, W, C] and kernel [k, k, C], got {x.shape} and {kernel.shape}')
    if stride < 1:
        raise ValueError(f'depthwise_conv needs a stride of at least 1, got {stride}')
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], (stride, stride), padding)
    (top, bottom), (left, right) = padding
    return _depthwise(x, kernel, stride, ((int(top), int(bottom)), (int(left), int(right))))


class DepthwiseConv(nnx.Module):
    """`depthwise_conv` with a parameter `kernel` [k, k, C], and a parameter `bias` [C] if `use_bias`."""

    def __init__(
        self,
        features: int,
        size: int,
        stride: int = 1,
        padding: Padding = 'SAME',
        *,
        use_bias: bool = False,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        # He initialization: the fan-in is size * size, since each output depends on its own channel only.
        std = (2 / size**2) ** 0.5
        self.kernel = nnx.Param(random_normal(std)(rngs.params(), (size, size, features)))
        self.use_bias = use_bias
        if use_bias:
            self.bias = nnx.Param(jnp.zeros(features, jnp.float32))
        self.stride, self.padding, self.dtype = stride, padding, dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, C] -> [B, H', W', C]."""
        y = depthwise_conv(x.astype(self.dtype), self.kernel[...].astype(self.dtype), self.stride, self.padding)
        return y + self.bias[...].astype(self.dtype) if self.use_bias else y


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(x: jax.Array, kernel: jax.Array, stride: int, pads: _Pads) -> jax.Array:
    return lax.platform_dependent(
        x,
        kernel,
        cpu=partial(_shifted_products, stride=stride, pads=pads),
        default=partial(_grouped, stride=stride, pads=pads),
    )


def _forward(x, kernel, stride, pads):
    return _depthwise(x, kernel, stride, pads), (x, kernel)


def _backward(stride, pads, residuals, dy):
    x, kernel = residuals
    return lax.platform_dependent(
        x,
        kernel,
        dy,
        cpu=partial(_shifted_gradients, stride=stride, pads=pads),
        default=partial(_grouped_gradients, stride=stride, pads=pads),
    )


_depthwise.defvjp(_forward, _backward)


def _grouped(x, kernel, *, stride, pads):
    return lax.conv_general_dilated(
        x,
        kernel[:, :, None, :],
        (stride, stride),
        pads,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        feature_group_count=x.shape[-1],
    )


def _grouped_gradients(x, kernel, dy, *, stride, pads):
    return jax.vjp(partial(_grouped, stride=stride, pads=pads), x, kernel)[1](dy)


def _shifted_products(x, kernel, *, stride, pads):
    (height, width), size = _output_shape(x, kernel, stride, pads), kernel.shape[0]
    padded = _pad(x, pads)
    total: Any = 0
    for i in range(size):
        for j in range(kernel.shape[1]):
            total += _shift(padded, i, j, height, width, stride) * kernel[i, j]
    return total


def _shifted_gradients(x, kernel, dy, *, stride, pads):
    return _input_gradient(x, kernel, dy, stride, pads), _kernel_gradient(x, kernel, dy, stride, pads)


def _kernel_gradient(x, kernel, dy, stride, pads):
    # XLA's CPU reductions over a fused slice run at a tenth of the memory bandwidth. So the images of a group are
    # added in one element-wise expression, and rows and columns by a matrix product with ones, whose operand is never
    # fused away. With the scan, the size of the program does not depend on the batch.
    rows, columns, channels = kernel.shape
    batch, height, width = dy.shape[:3]
    group = max(n for n in range(1, 9) if batch % n == 0)
    ones = jnp.ones((height * width,), jnp.float32)

    def add_group(total, images):
        padded, dy = (array.astype(jnp.float32) for array in images)
        taps = []
        for i in range(rows):
            for j in range(columns):
                shifted = _shift(padded, i, j, height, width, stride)
                product: Any = sum(shifted[n] * dy[n] for n in range(group))
                taps.append(ones @ product.reshape(height * width, channels))
        return total + jnp.stack(taps), None

    grouped = tuple(array.reshape(batch // group, group, *array.shape[1:]) for array in (_pad(x, pads), dy))
    total, _ = lax.scan(add_group, jnp.zeros((rows * columns, channels), jnp.float32), grouped)
    return total.reshape(kernel.shape).astype(kernel.dtype)


def _input_gradient(x, kernel, dy, stride, pads):
    # Row stride * q + a of the padded input meets only the filter rows a, a + stride, ... So each of the
    # stride * stride phases (a, b) is a small dense convolution of dy, and the interleaved phases are the gradient of
    # the padded input: without multiplications by zero, and without a scatter.
    rows, columns, channels = kernel.shape
    batch, height, width = dy.shape[:3]
    (top, _), (left, _) = pads
    taps_down, taps_right = -(-rows // stride), -(-columns // stride)
    # The number of rows q that makes the interleaved rows cover top ... top + H.
    need_h, need_w = -(-(top + x.shape[1]) // stride), -(-(left + x.shape[2]) // stride)
    wide = lax.pad(
        dy,
        jnp.zeros((), dy.dtype),
        ((0, 0, 0), (taps_down - 1, need_h - height, 0), (taps_right - 1, need_w - width, 0), (0, 0, 0)),
    )
    phases = []
    for a in range(stride):
        for b in range(stride):
            total = jnp.zeros((batch, need_h, need_w, channels), dy.dtype)
            for i in range(a, rows, stride):
                for j in range(b, columns, stride):
                    down, right = taps_down - 1 - i // stride, taps_right - 1 - j // stride
                    total += _shift(wide, down, right, need_h, need_w, 1) * kernel[i, j]
            phases.append(total)
    if stride == 1:
        spread = phases[0]
    else:
        spread = jnp.stack(phases, axis=3).reshape(batch, need_h, need_w, stride, stride, channels)
        spread = spread.transpose(0, 1, 3, 2, 4, 5).reshape(batch, need_h * stride, need_w * stride, channels)
    return spread[:, top : top + x.shape[1], left : left + x.shape[2]]


def _pad(x, pads):
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*pads[0], 0), (*pads[1], 0), (0, 0, 0)))


def _shift(x, i, j, height, width, stride):
    """The height x width samples of x that start at row i and column j, `stride` apart."""
    return lax.slice(
        x,
        (0, i, j, 0),
        (x.shape[0], i + stride * (height - 1) + 1, j + stride * (width - 1) + 1, x.shape[3]),
        (1, stride, stride, 1),
    )


def _output_shape(x, kernel, stride, pads):
    return tuple((x.shape[1 + d] + sum(pads[d]) - kernel.shape[d]) // stride + 1 for d in (0, 1))
