"""Vision transformers with the weights of DINOv2 and DINOv3.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, as trained by Oquab et al., "DINOv2", 2023, Darcet et
al., "Vision Transformers Need Registers", ICLR 2024, and Siméoni et al., "DINOv3", 2025, in the layout of transformers
and timm, whose weights `pretrained/names.py` reads.

The map holds the tokens of the patches, after the last norm. The class token, after the same norm, is `Level.token`.
Three things are left out: the mask token, which only the pretraining reads; stochastic depth, as in `convnext.py`; and
the jitter of DINOv3's rotary positions in training.
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models.backbones.base import IMAGENET_MEAN, IMAGENET_STD, Level
from ssanet_jax.models.backbones.layers import layer_norm, linear, patch_conv
from ssanet_jax.models.backbones.positions import apply_rotary, resize_positions, rotary_angles
from ssanet_jax.models.backbones.remat import remat_if
from ssanet_jax.models.initializers import NARROW_NORMAL

Positions = Literal['learned', 'learned, antialiased', 'rotary']

_LAYER_SCALE = 1e-5  # as DINOv2 and DINOv3 begin


class VisionTransformer(nnx.Module):
    """Patches, a class token and registers, blocks of attention and MLP, and a norm. A `Backbone`.

    All blocks have one resolution, so `pyramid` has one level. An incomplete patch at the border is dropped.
    """

    mean, std = IMAGENET_MEAN, IMAGENET_STD
    interpolation = 'bicubic'
    remat = False
    measured_centers = True
    has_class_token = True
    dilated = False

    def __init__(
        self,
        width: int,
        depth: int,
        num_heads: int,
        rngs: nnx.Rngs,
        dtype: jnp.dtype = jnp.float32,
        *,
        patch_size: int = 14,
        positions: Positions = 'learned',
        grid: int = 37,
        num_registers: int = 0,
        hidden: int = 0,
        gated: bool = False,
        epsilon: float = 1e-6,
        output_stride: int = 0,
    ):
        """Builds the network.

        Args:
          width: channels of a token.
          depth: number of blocks.
          num_heads: attention heads of a block.
          rngs: source of the random weights.
          dtype: type of the computation; parameters are float32.
          patch_size: side of a patch, pixels.
          positions: 'learned' positions are added to the tokens, and interpolated to the size of the image, with or
            without antialiasing. 'rotary' ones turn queries and keys (`positions.py`).
          grid: side of the grid of learned positions, patches.
          num_registers: tokens without content, in which a trained network keeps what concerns the whole image.
          hidden: channels of the MLP; 0 is 4 `width`.
          gated: whether the MLP is a SwiGLU.
          epsilon: of the norms.
          output_stride: 0 or `patch_size`; there is no downsampling step to leave out.

        Raises:
          ValueError: another `output_stride`.
        """
        if output_stride not in (0, patch_size):
            raise ValueError(f'output_stride must be {patch_size}, the patch of this transformer; got {output_stride}')
        self.stride = patch_size
        self.num_features, self.pyramid_features = width, (width,)
        self.positions_kind: Positions = positions
        self.grid, self.head_size, self.dtype = grid, width // num_heads, dtype
        token = lambda *shape: nnx.Param(NARROW_NORMAL(rngs.params(), shape))
        self.patch_embed = patch_conv(3, width, patch_size, dtype, rngs)
        self.class_token = token(width)
        self.registers = token(num_registers, width) if num_registers else None
        # The first row is the class token's.
        self.positions = None if positions == 'rotary' else token(1 + grid**2, width)
        key_bias = positions != 'rotary'
        self.blocks = nnx.List(
            [Block(width, num_heads, hidden or 4 * width, gated, key_bias, epsilon, dtype, rngs) for _ in range(depth)]
        )
        self.norm = layer_norm(width, dtype, rngs, epsilon)

    def center(self, image_size: int) -> float:
        """See `Backbone`: the center of the first patch. It has not been measured on trained weights."""
        return self.stride / 2

    def __call__(self, images: jax.Array) -> jax.Array:
        """Normalized float [B, H, W, 3] -> [B, floor(H/stride), floor(W/stride), num_features]."""
        return self.pyramid(images)[-1].map

    def pyramid(self, images: jax.Array) -> list[Level]:
        """Normalized float [B, H, W, 3] -> one level, the map of `__call__`, with the class token."""
        patches = self.patch_embed(images)  # [B, h, w, C]
        batch, height, width, channels = patches.shape
        class_token, angles = self.class_token[...], None
        if self.positions is None:
            angles = rotary_angles(height, width, self.head_size)  # [h * w, D / 2]
        else:
            first, grid = self.positions[0], self.positions[1:].reshape(self.grid, self.grid, channels)
            antialias = self.positions_kind == 'learned, antialiased'
            patches += resize_positions(grid, height, width, antialias).astype(patches.dtype)
            class_token += first
        before = class_token[None] if self.registers is None else jnp.stack([class_token, *self.registers[...]])
        before = jnp.broadcast_to(before.astype(patches.dtype), (batch, *before.shape))  # [B, 1 + R, C]
        x = jnp.concatenate([before, patches.reshape(batch, -1, channels)], 1)  # [B, T, C]
        for block in self.blocks:
            x = remat_if(self.remat, block)(x, angles)
        x = self.norm(x)
        patches = x[:, before.shape[1] :].reshape(batch, height, width, channels)
        return [Level(patches, self.stride, self.center(images.shape[1]), x[:, 0])]

    def layer_index(self, path: Sequence[str | int]) -> int:
        """See `Backbone`: the patches and tokens are layer 0, each block is a layer; the last has the last norm too."""
        if path[0] == 'blocks':
            return 1 + int(path[1])
        return len(self.blocks) if path[0] == 'norm' else 0


class Block(nnx.Module):
    """Attention and MLP, each with a norm before it, a scale per channel behind it, and a shortcut."""

    def __init__(
        self,
        width: int,
        num_heads: int,
        hidden: int,
        gated: bool,
        key_bias: bool,
        epsilon: float,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.norm1, self.norm2 = layer_norm(width, dtype, rngs, epsilon), layer_norm(width, dtype, rngs, epsilon)
        self.attention = SelfAttention(width, num_heads, key_bias, dtype, rngs)
        self.mlp = GatedMLP(width, hidden, dtype, rngs) if gated else MLP(width, hidden, dtype, rngs)
        # Touvron et al., "Going deeper with Image Transformers", ICCV 2021: a new block is close to the identity.
        self.scale1, self.scale2 = (nnx.Param(jnp.full(width, _LAYER_SCALE, jnp.float32)) for _ in range(2))

    def __call__(self, x: jax.Array, angles: jax.Array | None = None) -> jax.Array:
        """[B, T, width] -> the same shape; `angles` of the patches as in `rotary_angles`."""
        x += self.attention(self.norm1(x), angles) * self.scale1[...].astype(x.dtype)
        return x + self.mlp(self.norm2(x)) * self.scale2[...].astype(x.dtype)


class SelfAttention(nnx.Module):
    """Attention of every token to every token (Vaswani et al., NIPS 2017)."""

    def __init__(self, width: int, num_heads: int, key_bias: bool, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.num_heads = num_heads
        self.query, self.value, self.project = (linear(width, width, dtype, rngs) for _ in range(3))
        self.key = linear(width, width, dtype, rngs, use_bias=key_bias)

    def __call__(self, x: jax.Array, angles: jax.Array | None = None) -> jax.Array:
        """[B, T, width] -> the same shape; `angles` of the patches as in `rotary_angles`."""
        heads = lambda x: x.reshape(*x.shape[:2], self.num_heads, -1)  # [B, T, heads, D]
        query, key, value = heads(self.query(x)), heads(self.key(x)), heads(self.value(x))
        if angles is not None:
            query, key = apply_rotary(query, angles), apply_rotary(key, angles)
        read = jax.nn.dot_product_attention(query, key, value, implementation=_attention_kernel(query))
        return self.project(read.reshape(x.shape))


def _attention_kernel(query: jax.Array) -> Literal['cudnn'] | None:
    """The implementation for `jax.nn.dot_product_attention`: cuDNN's on GPUs that have it, for what it supports.

    Args:
      query: `[B, T, heads, D]`. cuDNN takes 16 bits, and D up to 128 in steps of 8.
    """
    if jax.default_backend() != 'gpu' or query.dtype.itemsize != 2 or query.shape[-1] % 8 or query.shape[-1] > 128:
        return None
    return 'cudnn' if 'cuda' in jax.devices()[0].client.platform_version else None


class MLP(nnx.Module):
    """Two linear layers with the exact GELU between them."""

    def __init__(self, width: int, hidden: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.expand, self.project = linear(width, hidden, dtype, rngs), linear(hidden, width, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., width] -> the same shape."""
        return self.project(jax.nn.gelu(self.expand(x), approximate=False))


class GatedMLP(nnx.Module):
    """SwiGLU (Shazeer, "GLU Variants Improve Transformer", 2020)."""

    def __init__(self, width: int, hidden: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.gate, self.expand = linear(width, hidden, dtype, rngs), linear(width, hidden, dtype, rngs)
        self.project = linear(hidden, width, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., width] -> the same shape."""
        return self.project(jax.nn.silu(self.gate(x)) * self.expand(x))
