"""The backbones by name. Each maps normalised images to a feature map and says how to prepare them.

A new one is a file, a table of names, a line here and a test: docs/add_a_backbone.md.
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models.backbones.convnext import ConvNeXt
from ssanet_jax.models.backbones.efficientnet_lite import EfficientNetLite
from ssanet_jax.models.backbones.resnet import BasicBlock, Bottleneck, ResNet, TinyResNet

BACKBONES: dict[str, Callable[..., nnx.Module]] = {
    'resnet18': partial(ResNet, BasicBlock, (2, 2, 2, 2)),
    'resnet34': partial(ResNet, BasicBlock, (3, 4, 6, 3)),
    'resnet50': partial(ResNet, Bottleneck, (3, 4, 6, 3)),
    'resnet101': partial(ResNet, Bottleneck, (3, 4, 23, 3)),
    'resnet152': partial(ResNet, Bottleneck, (3, 8, 36, 3)),
    'resnet_tiny': TinyResNet,
    'efficientnet_lite0': EfficientNetLite,
    'efficientnet_lite1': partial(EfficientNetLite, depth=1.1),
    'efficientnet_lite2': partial(EfficientNetLite, width=1.1, depth=1.2),
    'convnext_tiny': partial(ConvNeXt, (3, 3, 9, 3)),
    'convnext_small': partial(ConvNeXt, (3, 3, 27, 3)),
}


def build_backbone(name: str, rngs: nnx.Rngs, dtype: jnp.dtype = jnp.float32, output_stride: int = 0) -> nnx.Module:
    """Builds a backbone with random weights.

    Args:
      name: a key of `BACKBONES`.
      rngs: source of the random weights.
      dtype: of the computation; parameters and BatchNorm statistics are float32.
      output_stride: pixels per cell of the map: the backbone's own stride or half of it, with the same weights (images
        must then have a size that its own stride divides); 0 is its own.

    Returns:
      A module `[B, H, W, 3] -> [B, H/stride, W/stride, features]` with the attributes
      `num_features` (channels of the map), `stride` (pixels), `dilated` (whether that is half of its own), `centre(image_size)` (the pixel over which the map's first
      cell is centred), `mean` and `std` (three numbers each, in 0..255: the input is (pixel - mean) / std) and
      `interpolation` ('bilinear' or 'bicubic': how the images that its public weights learned from were resized).
      `pyramid(images)` gives the maps of every resolution, finest first, as `feature_pyramid.Level`: the last map
      before each step of 2, and at the end the map itself; `pyramid_features` are their channels. Dilated, the
      last two levels have the same stride. `remat` (False) may be set to True: the backward pass then computes the
      blocks again, which keeps less (`rematerialisation.py`). Switch BatchNorm with `.train()` and `.eval()`; not every
      family has one.

    Raises:
      ValueError: there is no backbone of that name, or it cannot have that stride.
    """
    if name not in BACKBONES:
        raise ValueError(f"there is no backbone '{name}'; choose one of {', '.join(BACKBONES)}")
    return BACKBONES[name](rngs, dtype, output_stride=output_stride)
