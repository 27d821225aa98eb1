"""ResNet-50 and EfficientNet-Lite0 in PyTorch with random weights, as references for timing."""

import itertools

import jax
import torch
from torch import nn
from torch.nn.functional import pad
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ssanet_jax.models.backbones.efficientnet_lite import STAGES


def device() -> torch.device:
    """The PyTorch device that corresponds to JAX's default backend."""
    return torch.device('cuda' if jax.default_backend() == 'gpu' else 'cpu')


def wait() -> None:
    """Blocks until the device has finished its work."""
    if device().type == 'cuda':
        torch.cuda.synchronize()


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut; the 3x3 has the stride."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            *_conv(channels, width, 1),
            nn.ReLU(True),
            *_conv(width, width, 3, stride),
            nn.ReLU(True),
            *_conv(width, 4 * width, 1),
        )
        fits = stride == 1 and channels == 4 * width
        self.shortcut = nn.Identity() if fits else nn.Sequential(*_conv(channels, 4 * width, 1, stride))

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet50() -> nn.Module:
    """Images -> the last map, [B, 3, H, W] -> [B, 2048, H / 32, W / 32]."""
    layers = [*_conv(3, 64, 7, 2), nn.ReLU(True), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for count, width, stride in ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2)):
        for index in range(count):
            layers.append(Bottleneck(channels, width, stride if index == 0 else 1))
            channels = 4 * width
    return nn.Sequential(*layers)


def fold_norms(network: nn.Module) -> None:
    """Folds every BatchNorm that follows a convolution in an `nn.Sequential` into its filters, for prediction.

    Args:
      network: a network in eval mode; modified in place.
    """
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            for index, (conv, norm) in enumerate(itertools.pairwise(list(module))):
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module[index], module[index + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution with TensorFlow's padding, projection."""

    def __init__(self, channels: int, features: int, size: int, stride: int, expansion: int):
        super().__init__()
        wide = channels * expansion
        self.skip, self.size, self.stride = stride == 1 and channels == features, size, stride
        self.expand = nn.Sequential(*_conv(channels, wide, 1, eps=1e-3), nn.ReLU6(True)) if expansion != 1 else None
        self.depthwise = nn.Conv2d(wide, wide, size, stride, 0, groups=wide, bias=False)
        self.rest = nn.Sequential(nn.BatchNorm2d(wide, 1e-3), nn.ReLU6(True), *_conv(wide, features, 1, eps=1e-3))

    def forward(self, x):
        y = self.expand(x) if self.expand is not None else x
        y = self.rest(self.depthwise(_same(y, self.size, self.stride)))
        return x + y if self.skip else y


class _Stem(nn.Conv2d):
    def forward(self, x):
        return super().forward(_same(x, 3, 2))


def efficientnet_lite0() -> nn.Module:
    """Images -> the last map, [B, 3, H, W] -> [B, 1280, H / 32, W / 32]."""
    layers = [_Stem(3, 32, 3, 2, bias=False), nn.BatchNorm2d(32, 1e-3), nn.ReLU6(True)]
    channels = 32
    for repeats, size, stride, expansion, features in STAGES:
        for index in range(repeats):
            layers.append(InvertedResidual(channels, features, size, stride if index == 0 else 1, expansion))
            channels = features
    return nn.Sequential(*layers, *_conv(channels, 1280, 1, eps=1e-3), nn.ReLU6(True))


def _conv(channels: int, features: int, size: int, stride: int = 1, eps: float = 1e-5) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(channels, features, size, stride, size // 2, bias=False), nn.BatchNorm2d(features, eps)


def _same(x, size, stride):
    total = max((-(-x.shape[2] // stride) - 1) * stride + size - x.shape[2], 0)
    return pad(x, (total // 2, total - total // 2) * 2)
