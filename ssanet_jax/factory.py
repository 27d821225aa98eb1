"""Networks by the name of their backbone."""

from typing import Any

from ml_collections import ConfigDict

from ssanet_jax.models.ssanet import SSANet
from ssanet_jax.runs.run import build_model


def create_model(
    backbone: str,
    num_classes: int,
    *,
    pretrained: str = 'none',
    image_size: int = 448,
    seed: int = 0,
    **settings: Any,
) -> SSANet:
    """Builds SSANet, a Flax NNX module `images uint8 [B, image_size, image_size, 3] -> Outputs`.

    Args:
      backbone: one of `ssanet_jax.list_backbones()`.
      num_classes: N.
      pretrained: weights of the backbone: a `.pth`, `.pt` or `.safetensors` file, 'package:NAME',
        'hub:OWNER/NAME' (such as 'hub:timm/resnet50.tv_in1k'), the work directory of a run, or 'none'.
      image_size: side of the input, pixels.
      seed: draws the random weights.
      **settings: any other argument of `SSANet`, such as `num_parts`, `sharing`, or `mean` and `std`.

    Raises:
      UserError: settings that are unknown or do not fit together, or weights that cannot be read.
    """
    # `build_model` reads the normalization from the data section of a configuration.
    data = {name: settings.pop(name) for name in ('mean', 'std') if name in settings}
    model = dict(settings, backbone=backbone, pretrained=pretrained)
    config = ConfigDict(dict(seed=seed, data=dict(image_size=image_size, **data), model=model))
    return build_model(config, num_classes)
