"""The backbones by name.

To add one, see docs/add_a_backbone.md: a module, a table of weight names, an entry in `BACKBONES` and a test.
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models.backbones.base import Backbone
from ssanet_jax.models.backbones.convnext import ConvNeXt
from ssanet_jax.models.backbones.efficientnet_lite import EfficientNetLite
from ssanet_jax.models.backbones.resnet import BasicBlock, Bottleneck, ResNet, TinyResNet
from ssanet_jax.models.backbones.vision_transformer import VisionTransformer

# Size -> width, depth and heads.
_VIT_SIZES = {
    'small': (384, 12, 6),
    'base': (768, 12, 12),
    'large': (1024, 24, 16),
    'giant': (1536, 40, 24),
    'huge_plus': (1280, 32, 20),
}


def _dinov2(size: str, num_registers: int = 0) -> Callable[..., VisionTransformer]:
    gated = dict(gated=True, hidden=4096) if size == 'giant' else {}
    positions = 'learned, antialiased' if num_registers else 'learned'
    return partial(
        VisionTransformer, *_VIT_SIZES[size], patch_size=14, positions=positions, num_registers=num_registers, **gated
    )


def _dinov3(size: str, *, gated: bool = False) -> Callable[..., VisionTransformer]:
    return partial(
        VisionTransformer,
        *_VIT_SIZES[size],
        patch_size=16,
        positions='rotary',
        num_registers=4,
        gated=gated,
        epsilon=1e-5,
    )


# Name -> constructor, called as `constructor(rngs, dtype, output_stride=...)`.
BACKBONES: dict[str, Callable[..., Backbone]] = {
    'resnet18': partial(ResNet, BasicBlock, (2, 2, 2, 2)),
    'resnet34': partial(ResNet, BasicBlock, (3, 4, 6, 3)),
    'resnet50': partial(ResNet, Bottleneck, (3, 4, 6, 3)),
    'resnet101': partial(ResNet, Bottleneck, (3, 4, 23, 3)),
    'resnet152': partial(ResNet, Bottleneck, (3, 8, 36, 3)),
    'resnet_tiny': TinyResNet,
    'efficientnet_lite0': EfficientNetLite,
    'efficientnet_lite1': partial(EfficientNetLite, depth=1.1),
    'efficientnet_lite2': partial(EfficientNetLite, width=1.1, depth=1.2, compensated_steps=4),
    'convnext_tiny': partial(ConvNeXt, (3, 3, 9, 3)),
    'convnext_small': partial(ConvNeXt, (3, 3, 27, 3)),
    'convnext_base': partial(ConvNeXt, (3, 3, 27, 3), widths=(128, 256, 512, 1024)),
    'convnext_large': partial(ConvNeXt, (3, 3, 27, 3), widths=(192, 384, 768, 1536)),
    **{f'vit_{size}_patch14_dinov2': _dinov2(size) for size in ('small', 'base', 'large', 'giant')},
    **{f'vit_{size}_patch14_reg4_dinov2': _dinov2(size, 4) for size in ('small', 'base', 'large', 'giant')},
    **{f'vit_{size}_patch16_dinov3': _dinov3(size) for size in ('small', 'base', 'large')},
    'vit_small_plus_patch16_dinov3': _dinov3('small', gated=True),
    'vit_huge_plus_patch16_dinov3': _dinov3('huge_plus', gated=True),
}


def list_backbones() -> list[str]:
    """The names of the available backbones, sorted."""
    return sorted(BACKBONES)


def build_backbone(name: str, rngs: nnx.Rngs, dtype: jnp.dtype = jnp.float32, output_stride: int = 0) -> Backbone:
    """Builds a backbone with random weights.

    Args:
      name: one of `list_backbones()`.
      rngs: source of the random weights.
      dtype: type of the computation; parameters and BatchNorm statistics are float32.
      output_stride: input pixels per cell of the last map: the backbone's usual stride, half of it (with the same
        weights; the usual stride must then divide the image size), or 0 for the usual one.

    Returns:
      An NNX module; `Backbone` documents its methods and attributes.

    Raises:
      ValueError: the name is unknown, or the backbone does not support that stride.
    """
    if name not in BACKBONES:
        raise ValueError(f'unknown backbone {name!r}: choose one of {", ".join(BACKBONES)}')
    return BACKBONES[name](rngs, dtype, output_stride=output_stride)
