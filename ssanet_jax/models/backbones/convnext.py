"""ConvNeXt: a modernized ResNet with LayerNorm in place of BatchNorm.

Liu et al., "A ConvNet for the 2020s", CVPR 2022, in the layout of torchvision and timm, whose ImageNet weights
`pretrained/names.py` reads. There are two differences:

* torchvision and timm normalize the pooled feature, as part of the classifier. Here each cell of the map goes through
  that LayerNorm, with its weights, because the heads of SSANet read the map and have no norm of their own.
* There is no stochastic depth. The published rate is small for Tiny (0.1), fine-tuning often omits it, and a training
  step would need a random key.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Level, is_dilated
from ssanet_jax.models.backbones.depthwise import DepthwiseConv
from ssanet_jax.models.backbones.dilation import a_trous
from ssanet_jax.models.backbones.layers import layer_norm, linear, patch_conv
from ssanet_jax.models.backbones.remat import remat_if


class ConvNeXt(nnx.Module):
    """A stem and stages of blocks, without a classifier; the map is halved between stages. A `Backbone`."""

    mean, std = IMAGENET_MEAN, IMAGENET_STD
    interpolation = 'bicubic'
    remat = False
    measured_centers = True
    has_class_token = False

    def __init__(
        self,
        repeats: Sequence[int],
        rngs: nnx.Rngs,
        dtype: jnp.dtype = jnp.float32,
        *,
        widths: Sequence[int] = (96, 192, 384, 768),
        output_stride: int = 0,
    ):
        """Builds the network.

        Args:
          repeats: number of blocks in each of the four stages.
          rngs: source of the random weights.
          dtype: type of the computation; parameters are float32.
          widths: channels of each stage.
          output_stride: 16 makes the last stage dilated instead of strided; 0 is the usual stride, 32.
        """
        self.dilated = is_dilated(output_stride, 32)
        self.stride = 16 if self.dilated else 32
        self.stem, self.stem_norm = patch_conv(3, widths[0], 4, dtype, rngs), layer_norm(widths[0], dtype, rngs)
        steps = (2, 2, 1 if self.dilated else 2)
        self.shrinks = nnx.List(
            [
                Downsample(channels, width, step, dtype, rngs)
                for channels, width, step in zip(widths[:-1], widths[1:], steps, strict=True)
            ]
        )
        self.stages = nnx.List(
            [
                nnx.List([Block(width, dtype, rngs) for _ in range(count)])
                for count, width in zip(repeats, widths, strict=True)
            ]
        )
        self.num_features, self.pyramid_features = widths[-1], tuple(widths)
        self.head_norm = layer_norm(self.num_features, dtype, rngs)

    def center(self, image_size: int) -> float:
        """See `Backbone`: the center of the first 32 x 32 patch, since patches do not overlap.

        The padding of the blocks is symmetric, so a mirrored network would have the same center. This follows from
        the layers; it has not been measured on trained weights.
        """
        return 16.0

    def __call__(self, images: jax.Array) -> jax.Array:
        """Normalized float [B, H, W, 3] -> [B, floor(H/stride), floor(W/stride), num_features]."""
        return self.pyramid(images)[-1].map

    def pyramid(self, images: jax.Array) -> list[Level]:
        """Normalized float [B, H, W, 3] -> the map of each stage, finest first; the last is the map of `__call__`.

        Only the last map is normalized here: each `Downsample` normalizes its own input.
        """
        levels = []
        x = self.stem_norm(self.stem(images))
        for index, stage in enumerate(self.stages):
            if index > 0:
                stride = 2 ** (index + 1)
                levels.append(Level(x, stride, stride / 2))
                x = self.shrinks[index - 1](x)
            blocks = [remat_if(self.remat, block) for block in stage]
            if self.dilated and index == len(self.stages) - 1:
                x = a_trous(blocks, x)
            else:
                for block in blocks:
                    x = block(x)
        return [*levels, Level(self.head_norm(x), self.stride, self.center(images.shape[1]))]

    def layer_index(self, path: Sequence[str | int]) -> int:
        """See `Backbone`. The stem belongs to the first layer, the last norm to the last one."""
        if path[0] == 'head_norm':
            return len(self.stages) - 1
        return int(path[1]) + (path[0] == 'shrinks') if path[0] in ('stages', 'shrinks') else 0


class Block(nnx.Module):
    """Depthwise 7x7 convolution, LayerNorm, and an MLP over the channels; plus the input (Liu et al., Figure 4)."""

    def __init__(self, width: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.depthwise = DepthwiseConv(width, 7, use_bias=True, dtype=dtype, rngs=rngs)
        self.norm = layer_norm(width, dtype, rngs)
        self.expand = linear(width, 4 * width, dtype, rngs)
        self.project = linear(4 * width, width, dtype, rngs)
        # Touvron et al., "Going deeper with Image Transformers", ICCV 2021: a new block is close to the identity.
        self.layer_scale = nnx.Param(jnp.full(width, 1e-6, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, width] -> the same shape."""
        y = jax.nn.gelu(self.expand(self.norm(self.depthwise(x))), approximate=False)
        return x + self.project(y) * self.layer_scale[...].astype(x.dtype)


class Downsample(nnx.Module):
    """LayerNorm, then a 2x2 convolution with stride 2, or with stride 1 where the stage is dilated."""

    def __init__(self, channels: int, width: int, step: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.norm, self.conv = layer_norm(channels, dtype, rngs), patch_conv(channels, width, 2, dtype, rngs)
        if step == 1:
            self.conv.strides, self.conv.padding = (1, 1), ((0, 1), (0, 1))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, channels] -> [B, floor(H/step), floor(W/step), width]."""
        return self.conv(self.norm(x))
