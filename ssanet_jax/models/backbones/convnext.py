"""ConvNeXt: a ResNet modernised step by step, without BatchNorm.

Liu et al., "A ConvNet for the 2020s", CVPR 2022, in the layout of torchvision and timm, whose ImageNet
weights `pretrained/names.py` reads. Two things differ from them:

* They normalise the pooled feature, as part of the classifier. The heads here take the map itself, and
  have no norm of their own, so each of its cells goes through that LayerNorm, with its weights.
* No block is left out at random in training (stochastic depth): the published rate is small for Tiny (0.1),
  fine-tuning often goes without, and a step would need a random key.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models.backbones.base import Level, is_dilated
from ssanet_jax.models.backbones.depthwise import DepthwiseConv
from ssanet_jax.models.backbones.dilation import a_trous
from ssanet_jax.models.backbones.rematerialisation import rematerialised
from ssanet_jax.models.backbones.resnet import IMAGENET_MEAN, IMAGENET_STD


class ConvNeXt(nnx.Module):
    """A stem and stages of blocks, without classifier; between two stages the map shrinks by half.

    Attributes:
      num_features, stride: channels and pixel step of the map.
      pyramid_features: channels of each level of `pyramid`.
      mean, std: per channel, in 0..255; the weights expect (pixel - mean) / std.
      interpolation: with which the images that the paper's weights learned from were resized.
      remat: compute the blocks again in the backward pass instead of keeping what they did.
    """

    mean, std = IMAGENET_MEAN, IMAGENET_STD
    interpolation = 'bicubic'
    remat = False

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
          repeats: blocks in each of the four stages.
          rngs: source of the random weights.
          dtype: of the computation; parameters are float32.
          widths: channels of each stage.
          output_stride: 16: the last step of 2 is not taken, and the filters behind it reach twice as far.
        """
        self.dilated = is_dilated(output_stride, 32)
        self.stride = 16 if self.dilated else 32
        self.stem, self.stem_norm = patches(3, widths[0], 4, dtype, rngs), norm(widths[0], dtype, rngs)
        steps = (2, 2, 1 if self.dilated else 2)
        self.shrinks = nnx.List(
            [Shrink(*pair, step, dtype, rngs) for *pair, step in zip(widths[:-1], widths[1:], steps, strict=True)]
        )
        self.stages = nnx.List(
            [
                nnx.List([Block(width, dtype, rngs) for _ in range(count)])
                for count, width in zip(repeats, widths, strict=True)
            ]
        )
        self.num_features, self.pyramid_features = widths[-1], tuple(widths)
        self.head_norm = norm(self.num_features, dtype, rngs)

    def centre(self, image_size: int) -> float:
        """The pixel over which the first cell of the map is centred: patches side by side do not move."""
        return 16.0

    def __call__(self, images: jax.Array) -> jax.Array:
        """[B, H, W, 3] normalised, float -> [B, floor(H/stride), floor(W/stride), features]."""
        return self.pyramid(images)[-1].map

    def pyramid(self, images: jax.Array) -> list[Level]:
        """[B, H, W, 3] normalised, float -> what each stage makes of it, finest first; the last is the map.

        Only the last one is normalised: the others are what the next step of 2 begins with.
        """
        levels = []
        x = self.stem_norm(self.stem(images))
        for index, stage in enumerate(self.stages):
            if index > 0:
                stride = 2 ** (index + 1)
                levels.append(Level(x, stride, stride / 2))
                x = self.shrinks[index - 1](x)
            blocks = [rematerialised(block, self.remat) for block in stage]
            if self.dilated and index == len(self.stages) - 1:
                x = a_trous(blocks, x)
            else:
                for block in blocks:
                    x = block(x)
        return [*levels, Level(self.head_norm(x), self.stride, self.centre(images.shape[1]))]


class Block(nnx.Module):
    """Filter each channel, normalise, mix the channels of each cell; add the input (Liu et al., Figure 4)."""

    def __init__(self, width: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.depthwise = DepthwiseConv(width, 7, use_bias=True, dtype=dtype, rngs=rngs)
        self.norm = norm(width, dtype, rngs)
        self.expand = dense(width, 4 * width, dtype, rngs)
        self.project = dense(4 * width, width, dtype, rngs)
        # Touvron et al., "Going deeper with Image Transformers", ICCV 2021: a new block hardly does anything.
        self.layer_scale = nnx.Param(jnp.full(width, 1e-6, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, width] -> the same shape."""
        y = jax.nn.gelu(self.expand(self.norm(self.depthwise(x))), approximate=False)
        return x + self.project(y) * self.layer_scale[...].astype(x.dtype)


class Shrink(nnx.Module):
    """Normalises, then takes patches of 2 x 2: side by side, or at every cell with `step` 1."""

    def __init__(self, channels: int, width: int, step: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.norm, self.conv = norm(channels, dtype, rngs), patches(channels, width, 2, dtype, rngs)
        if step == 1:
            self.conv.strides, self.conv.padding = (1, 1), ((0, 1), (0, 1))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[B, H, W, channels] -> [B, floor(H/step), floor(W/step), width]."""
        return self.conv(self.norm(x))


_INIT = nnx.initializers.truncated_normal(0.02)


def patches(channels: int, features: int, size: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Conv:
    """A convolution whose windows lie side by side; what is left over at the border is dropped."""
    return nnx.Conv(channels, features, (size, size), size, padding='VALID', dtype=dtype, kernel_init=_INIT, rngs=rngs)


def dense(channels: int, features: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.Linear:
    """A linear layer over the channels of each cell."""
    return nnx.Linear(channels, features, dtype=dtype, kernel_init=_INIT, rngs=rngs)


def norm(features: int, dtype: jnp.dtype, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm over the channels of each cell, with the exact variance: the paper's epsilon is a small 1e-6."""
    return nnx.LayerNorm(features, epsilon=1e-6, use_fast_variance=False, dtype=dtype, rngs=rngs)
