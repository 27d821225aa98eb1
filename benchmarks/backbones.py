"""How fast the backbones are: against the plain `lax` form of the depthwise convolution, and against PyTorch.

    python -m benchmarks.backbones            # PyTorch too where the extra torch-parity is installed

EfficientNet-Lite0 at 224, batch 8, forward and forward + backward, the latter with BatchNorm on batch
statistics and on running ones; ResNet-50 at 448, batch 1 and 4, forward. All in one process on the same
machine: the competitors take turns, each alone, and the median of the rounds counts.
"""

import functools
import json
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
from absl import flags
from flax import nnx
from rich.console import Console
from rich.table import Table

from benchmarks.timing import Timed, machine, milliseconds, ratio, take_turns
from ssanet_jax import command
from ssanet_jax.errors import UserError
from ssanet_jax.models import depthwise
from ssanet_jax.models.backbones import build_backbone

_ROUNDS = flags.DEFINE_integer('rounds', 7, 'Rounds; the median counts.', lower_bound=1)
_OUT = flags.DEFINE_string('out', None, 'JSON file for the figures.')


def main(arguments: list[str]) -> None:
    """Prints the table."""
    if arguments:
        raise UserError(f'{arguments[0]!r} is no flag: see --help')
    figures = {}
    table = Table('what', 'this', 'plain lax', 'PyTorch', 'lax / this', 'this / PyTorch', title=machine())
    for name, competitors in _cases():
        times = take_turns(competitors, _ROUNDS.value)
        figures[name] = times
        ours, lax, torch = (times.get(key) for key in ('this', 'lax', 'torch'))
        table.add_row(name, *map(milliseconds, (ours, lax, torch)), ratio(lax, ours), ratio(ours, torch))
    Console(width=140).print(table)
    if _OUT.value:
        Path(_OUT.value).write_text(json.dumps({'machine': machine(), 'seconds': figures}, indent=2) + '\n')


def _cases():
    for mode in ('forward', 'forward + backward, batch statistics', 'forward + backward, running statistics'):
        case = {'this': ours('efficientnet_lite0', 224, 8, mode)}
        with mock.patch.multiple(depthwise, _shifted_products=_plain, _shifted_gradients=_plain_gradients):
            case['lax'] = ours('efficientnet_lite0', 224, 8, mode)
            case['lax']()  # traced and compiled here, while the plain form stands in
        yield f'EfficientNet-Lite0, 224, batch 8, {mode}', case | theirs('efficientnet_lite0', 224, 8, mode)
    for batch in (1, 4):
        name = f'ResNet-50, 448, batch {batch}, forward'
        yield name, {'this': ours('resnet50', 448, batch, 'forward')} | theirs('resnet50', 448, batch, 'forward')


def _plain(x, kernel, *, stride, pads):
    return depthwise._grouped(x, kernel, stride=stride, pads=pads)


def _plain_gradients(x, kernel, dy, *, stride, pads):
    return depthwise._grouped_gradients(x, kernel, dy, stride=stride, pads=pads)


def ours(name: str, size: int, batch: int, mode: str) -> Timed:
    """One pass of the project's backbone, compiled."""
    module = nnx.jit(functools.partial(build_backbone, name))(nnx.Rngs(0))
    module.train() if 'batch statistics' in mode else module.eval()
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    images = jax.random.normal(jax.random.key(0), (batch, size, size, 3))

    def loss(params, rest, images):
        module = nnx.merge(graph, params, rest, copy=True)
        return jnp.square(module(images)).mean(), nnx.state(module, nnx.BatchStat)

    # A function of its own each time: what is traced must not be shared between competitors.
    run = jax.jit(lambda *inputs: (loss if mode == 'forward' else jax.grad(loss, has_aux=True))(*inputs))
    return lambda: jax.block_until_ready(run(params, rest, images))


def theirs(name: str, size: int, batch: int, mode: str) -> dict[str, Timed]:
    """The same pass of PyTorch's, channels last; nothing where PyTorch is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    from benchmarks import torch_backbones

    module = getattr(torch_backbones, name)().to(memory_format=torch.channels_last)
    module.train('batch statistics' in mode)
    images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)

    def forward():
        with torch.inference_mode():
            return module(images).square().mean()

    def both():
        module.zero_grad(set_to_none=True)
        module(images).square().mean().backward()

    return {'torch': forward if mode == 'forward' else both}


if __name__ == '__main__':
    command.run(main)
