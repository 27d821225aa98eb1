"""The layers that the backbones are built from, with the constants of the frameworks that trained them."""

import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models.backbones.batch_norm import BatchNorm
from ssanet_jax.models.initializers import HE_NORMAL, NARROW_NORMAL


def conv(
    channels: int,
    features: int,
    size: int,
    stride: int,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
    *,
    padding: str | None = None,
) -> nnx.Conv:
    """A size x size convolution without bias.

    Args:
      channels: input channels.
      features: output channels.
      size: side of the filters.
      stride: step in pixels.
      dtype: type of the computation; parameters are float32.
      rngs: source of the random weights.
      padding: 'SAME' as in TensorFlow, or None: size // 2 on every side, as in torch.
    """
    side = (size // 2, size // 2)
    return nnx.Conv(
        channels,
        features,
        (size, size),
        stride,
        padding=padding or (side, side),
        use_bias=False,
        dtype=dtype,
        kernel_init=HE_NORMAL,
        rngs=rngs,
    )


def pointwise(channels: int, features: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Linear:
    """A 1x1 convolution without bias, as a matrix product: it is faster on CPU, forward and backward."""
    return nnx.Linear(channels, features, use_bias=False, dtype=dtype, kernel_init=HE_NORMAL, rngs=rngs)


def patch_conv(channels: int, features: int, size: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Conv:
    """A convolution over non-overlapping size x size patches; an incomplete patch at the border is dropped."""
    return nnx.Conv(
        channels, features, (size, size), size, padding='VALID', dtype=dtype, kernel_init=NARROW_NORMAL, rngs=rngs
    )


def linear(channels: int, features: int, dtype: jnp.dtype, rngs: nnx.Rngs, *, use_bias: bool = True) -> nnx.Linear:
    """A linear layer over the channels of each cell or token."""
    return nnx.Linear(channels, features, use_bias=use_bias, dtype=dtype, kernel_init=NARROW_NORMAL, rngs=rngs)


def torch_batch_norm(features: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> BatchNorm:
    """BatchNorm with torch's defaults: epsilon 1e-5 and momentum 0.1, which is 0.9 in Flax."""
    return BatchNorm(features, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs)


def tensorflow_batch_norm(features: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> BatchNorm:
    """BatchNorm with the settings of TensorFlow's EfficientNets: epsilon 1e-3 and momentum 0.99."""
    return BatchNorm(features, momentum=0.99, epsilon=1e-3, dtype=dtype, rngs=rngs)


def layer_norm(features: int, dtype: jnp.dtype, rngs: nnx.Rngs, epsilon: float = 1e-6) -> nnx.LayerNorm:
    """LayerNorm over the channels of each cell or token; so small an epsilon needs the exact variance."""
    return nnx.LayerNorm(features, epsilon=epsilon, use_fast_variance=False, dtype=dtype, rngs=rngs)
