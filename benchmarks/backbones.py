"""The speed of the backbones, against the other form of the depthwise convolution and against PyTorch.

    python -m benchmarks.backbones            # with PyTorch if the extra torch-parity is installed

EfficientNet-Lite0 at 224, batch 8, forward and forward + backward, the latter with BatchNorm on batch statistics and on
running ones; ResNet-50 at 448, batch 1 and 4, forward. All run interleaved in one process; the median of the rounds
counts. The other form of the depthwise convolution is the one that `models/backbones/depthwise.py` does not choose on
this platform: `lax` on a CPU, and sums of shifted products elsewhere.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks import runner
from benchmarks.comparisons import Comparison, Findings, compare
from benchmarks.programs import torch_problem
from benchmarks.runner import setting
from ssanet_jax.experiments.timing import Log, Workload, no_log, time_interleaved
from ssanet_jax.models.backbones import depthwise
from ssanet_jax.models.backbones.registry import build_backbone

LITE, RESNET = 'efficientnet_lite0', 'resnet50'
FORWARD = 'forward'
BATCH_STATISTICS = 'forward + backward, batch statistics'
MODES = {LITE: (FORWARD, BATCH_STATISTICS, 'forward + backward, running statistics'), RESNET: (FORWARD,)}
SIZES = {LITE: 224, RESNET: 448}
BATCHES = {LITE: (8,), RESNET: (1, 4)}
OURS, PLAIN, SHIFTED, TORCH = 'this', 'plain lax', 'shifted products', 'PyTorch'


@dataclasses.dataclass(frozen=True)
class Settings:
    """The backbones and sizes to compare."""

    model: tuple[str, ...] = setting((LITE, RESNET), 'Name of the backbone.', choices=(LITE, RESNET))
    size: int = setting(0, 'Side of the images, pixels; 0: 224 for EfficientNet-Lite0, 448 for ResNet-50.', minimum=0)
    batch: tuple[int, ...] = setting((), 'Images per call; by default 8 for EfficientNet-Lite0, 1 and 4 for ResNet-50.')
    rounds: int = setting(7, 'Rounds; the median counts.')


def measure(settings: Settings, log: Log = no_log) -> Findings:
    """The project's backbones against the other form of the depthwise convolution, and against PyTorch."""
    found = []
    for model in settings.model:
        size = settings.size or SIZES[model]
        for batch in settings.batch or BATCHES[model]:
            one = runner.command_line('backbones', dataclasses.replace(settings, model=(model,), batch=(batch,)))
            for mode in MODES[model]:
                where = f'{model}, {size}, batch {batch}, {mode}'
                log(f'compiling {where}')
                times = time_interleaved(workloads(model, size, batch, mode), settings.rounds, log)
                found += compare(
                    times, [(other_form(), OURS, None), (OURS, TORCH, None)], where=where, command=one, images=batch
                )
                if reason := torch_problem():
                    found.append(Comparison(OURS, TORCH, where, one, remark=reason))
    return Findings(found)


def workloads(model: str, size: int, batch: int, mode: str) -> dict[str, Workload]:
    """One pass of the backbone: the project's, with the other depthwise convolution if it has any, and PyTorch's."""
    found = {OURS: ours(model, size, batch, mode)}
    if model == LITE:
        with mock.patch.object(depthwise.lax, 'platform_dependent', _other_branch):
            found[other_form()] = ours(model, size, batch, mode)
            found[other_form()]()  # traced and compiled while the branches are exchanged
    if not torch_problem():
        found[TORCH] = theirs(model, size, batch, mode)
    return found


def other_form() -> str:
    """The name of the form of the depthwise convolution that is not chosen on this platform."""
    return PLAIN if jax.default_backend() == 'cpu' else SHIFTED


def _other_branch(*args: jax.Array, cpu: Callable[..., Any], default: Callable[..., Any]) -> Any:
    return (default if jax.default_backend() == 'cpu' else cpu)(*args)


def ours(name: str, size: int, batch: int, mode: str) -> Workload:
    """One pass of the project's backbone, compiled."""
    module = nnx.jit(functools.partial(build_backbone, name))(nnx.Rngs(0))
    module.train() if mode == BATCH_STATISTICS else module.eval()
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    images = jax.random.normal(jax.random.key(0), (batch, size, size, 3))

    def loss(params, rest, images):
        module = nnx.merge(graph, params, rest, copy=True)
        return jnp.square(module(images)).mean(), nnx.state(module, nnx.BatchStat)

    # A new function each time, so that workloads do not share a trace.
    run = jax.jit(lambda *inputs: (loss if mode == FORWARD else jax.grad(loss, has_aux=True))(*inputs))
    return lambda: jax.block_until_ready(run(params, rest, images))


def theirs(name: str, size: int, batch: int, mode: str) -> Workload:
    """The same pass in PyTorch, channels last."""
    import torch

    from benchmarks import torch_backbones

    device = torch_backbones.device()
    module = getattr(torch_backbones, name)().to(device, memory_format=torch.channels_last)
    module.train(mode == BATCH_STATISTICS)
    images = torch.randn(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)

    def forward():
        with torch.inference_mode():
            module(images).square().mean()
        torch_backbones.wait()

    def both():
        module.zero_grad(set_to_none=True)
        module(images).square().mean().backward()
        torch_backbones.wait()

    return forward if mode == FORWARD else both


if __name__ == '__main__':
    runner.run('backbones', Settings, measure)
