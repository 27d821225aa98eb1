"""EfficientNet-Lite: small backbones, whose ImageNet weights fit in 19 MB (Lite0) to 25 MB (Lite2).

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019;
the Lite variant (ReLU6, no squeeze-and-excitation, stem and head not scaled) is Google's of 2020.
Layers, epsilon and 'SAME' padding are TensorFlow's, because the public weights were trained there
and ported to the PyTorch layouts (`_blocks.3._depthwise_conv`, timm's `blocks.2.0.conv_dw`) that
`pretrained/names.py` reads.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models.backbones.base import Level, is_dilated
from ssanet_jax.models.backbones.batch_norm import BatchNorm, conv_norm
from ssanet_jax.models.backbones.depthwise import DepthwiseConv, Padding
from ssanet_jax.models.backbones.dilation import a_trous
from ssanet_jax.models.backbones.rematerialisation import rematerialised

# Lite0: repeats, filter size, stride of the first block, expansion, channels out
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_LAST_STEP = 5  # the stage that steps from stride 16 to 32


class EfficientNetLite(nnx.Module):
    """Images -> the last convolution's map (after its BatchNorm and ReLU6), without classifier.

    Attributes:
      num_features, stride: channels and pixel step of the map.
      pyramid_features: channels of each level of `pyramid`.
      mean, std: per channel, in 0..255; the weights expect (pixel - mean) / std.
      interpolation: with which the images that the weights learned from were resized.
      remat: compute the blocks again in the backward pass instead of keeping what they did.
    """

    num_features = 1280
    mean, std = (127.0,) * 3, (128.0,) * 3
    interpolation = 'bicubic'
    remat = False

    def __init__(
        self,
        rngs: nnx.Rngs,
        dtype: jnp.dtype = jnp.float32,
        *,
        width: float = 1.0,
        depth: float = 1.0,
        output_stride: int = 0,
    ):
        """Builds the network.

        Args:
          rngs: source of the random weights.
          dtype: of the computation; parameters are float32.
          width: factor of the channels, except those of stem and head: 1 in Lite0 and Lite1, 1.1 in Lite2.
          depth: factor of the repeats, except those of the first and last stage: 1, 1.1 and 1.2. (The weights
            learned from images of 224, 240 and 260.)
          output_stride: 16: the last step of 2 is not taken, and the filters behind it reach twice as far.
        """
        self.dilated = is_dilated(output_stride, 32)
        self.stride = 16 if self.dilated else 32
        self.stem = nnx.Conv(3, 32, (3, 3), 2, padding='SAME', use_bias=False, dtype=dtype, kernel_init=_HE, rngs=rngs)
        self.stem_norm = norm(32, dtype, rngs)
        blocks, channels, apart, steps = [], 32, None, {}
        for stage, (repeats, size, stride, expansion, features) in enumerate(STAGES):
            features = _rounded(width * features)
            if 0 < stage < len(STAGES) - 1:
                repeats = math.ceil(depth * repeats)
            for index in range(repeats):
                step, padding = stride if index == 0 else 1, 'SAME'
                if step == 2:
                    steps[len(blocks)] = channels
                if self.dilated and step == 2 and stage == _LAST_STEP:
                    # As 'SAME' puts the windows of every other cell: the odd pixel below and to the right.
                    step, padding, apart = 1, (((size - 3) // 2, (size + 1) // 2),) * 2, len(blocks) + 1
                blocks.append(
                    InvertedResidual(channels, features, size, step, expansion, padding, dtype=dtype, rngs=rngs)
                )
                channels = features
        self.blocks = nnx.List(blocks)
        self.apart = len(blocks) if apart is None else apart
        self.steps = tuple(steps)  # the blocks before which a level ends
        self.pyramid_features = (*steps.values(), self.num_features)
        self.head = pointwise(channels, self.num_features, dtype, rngs)
        self.head_norm = norm(self.num_features, dtype, rngs)

    def centre(self, image_size: int) -> float:
        """The pixel over which the first cell of the map is centred.

        'SAME' puts the odd pixel of padding last: each step of 2 from an even size moves the centres by one pixel.
        """
        return _centre(image_size, 5)

    def __call__(self, images: jax.Array) -> jax.Array:
        """[B, H, W, 3] normalised, float -> [B, ceil(H/stride), ceil(W/stride), 1280]."""
        return self.pyramid(images)[-1].map

    def pyramid(self, images: jax.Array) -> list[Level]:
        """[B, H, W, 3] normalised, float -> the map before each step of 2, of strides 2 to 16, and the last map."""
        levels = []
        x = relu6(conv_norm(self.stem, self.stem_norm, images))
        blocks = [rematerialised(block, self.remat) for block in self.blocks]
        for index, block in enumerate(blocks[: self.apart]):
            if index in self.steps:
                steps = len(levels) + 1
                levels.append(Level(x, 2**steps, _centre(images.shape[1], steps)))
            x = block(x)
        if self.apart < len(self.blocks):
            x = a_trous(blocks[self.apart :], x)
        x = relu6(conv_norm(self.head, self.head_norm, x))
        return [*levels, Level(x, self.stride, self.centre(images.shape[1]))]


def _centre(size: int, steps: int) -> float:
    """The pixel over which the first cell is centred after some of the steps of 2, in an image of `size`."""
    centre = 0.5
    for step in range(steps):
        centre += 2**step * (size % 2 == 0)
        size = -(-size // 2)
    return centre


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
        padding: Padding = 'SAME',
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
        self.depthwise = DepthwiseConv(wide, size, stride, padding, dtype=dtype, rngs=rngs)
        self.depthwise_norm = norm(wide, dtype, rngs)
        self.project = pointwise(wide, features, dtype, rngs)
        self.project_norm = norm(features, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, channels] -> [B, ceil(H/stride), ceil(W/stride), features]."""
        y = x
        if self.expands:
            y = relu6(conv_norm(self.expand, self.expand_norm, y))
        y = relu6(conv_norm(self.depthwise, self.depthwise_norm, y))
        y = conv_norm(self.project, self.project_norm, y)
        return x + y if self.skip else y


_HE = nnx.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def pointwise(channels: int, features: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Linear:
    """A 1x1 convolution without bias, as the matrix product that it is: quicker on CPU, forward and backward."""
    return nnx.Linear(channels, features, use_bias=False, dtype=dtype, kernel_init=_HE, rngs=rngs)


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, or the next one if that were less than nine tenths."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


def norm(features: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> BatchNorm:
    """BatchNorm with EfficientNet's numbers: epsilon 1e-3, running statistics with momentum 0.99."""
    return BatchNorm(features, momentum=0.99, epsilon=1e-3, dtype=dtype, rngs=rngs)


@jax.custom_vjp
def relu6(x: jax.Array) -> jax.Array:
    """min(max(x, 0), 6), with a gradient of 0 at both corners.

    Its gradient needs the result alone, which the next layer keeps anyway, and no division among equals
    as that of `jnp.clip` does.
    """
    return jnp.clip(x, 0, 6)


def _relu6_forward(x):
    y = relu6(x)
    return y, y


def _relu6_backward(y, g):
    return (jnp.where((y > 0) & (y < 6), g, 0),)


relu6.defvjp(_relu6_forward, _relu6_backward)
