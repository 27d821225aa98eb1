"""The backbones by name. Each maps normalised images to a feature map and says how to normalise them."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models.efficientnet_lite import EfficientNetLite0
from ssanet_jax.models.resnet import BasicBlock, Bottleneck, ResNet, TinyResNet

BACKBONES: dict[str, Callable[[nnx.Rngs, jnp.dtype], nnx.Module]] = {
    'resnet18': lambda rngs, dtype: ResNet(BasicBlock, (2, 2, 2, 2), rngs, dtype),
    'resnet34': lambda rngs, dtype: ResNet(BasicBlock, (3, 4, 6, 3), rngs, dtype),
    'resnet50': lambda rngs, dtype: ResNet(Bottleneck, (3, 4, 6, 3), rngs, dtype),
    'resnet101': lambda rngs, dtype: ResNet(Bottleneck, (3, 4, 23, 3), rngs, dtype),
    'resnet_tiny': TinyResNet,
    'efficientnet_lite0': EfficientNetLite0,
}


def build_backbone(name: str, rngs: nnx.Rngs, dtype: jnp.dtype = jnp.float32) -> nnx.Module:
    """Builds a backbone with random weights.

    Args:
      name: a key of `BACKBONES`.
      rngs: source of the random weights.
      dtype: of the computation; parameters and BatchNorm statistics are float32.

    Returns:
      A module `[B, H, W, 3] -> [B, H/stride, W/stride, features]` with the attributes
      `features` (channels of the map), `stride` (pixels), and `mean` and `std` (three numbers each, in
      0..255: the input is (pixel - mean) / std). Switch BatchNorm with `.train()` and `.eval()`.

    Raises:
      ValueError: there is no backbone of that name.
    """
    if name not in BACKBONES:
        raise ValueError(f"there is no backbone '{name}'; choose one of {', '.join(BACKBONES)}")
    return BACKBONES[name](rngs, dtype)
