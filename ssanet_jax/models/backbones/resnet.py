"""ResNets.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, in the layout of torchvision and timm, whose
ImageNet weights `pretrained/names.py` reads: the 3x3 convolution of a bottleneck has the stride ("v1.5"), padding is
symmetric, and BatchNorm has torch's defaults.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Level, is_dilated
from ssanet_jax.models.backbones.batch_norm import conv_norm
from ssanet_jax.models.backbones.dilation import a_trous
from ssanet_jax.models.backbones.layers import conv, pointwise
from ssanet_jax.models.backbones.layers import torch_batch_norm as norm
from ssanet_jax.models.backbones.remat import remat_if

# Symmetric padding keeps the first cell centered on the first pixel, at every resolution. EfficientNet-Lite's filters
# learn to undo such an offset from the middle of the cell's pixels. A ResNet can do so only in part: at each step of 2,
# its shortcut is a 1x1 convolution, which reads this very pixel whatever its weights are. On a TinyResNet trained on
# toy_birds, the mirror test (see `Backbone.center`) found no change. No ImageNet weights were at hand: for the larger
# ResNets, this is an assumption.
_CENTER = 0.5


class _Residual(nnx.Module):
    """The shortcut of a residual block: the identity, or a strided 1x1 convolution where the shapes differ."""

    def _build_shortcut(self, channels: int, features: int, stride: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> None:
        self.stride = stride
        self.projects = stride != 1 or channels != features
        if self.projects:
            self.shortcut = pointwise(channels, features, dtype, rngs)
            self.shortcut_norm = norm(features, dtype, rngs)

    def _apply_shortcut(self, x: jax.Array) -> jax.Array:
        if not self.projects:
            return x
        return conv_norm(self.shortcut, self.shortcut_norm, x[:, :: self.stride, :: self.stride])


class BasicBlock(_Residual):
    """Two 3x3 convolutions and a shortcut (He et al., Figure 5, left).

    `dilated`: the block has stride 1 where it was trained with 2, so its second convolution is dilated.
    """

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int, dtype: jnp.dtype, rngs: nnx.Rngs, dilated: bool = False):
        self.dilated = dilated
        self.conv1, self.norm1 = conv(channels, width, 3, stride, dtype, rngs), norm(width, dtype, rngs)
        self.conv2, self.norm2 = conv(width, width, 3, 1, dtype, rngs), norm(width, dtype, rngs)
        self._build_shortcut(channels, width, stride, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, channels] -> [B, ceil(H/stride), ceil(W/stride), width]."""
        y = jax.nn.relu(conv_norm(self.conv1, self.norm1, x))
        second = lambda y: conv_norm(self.conv2, self.norm2, y)
        y = a_trous([second], y) if self.dilated else second(y)
        return jax.nn.relu(y + self._apply_shortcut(x))


class Bottleneck(_Residual):
    """1x1 down to `width`, 3x3, 1x1 up to 4 `width`, and a shortcut (He et al., Figure 5, right).

    `dilated` has no effect: the convolutions behind the 3x3, which has the stride, are 1x1.
    """

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int, dtype: jnp.dtype, rngs: nnx.Rngs, dilated: bool = False):
        features = width * self.expansion
        self.conv1, self.norm1 = pointwise(channels, width, dtype, rngs), norm(width, dtype, rngs)
        self.conv2, self.norm2 = conv(width, width, 3, stride, dtype, rngs), norm(width, dtype, rngs)
        self.conv3, self.norm3 = pointwise(width, features, dtype, rngs), norm(features, dtype, rngs)
        self._build_shortcut(channels, features, stride, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, channels] -> [B, ceil(H/stride), ceil(W/stride), 4 width]."""
        y = jax.nn.relu(conv_norm(self.conv1, self.norm1, x))
        y = jax.nn.relu(conv_norm(self.conv2, self.norm2, y))
        return jax.nn.relu(conv_norm(self.conv3, self.norm3, y) + self._apply_shortcut(x))


class ResNet(nnx.Module):
    """A stem and stages of residual blocks, without a classifier. A `Backbone`."""

    mean, std = IMAGENET_MEAN, IMAGENET_STD
    interpolation = 'bilinear'
    remat = False
    measured_centers = True
    has_class_token = False

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
          repeats: number of blocks in each stage.
          rngs: source of the random weights.
          dtype: type of the computation; parameters are float32.
          widths: width of each stage, before the block's expansion; the stem has the first one.
          strides: stride of each stage's first block.
          stem_size: filter size of the first convolution, whose stride is 2.
          pool: whether a 3x3 max-pooling of stride 2 follows the stem.
          output_stride: half of the usual stride makes the last stage dilated instead of strided; 0 is the usual one.
        """
        usual_strides = strides
        # `dilated` is the backbone's; a subclass may halve its stride without dilating a stage.
        self.dilated = self.last_stage_dilated = is_dilated(output_stride, (4 if pool else 2) * math.prod(strides))
        if self.last_stage_dilated:
            strides = (*strides[:-1], 1)
        self.stem = conv(3, widths[0], stem_size, 2, dtype, rngs)
        self.stem_norm = norm(widths[0], dtype, rngs)
        self.pool = pool
        self.stride = 4 if pool else 2
        last = len(widths) - 1
        stages, channels, levels = [], widths[0], {}
        for number, (count, width, stride) in enumerate(zip(repeats, widths, strides, strict=True)):
            stage = []
            for index in range(count):
                first = index == 0
                dilated = self.last_stage_dilated and number == last and first
                stage.append(block(channels, width, stride if first else 1, dtype, rngs, dilated))
                channels = width * block.expansion
            stages.append(nnx.List(stage))
            self.stride *= stride
            # A dilated stage still ends a level, though it does not downsample.
            if number == last or usual_strides[number + 1] > 1:
                levels[number] = (self.stride, channels)
        self.stages = nnx.List(stages)
        self.num_features = channels
        self.level_stages = tuple(levels)  # indices of the stages whose results are levels of the pyramid
        self.level_strides, self.pyramid_features = zip(*levels.values())

    def center(self, image_size: int) -> float:
        """See `Backbone`: symmetric padding keeps the first cell on the first pixel."""
        return _CENTER

    def __call__(self, images: jax.Array) -> jax.Array:
        """Normalized float [B, H, W, 3] -> [B, ceil(H/stride), ceil(W/stride), num_features]."""
        return self.pyramid(images)[-1].map

    def pyramid(self, images: jax.Array) -> list[Level]:
        """Normalized float [B, H, W, 3] -> the levels, finest first; the last is the map of `__call__`.

        Of stages with the same resolution, the last one is the level. The stem's own map is not a level.
        """
        levels = []
        x = jax.nn.relu(conv_norm(self.stem, self.stem_norm, images))
        if self.pool:
            # Flax's annotation of `padding` leaves out tuples.
            x = nnx.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))  # pyright: ignore[reportArgumentType]
        for index, stage in enumerate(self.stages):
            dilated = self.last_stage_dilated and index == len(self.stages) - 1
            blocks = [remat_if(self.remat, block) for block in stage]
            undilated = 1 if dilated else len(blocks)  # the first block of a dilated stage handles its own dilation
            for block in blocks[:undilated]:
                x = block(x)
            if undilated < len(blocks):
                x = a_trous(blocks[undilated:], x)
            if index in self.level_stages:
                levels.append(Level(x, self.level_strides[len(levels)], _CENTER))
        return levels

    def layer_index(self, path: Sequence[str | int]) -> int:
        """See `Backbone`. The stem belongs to the first layer."""
        return sum(last < int(path[1]) for last in self.level_stages) if path[0] == 'stages' else 0


class TinyResNet(ResNet):
    """A ResNet of basic blocks that trains on a CPU in minutes: 3x3 stem, no max-pooling.

    The last map is averaged over 2x2 cells. A cell has stride 8, but its receptive field is 27 pixels: the backbone
    alone cannot recognize the whole object.
    """

    mean, std = (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)

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
        """As in `ResNet`; `output_stride=4` averages at every cell. With the defaults, the map has 48 channels."""
        super().__init__(BasicBlock, repeats, rngs, dtype, widths=widths, strides=strides, stem_size=3, pool=False)
        self.unpooled_stride = self.stride
        self.dilated = is_dilated(output_stride, 2 * self.unpooled_stride)
        self.pool_stride = 1 if self.dilated else 2
        self.stride *= self.pool_stride
        self.pyramid_features = (*self.pyramid_features, self.num_features)

    def center(self, image_size: int) -> float:
        """See `Backbone`: the first cell lies between the first two cells that are averaged."""
        return super().center(image_size) + self.unpooled_stride / 2

    def pyramid(self, images: jax.Array) -> list[Level]:
        """Normalized float [B, H, W, 3] -> the stages' maps, and the last one averaged: [B, H/stride, W/stride, 48]."""
        levels = super().pyramid(images)
        x = levels[-1].map
        padding = 'VALID' if self.pool_stride == 2 else 'SAME'
        mean = nnx.avg_pool(x, (2, 2), (self.pool_stride,) * 2, padding, count_include_pad=False)
        mean = mean.astype(x.dtype)  # `count_include_pad=False` divides in float32
        return [*levels, Level(mean, self.stride, self.center(images.shape[1]))]
