"""NTS-Net's prediction in PyTorch with random weights, as the reference for timing."""

import os
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import interpolate

from benchmarks.torch_backbones import device, fold_norms, resnet50, wait

PROPOSALS = 6  # NTS-Net passes all of them through the backbone and classifies with the first four
PARTS = 4
_TRIES = 3  # calls for each number of threads; the median counts
# Plausible boxes of the three anchor sizes: (y0, x0, y1, x1) as fractions of the side.
BOXES = (
    (0.05, 0.10, 0.48, 0.53),
    (0.30, 0.32, 0.98, 1.00),
    (0.42, 0.05, 0.69, 0.32),
    (0.10, 0.60, 0.37, 0.87),
    (0.55, 0.20, 0.98, 0.63),
    (0.20, 0.40, 0.33, 0.53),
)


class NTSNet(nn.Module):
    """The expensive parts of NTS-Net (Yang et al., ECCV 2018), with fixed boxes in place of the proposal network.

    The image and, in a second batch, six crops of it pass through one ResNet-50; a linear classifier takes the
    concatenated averages of the image and of four crops.

    Args:
      size: side of the images, pixels.
      num_classes: N.
    """

    def __init__(self, size: int, num_classes: int):
        super().__init__()
        self.backbone = resnet50()
        self.classifier = nn.Linear((1 + PARTS) * 2048, num_classes)
        self.crop = size // 2  # 224 for 448
        self.boxes = [tuple(round(share * size) for share in box) for box in BOXES]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalized images `[B, 3, size, size]` -> logits `[B, N]`."""
        whole = self.backbone(images).mean((2, 3))  # [B, C]
        crops = [
            interpolate(images[:, :, y0:y1, x0:x1], (self.crop, self.crop), mode='bilinear', align_corners=True)
            for y0, x0, y1, x1 in self.boxes
        ]
        crops = torch.stack(crops, 1).flatten(0, 1)  # [B * 6, 3, crop, crop]
        crops = crops.contiguous(memory_format=torch.channels_last)
        parts = self.backbone(crops).mean((2, 3)).unflatten(0, (-1, PROPOSALS))  # [B, 6, C]
        return self.classifier(torch.cat([whole, parts[:, :PARTS].flatten(1)], 1))


def make_call(size: int, num_classes: int, batch: int, *, compiled: bool) -> Callable[[], object]:
    """A function that calls NTS-Net on random images: BatchNorm folded, channels last, on the device of JAX.

    On a GPU float32 products use TF32, as in JAX by default, and cuDNN selects its fastest kernels.

    Args:
      size: side of the images, pixels.
      num_classes: N.
      batch: images per call.
      compiled: use `torch.compile`, which needs a C++ compiler on a CPU.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    network = NTSNet(size, num_classes).eval()
    fold_norms(network)
    network = network.to(device(), memory_format=torch.channels_last)
    images = torch.randn(batch, 3, size, size, device=device()).to(memory_format=torch.channels_last)
    if compiled:
        network = torch.compile(network)

    def call():
        with torch.inference_mode():
            logits = network(images)
        wait()
        return logits

    return call


def set_best_threads(call: Callable[[], object]) -> int:
    """Sets the fastest number of threads for a call: half of the cores, all of them or PyTorch's default."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    seconds = {}
    for threads in sorted({max(cores // 2, 1), cores, torch.get_num_threads()}):
        torch.set_num_threads(threads)
        call()
        seconds[threads] = statistics.median(_time(call) for _ in range(_TRIES))
    best = min(seconds, key=seconds.get)
    torch.set_num_threads(best)
    return best


def _time(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
