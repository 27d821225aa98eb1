"""ResNets: images -> the last stage's feature map.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, in the layout of torchvision
and timm, whose ImageNet weights `pretrained/names.py` reads: the stride sits in the bottleneck's 3x3 ("v1.5"),
padding is symmetric, BatchNorm has torch's numbers.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models.backbones.base import Level, is_dilated
from ssanet_jax.models.backbones.batch_norm import BatchNorm, conv_norm
from ssanet_jax.models.backbones.dilation import a_trous
from ssanet_jax.models.backbones.rematerialisation import rematerialised

IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)

_CENTRE = 0.5  # of the first cell: symmetric padding keeps it on the first pixel, at every resolution
_HE = nnx.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def conv(channels: int, features: int, size: int, stride: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Conv:
    """A size x size convolution without bias, padded by size // 2 on every side."""
    pad = (size // 2, size // 2)
    return nnx.Conv(
        channels,
        features,
        (size, size),
        stride,
        padding=(pad, pad),
        use_bias=False,
        dtype=dtype,
        kernel_init=_HE,
        rngs=rngs,
    )


def pointwise(channels: int, features: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Linear:
    """A 1x1 convolution without bias, as the matrix product that it is: quicker on CPU, forward and backward."""
    return nnx.Linear(channels, features, use_bias=False, dtype=dtype, kernel_init=_HE, rngs=rngs)


def norm(features: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> BatchNorm:
    """BatchNorm with torch's numbers: epsilon 1e-5 and momentum 0.1, which is 0.9 counted from the other end."""
    return BatchNorm(features, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs)


class _Shortcut(nnx.Module):
    """Adds a block's input to its output, through a 1x1 convolution where the shapes differ."""

    def _build_shortcut(self, channels: int, features: int, stride: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.stride = stride
        self.projects = stride != 1 or channels != features
        if self.projects:
            self.shortcut = pointwise(channels, features, dtype, rngs)
            self.shortcut_norm = norm(features, dtype, rngs)

    def _skip(self, x: jax.Array) -> jax.Array:
        return (
            conv_norm(self.shortcut, self.shortcut_norm, x[:, :: self.stride, :: self.stride]) if self.projects else x
        )


class BasicBlock(_Shortcut):
    """Two 3x3 convolutions and the shortcut (He et al., Figure 5, left).

    `dilate`: the first one no longer steps, so the second one reaches twice as far.
    """

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int, dtype: jnp.dtype, rngs: nnx.Rngs, dilate: bool = False):
        self.dilate = dilate
        self.conv1, self.norm1 = conv(channels, width, 3, stride, dtype, rngs), norm(width, dtype, rngs)
        self.conv2, self.norm2 = conv(width, width, 3, 1, dtype, rngs), norm(width, dtype, rngs)
        self._build_shortcut(channels, width, stride, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, channels] -> [B, ceil(H/stride), ceil(W/stride), width]."""
        y = jax.nn.relu(conv_norm(self.conv1, self.norm1, x))
        second = lambda y: conv_norm(self.conv2, self.norm2, y)
        y = a_trous([second], y) if self.dilate else second(y)
        return jax.nn.relu(y + self._skip(x))


class Bottleneck(_Shortcut):
    """1x1 down to `width`, 3x3, 1x1 up to 4 `width`, and the shortcut (He et al., Figure 5, right).

    `dilate` changes nothing: behind the convolution that no longer steps, none in the block has neighbours.
    """

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int, dtype: jnp.dtype, rngs: nnx.Rngs, dilate: bool = False):
        features = width * self.expansion
        self.conv1, self.norm1 = pointwise(channels, width, dtype, rngs), norm(width, dtype, rngs)
        self.conv2, self.norm2 = conv(width, width, 3, stride, dtype, rngs), norm(width, dtype, rngs)
        self.conv3, self.norm3 = pointwise(width, features, dtype, rngs), norm(features, dtype, rngs)
        self._build_shortcut(channels, features, stride, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, channels] -> [B, ceil(H/stride), ceil(W/stride), 4 width]."""
        y = jax.nn.relu(conv_norm(self.conv1, self.norm1, x))
        y = jax.nn.relu(conv_norm(self.conv2, self.norm2, y))
        return jax.nn.relu(conv_norm(self.conv3, self.norm3, y) + self._skip(x))


class ResNet(nnx.Module):
    """A stem and stages of residual blocks, without classifier.

    Attributes:
      num_features, stride: channels and pixel step of the map.
      dilated: whether that is half of the usual stride.
      pyramid_features: channels of each level of `pyramid`.
      mean, std: per channel, in 0..255; the weights expect (pixel - mean) / std.
      interpolation: with which the images that the weights learned from were resized.
      remat: compute the blocks again in the backward pass instead of keeping what they did.
    """

    mean, std = IMAGENET_MEAN, IMAGENET_STD
    interpolation = 'bilinear'
    remat = False

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        repeats: Sequence[int],
        rngs: nnx.Rngs,
        dtype: jnp.dtype = jnp.float32,
        *,
        widths: Sequence[int] = (64, 128, 256, 512),
        strides: Sequence[int] = (1, 2, 2, 2),
        stem_size: int = 7,
        pool: bool = True,
        output_stride: int = 0,
    ):
        """Builds the network.

        Args:
          block: the kind of residual block.
          repeats: blocks in each stage.
          rngs: source of the random weights.
          dtype: of the computation; parameters are float32.
          widths: of each stage, before the block's expansion; the stem has the first one.
          strides: of each stage's first block.
          stem_size: filter size of the first convolution, whose stride is 2.
          pool: whether a 3x3 max-pool of stride 2 follows the stem.
          output_stride: half of the usual stride: the last stage does not step, and its filters reach twice as far.
        """
        steps = strides[1:]  # between one stage and the next; a dilated one still ends a level
        self.dilated = is_dilated(output_stride, (4 if pool else 2) * math.prod(strides))
        if self.dilated:
            strides = (*strides[:-1], 1)
        self.stem = conv(3, widths[0], stem_size, 2, dtype, rngs)
        self.stem_norm = norm(widths[0], dtype, rngs)
        self.pool = pool
        self.stride = 4 if pool else 2
        stages, channels, levels = [], widths[0], {}
        for number, (count, width, stride) in enumerate(zip(repeats, widths, strides, strict=True)):
            last = number == len(widths) - 1
            stage = []
            for index in range(count):
                first = index == 0
                stage.append(
                    block(channels, width, stride if first else 1, dtype, rngs, self.dilated and last and first)
                )
                channels = width * block.expansion
            stages.append(nnx.List(stage))
            self.stride *= stride
            if last or steps[number] > 1:
                levels[number] = (self.stride, channels)
        self.stages = nnx.List(stages)
        self.num_features = channels
        self.ends = tuple(levels)  # the stages after which the map steps, and the last one
        self.level_strides, self.pyramid_features = zip(*levels.values())

    def centre(self, image_size: int) -> float:
        """The pixel over which the first cell of the map is centred: symmetric padding keeps it on the first one."""
        return _CENTRE

    def __call__(self, images: jax.Array) -> jax.Array:
        """[B, H, W, 3] normalised, float -> [B, ceil(H/stride), ceil(W/stride), features]."""
        return self.pyramid(images)[-1].map

    def pyramid(self, images: jax.Array) -> list[Level]:
        """[B, H, W, 3] normalised, float -> what each stage makes of it, finest first; the last is the map.

        Of stages with the same resolution only the last counts, and the stem's own map is too wide for any use.
        """
        levels = []
        x = jax.nn.relu(conv_norm(self.stem, self.stem_norm, images))
        if self.pool:
            x = nnx.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for index, stage in enumerate(self.stages):
            apart = 1 if self.dilated and index == len(self.stages) - 1 else len(stage)
            blocks = [rematerialised(block, self.remat) for block in stage]
            for block in blocks[:apart]:
                x = block(x)
            if apart < len(stage):
                x = a_trous(blocks[apart:], x)
            if index in self.ends:
                levels.append(Level(x, self.level_strides[len(levels)], _CENTRE))
        return levels


class TinyResNet(ResNet):
    """A ResNet of basic blocks small enough to train on a CPU in minutes: 3x3 stem, no max-pool.

    The map is averaged 2x2 at the end. A cell then has stride 8 and yet sees no more than 27 pixels, so that what
    an image shows as a whole is for the later modules to find out.
    """

    mean, std = (127.5,) * 3, (127.5,) * 3

    def __init__(
        self,
        rngs: nnx.Rngs,
        dtype: jnp.dtype = jnp.float32,
        *,
        widths: Sequence[int] = (16, 48),
        repeats: Sequence[int] = (1, 1),
        strides: Sequence[int] = (1, 2),
        output_stride: int = 0,
    ):
        """As in `ResNet`; with the defaults the map has 48 channels. `output_stride=4` lets the average overlap."""
        super().__init__(BasicBlock, repeats, rngs, dtype, widths=widths, strides=strides, stem_size=3, pool=False)
        self.cells = self.stride
        self.dilated = is_dilated(output_stride, 2 * self.cells)
        self.step = 1 if self.dilated else 2
        self.stride *= self.step
        self.pyramid_features = (*self.pyramid_features, self.num_features)

    def centre(self, image_size: int) -> float:
        """As in `ResNet`, and in the middle of the first two cells that are averaged."""
        return super().centre(image_size) + self.cells / 2

    def pyramid(self, images: jax.Array) -> list[Level]:
        """[B, H, W, 3] normalised, float -> the stages' maps, and their last averaged: [B, H/stride, W/stride, 48]."""
        levels = super().pyramid(images)
        x = levels[-1].map
        padding = 'VALID' if self.step == 2 else 'SAME'
        mean = nnx.avg_pool(x, (2, 2), (self.step,) * 2, padding, count_include_pad=False)
        mean = mean.astype(x.dtype)  # which counting turned into float32
        return [*levels, Level(mean, self.stride, self.centre(images.shape[1]))]
