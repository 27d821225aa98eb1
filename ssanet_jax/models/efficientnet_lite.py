"""EfficientNet-Lite0: a small backbone whose ImageNet weights fit in 19 MB.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019;
the Lite variant (ReLU6, no squeeze-and-excitation, stem and head not scaled) is Google's of 2020.
Layers, epsilon and 'SAME' padding are TensorFlow's, because the public weights were trained there
and ported to the PyTorch layout `_blocks.3._depthwise_conv` that `pretrained/names.py` reads.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models.depthwise import DepthwiseConv

# repeats, filter size, stride of the first block, expansion, channels out
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class EfficientNetLite0(nnx.Module):
    """Images -> the last convolution's map (after its BatchNorm and ReLU6), without classifier.

    Attributes:
      features, stride: channels and pixel step of the map.
      mean, std: per channel, in 0..255; the weights expect (pixel - mean) / std.
    """

    features, stride = 1280, 32
    mean, std = (127.0,) * 3, (128.0,) * 3

    def __init__(self, rngs: nnx.Rngs, dtype: jnp.dtype = jnp.float32):
        self.stem = nnx.Conv(3, 32, (3, 3), 2, padding='SAME', use_bias=False, dtype=dtype, kernel_init=_HE, rngs=rngs)
        self.stem_norm = norm(32, dtype, rngs)
        blocks, channels = [], 32
        for repeats, size, stride, expansion, features in _STAGES:
            for index in range(repeats):
                blocks.append(
                    InvertedResidual(
                        channels, features, size, stride if index == 0 else 1, expansion, dtype=dtype, rngs=rngs
                    )
                )
                channels = features
        self.blocks = nnx.List(blocks)
        self.head = pointwise(channels, self.features, dtype, rngs)
        self.head_norm = norm(self.features, dtype, rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """[B, H, W, 3] normalised, float -> [B, ceil(H/32), ceil(W/32), 1280]."""
        x = jax.nn.relu6(self.stem_norm(self.stem(images)))
        for block in self.blocks:
            x = block(x)
        return jax.nn.relu6(self.head_norm(self.head(x)))


class InvertedResidual(nnx.Module):
    """Expand by 1x1, filter each channel, project by 1x1 without activation; add the input if it fits.

    Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018.
    """

    def __init__(
        self,
        channels: int,
        features: int,
        size: int,
        stride: int,
        expansion: int,
        *,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        wide = channels * expansion
        self.skip = stride == 1 and channels == features
        self.expands = expansion != 1
        if self.expands:
            self.expand = pointwise(channels, wide, dtype, rngs)
            self.expand_norm = norm(wide, dtype, rngs)
        self.depthwise = DepthwiseConv(wide, size, stride, dtype=dtype, rngs=rngs)
        self.depthwise_norm = norm(wide, dtype, rngs)
        self.project = pointwise(wide, features, dtype, rngs)
        self.project_norm = norm(features, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, channels] -> [B, ceil(H/stride), ceil(W/stride), features]."""
        y = x
        if self.expands:
            y = jax.nn.relu6(self.expand_norm(self.expand(y)))
        y = jax.nn.relu6(self.depthwise_norm(self.depthwise(y)))
        y = self.project_norm(self.project(y))
        return x + y if self.skip else y


_HE = nnx.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def pointwise(channels: int, features: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Linear:
    """A 1x1 convolution without bias, as the matrix product that it is: quicker on CPU, forward and backward."""
    return nnx.Linear(channels, features, use_bias=False, dtype=dtype, kernel_init=_HE, rngs=rngs)


def norm(features: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """BatchNorm with EfficientNet's numbers: epsilon 1e-3, running statistics with momentum 0.99."""
    return nnx.BatchNorm(features, momentum=0.99, epsilon=1e-3, dtype=dtype, rngs=rngs)
