"""Random initial weights, equal to those of `jax.nn.initializers` up to rounding, without a compilation per shape.

JAX compiles a program for each shape that it draws, which takes about a second for the filters of a convolution on a
CPU, and half a minute for a network. Here weights are drawn as vectors of few lengths, and the first values of a vector
become the array: `jax.random` computes each number from the key and the number's index in row-major order.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

Initializer = Callable[..., jax.Array]  # (key, shape, dtype=float32) -> array of this shape
Distribution = Literal['normal', 'truncated_normal']

_MIN_LENGTH = 1 << 14  # drawn in less than a millisecond
_MAX_LENGTH = 1 << 24  # longer vectors have the length of the array, which saves memory
_LIMIT = 2.0  # a truncated normal distribution ends at two standard deviations, before it is scaled
_TRUNCATED_STD = 0.87962566103423978  # of the standard normal distribution between -2 and 2


def random_normal(std: float) -> Initializer:
    """Normal values of mean 0, as `jax.nn.initializers.normal`."""
    return lambda key, shape, dtype=jnp.float32: _draw('normal', key, shape, jnp.array(std, dtype))


def truncated_normal(std: float) -> Initializer:
    """Normal values of mean 0 within twice `std`, as `jax.nn.initializers.truncated_normal`.

    Args:
      std: standard deviation before the values are limited, as in timm and torch.
    """
    return lambda key, shape, dtype=jnp.float32: _draw('truncated_normal', key, shape, jnp.array(std, dtype))


def variance_scaling(
    scale: float,
    mode: Literal['fan_in', 'fan_out'],
    distribution: Distribution,
    in_axis: int | Sequence[int] = -2,
    out_axis: int | Sequence[int] = -1,
) -> Initializer:
    """Values of mean 0 and variance `scale / fan`, as `jax.nn.initializers.variance_scaling`.

    Args:
      scale: the factor of the variance.
      mode: whether the fan is the number of inputs of an output, or the number of outputs of an input.
      distribution: that of the values. A truncated one has the variance after it is truncated.
      in_axis: axes of the inputs. Axes that are neither inputs nor outputs count for both fans.
      out_axis: axes of the outputs.
    """

    def init(key: jax.Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> jax.Array:
        others = out_axis if mode == 'fan_in' else in_axis
        fan = math.prod(shape) / math.prod(shape[axis] for axis in ([others] if isinstance(others, int) else others))
        std = jnp.sqrt(jnp.array(scale / fan, dtype))
        if distribution == 'truncated_normal':
            std = std / jnp.array(_TRUNCATED_STD, dtype)
        return _draw(distribution, key, shape, std)

    return init


def _draw(distribution: Distribution, key: jax.Array, shape: Sequence[int], std: jax.Array) -> jax.Array:
    """Values of a distribution, times `std`, in its dtype."""
    size = math.prod(shape)
    length = max(_MIN_LENGTH, 1 << (size - 1).bit_length()) if size <= _MAX_LENGTH else size
    return _shape(_draw_vector(distribution, length, key, std.dtype), tuple(shape), std)


@partial(jax.jit, static_argnums=(0, 1, 3))
def _draw_vector(distribution: Distribution, length: int, key: jax.Array, dtype: jnp.dtype) -> jax.Array:
    if distribution == 'normal':
        return jax.random.normal(key, (length,), dtype)
    return jax.random.truncated_normal(key, -_LIMIT, _LIMIT, (length,), dtype)


@partial(jax.jit, static_argnums=1)
def _shape(vector: jax.Array, shape: tuple[int, ...], std: jax.Array) -> jax.Array:
    return vector[: math.prod(shape)].reshape(shape) * std


# He et al., "Delving Deep into Rectifiers", ICCV 2015.
HE_NORMAL = variance_scaling(2.0, 'fan_out', 'normal')
# Of ConvNeXt and the vision transformers.
NARROW_NORMAL = truncated_normal(0.02)
# LeCun et al., "Efficient BackProp", 1998; the default of `nnx.Linear` and `nnx.Conv`.
LECUN_NORMAL = variance_scaling(1.0, 'fan_in', 'truncated_normal')
