"""EfficientNet-Lite: small backbones, whose ImageNet weights take 19 MB (Lite0) to 25 MB (Lite2).

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019; Google's Lite
variant of 2020 has ReLU6, no squeeze-and-excitation, and a stem and head of fixed width. Epsilon, momentum and 'SAME'
padding are TensorFlow's, where the public weights were trained. `pretrained/names.py` reads their PyTorch ports
(`_blocks.3._depthwise_conv`, or timm's `blocks.2.0.conv_dw`).
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models.backbones.base import Level, is_dilated
from ssanet_jax.models.backbones.batch_norm import conv_norm
from ssanet_jax.models.backbones.depthwise import DepthwiseConv, Padding
from ssanet_jax.models.backbones.dilation import a_trous
from ssanet_jax.models.backbones.layers import conv, pointwise
from ssanet_jax.models.backbones.layers import tensorflow_batch_norm as norm
from ssanet_jax.models.backbones.remat import remat_if

# The stages of Lite0: number of blocks, filter size, stride of the first block, expansion, output channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_LAST_STRIDED_STAGE = 5  # from stride 16 to 32
_STEM_WIDTH = 32


class EfficientNetLite(nnx.Module):
    """Images -> the map of the last convolution (after BatchNorm and ReLU6), without a classifier. A `Backbone`."""

    num_features = 1280
    mean, std = (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)
    interpolation = 'bicubic'
    remat = False
    measured_centers = True
    has_class_token = False

    def __init__(
        self,
        rngs: nnx.Rngs,
        dtype: jnp.dtype = jnp.float32,
        *,
        width: float = 1.0,
        depth: float = 1.0,
        compensated_steps: int = 5,
        output_stride: int = 0,
    ):
        """Builds the network.

        Args:
          rngs: source of the random weights.
          dtype: type of the computation; parameters are float32.
          width: factor of the channels, except those of stem and head: 1 in Lite0 and Lite1, 1.1 in Lite2.
          depth: factor of the number of blocks, except in the first and last stage: 1, 1.1 and 1.2 in Lite0 to Lite2.
            (Their weights were trained on images of 224, 240 and 260 pixels.)
          compensated_steps: the number of steps of 2, from the first, whose one-sided padding the public weights
            compensate (see `center`): 5 in Lite0 and Lite1, 4 in Lite2.
          output_stride: 16 makes the last strided stage dilated instead of strided; 0 is the usual stride, 32.
        """
        self.dilated = is_dilated(output_stride, 32)
        self.stride = 16 if self.dilated else 32
        self.compensated_steps = compensated_steps
        self.stem = conv(3, _STEM_WIDTH, 3, 2, dtype, rngs, padding='SAME')
        self.stem_norm = norm(_STEM_WIDTH, dtype, rngs)
        blocks, channels = [], _STEM_WIDTH
        level_channels = {}  # index of each strided block -> channels of its input
        first_dilated = None
        for stage, (repeats, size, first_stride, expansion, features) in enumerate(STAGES):
            features = _round_channels(width * features)
            if 0 < stage < len(STAGES) - 1:
                repeats = math.ceil(depth * repeats)
            for index in range(repeats):
                stride, padding = first_stride if index == 0 else 1, 'SAME'
                if stride == 2:
                    level_channels[len(blocks)] = channels
                if self.dilated and stride == 2 and stage == _LAST_STRIDED_STAGE:
                    # Every other window lies where 'SAME' puts the strided ones: the odd pixel below and to the right.
                    stride, padding = 1, (((size - 3) // 2, (size + 1) // 2),) * 2
                    first_dilated = len(blocks) + 1
                blocks.append(
                    InvertedResidual(channels, features, size, stride, expansion, padding, dtype=dtype, rngs=rngs)
                )
                channels = features
        self.blocks = nnx.List(blocks)
        self.first_dilated = len(blocks) if first_dilated is None else first_dilated
        self.strided_blocks = tuple(level_channels)  # their inputs are levels of the pyramid
        self.pyramid_features = (*level_channels.values(), self.num_features)
        self.head = pointwise(channels, self.num_features, dtype, rngs)
        self.head_norm = norm(self.num_features, dtype, rngs)

    def center(self, image_size: int) -> float:
        """See `Backbone`.

        'SAME' pads last, so each step of 2 from an even size moves the receptive fields by one cell of the finer map
        instead of the half that would keep them in the middle of the cell's pixels. The filters of the public weights
        undo that half cell. The center at stride 32 is then 16 for Lite0 and Lite1 at sizes that 32 divides, where the
        receptive field's is 31.5. It is 24 for Lite2, whose last step compensates nothing, presumably because its
        weights were trained at a size at which this step pads both sides.

        The mirror test on photos of birds found, by parabolas through cosines at whole shifts:

        | weights | size | stride 8 | stride 16 | stride 32 (cosine there, and at 31.5) |
        |---|---|---|---|---|
        | Lite0 | 448 | 3.7 | 9.0 | 16.8 (0.91, 0.74) |
        | Lite0 | 224 | 3.7 | 9.1 | 17.7 (0.93, 0.75) |
        | Lite0, output_stride=16 | 448 | 3.7 | 9.0 | 16.9 (0.91, 0.90; the finer map is smoother) |
        | Lite1 | 448 | 3.9 | 9.1 | 16.8 (0.92, 0.75) |
        | Lite2 | 448 | 3.9 | 9.4 | 24.9 (0.89, 0.85) |

        This rule gives 4, 8, and 16 or 24, also for random weights, where nothing is compensated yet. At sizes that 32
        does not divide, it subtracts the same shift, as measured (Lite0 at 240 pixels: 0 by the rule, 1 to 3 measured).
        """
        return self._center(image_size, 5)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Normalized float [B, H, W, 3] -> [B, ceil(H/stride), ceil(W/stride), 1280]."""
        return self.pyramid(images)[-1].map

    def pyramid(self, images: jax.Array) -> list[Level]:
        """Normalized float [B, H, W, 3] -> the inputs of the strided blocks (strides 2 to 16), and the last map."""
        levels = []
        x = relu6(conv_norm(self.stem, self.stem_norm, images))
        blocks = [remat_if(self.remat, block) for block in self.blocks]
        for index, block in enumerate(blocks[: self.first_dilated]):
            if index in self.strided_blocks:
                steps = len(levels) + 1
                levels.append(Level(x, 2**steps, self._center(images.shape[1], steps)))
            x = block(x)
        if self.first_dilated < len(blocks):
            x = a_trous(blocks[self.first_dilated :], x)
        x = relu6(conv_norm(self.head, self.head_norm, x))
        return [*levels, Level(x, self.stride, self.center(images.shape[1]))]

    def layer_index(self, path: Sequence[str | int]) -> int:
        """See `Backbone`. The stem belongs to the first layer, the last convolution to the last one."""
        if path[0] == 'blocks':
            return sum(int(path[1]) >= first for first in self.strided_blocks)
        return len(self.strided_blocks) if str(path[0]).startswith('head') else 0

    def _center(self, image_size: int, steps: int) -> float:
        """The pixel that the first cell describes after this number of steps of 2."""
        center, side = 0.5, image_size
        for step in range(steps):
            center += 2**step * (side % 2 == 0)
            if self.measured_centers and step < self.compensated_steps:
                center -= 2**step / 2
            side = -(-side // 2)
        return center


class InvertedResidual(nnx.Module):
    """1x1 expansion, depthwise convolution, linear 1x1 projection; plus the input where the shapes agree.

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
        expanded = channels * expansion
        self.skip = stride == 1 and channels == features
        self.expands = expansion != 1
        if self.expands:
            self.expand = pointwise(channels, expanded, dtype, rngs)
            self.expand_norm = norm(expanded, dtype, rngs)
        self.depthwise = DepthwiseConv(expanded, size, stride, padding, dtype=dtype, rngs=rngs)
        self.depthwise_norm = norm(expanded, dtype, rngs)
        self.project = pointwise(expanded, features, dtype, rngs)
        self.project_norm = norm(features, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, channels] -> [B, ceil(H/stride), ceil(W/stride), features]."""
        y = x
        if self.expands:
            y = relu6(conv_norm(self.expand, self.expand_norm, y))
        y = relu6(conv_norm(self.depthwise, self.depthwise_norm, y))
        y = conv_norm(self.project, self.project_norm, y)
        return x + y if self.skip else y


def _round_channels(channels: float) -> int:
    """The nearest multiple of 8, or the next larger one if rounding would lose more than a tenth."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


@jax.custom_vjp
def relu6(x: jax.Array) -> jax.Array:
    """min(max(x, 0), 6), with gradient 0 at 0 and 6.

    The gradient is computed from the result, which the next layer stores anyway. `jnp.clip` would also split the
    gradient at ties.
    """
    return jnp.clip(x, 0, 6)


def _relu6_forward(x):
    y = relu6(x)
    return y, y


def _relu6_backward(y, g):
    return (jnp.where((y > 0) & (y < 6), g, 0),)


relu6.defvjp(_relu6_forward, _relu6_backward)
