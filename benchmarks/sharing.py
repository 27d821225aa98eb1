"""What SSANet costs beyond its backbone, for each way to share features.

    python -m benchmarks.sharing --batch=1 --batch=16     # ResNet-50 at 448, inference

The bare backbone with global average pooling and a linear classifier, against the whole network with
`config.model.sharing` image, part and none: the settings of configs/cub.py:paper with random weights, which
take as long as others, made ready to predict as trained ones are (`models/inference.py`). All in one process,
in turns; the median of the rounds counts.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import flags
from flax import nnx
from rich.console import Console
from rich.table import Table

from benchmarks.timing import Timed, machine, milliseconds, ratio, take_turns
from ssanet_jax import command, parallel
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.accuracy import make_predict
from ssanet_jax.models.inference import prepared
from ssanet_jax.models.ssanet import GROUPS, SSANet, split_model

_BATCH = flags.DEFINE_multi_integer('batch', [1, 16], 'Images a call.', lower_bound=1)
_BACKBONE = flags.DEFINE_string('backbone', 'resnet50', 'Name of the backbone.')
_SIZE = flags.DEFINE_integer('size', 448, 'Side of the images, pixels.', lower_bound=32)
_CLASSES = flags.DEFINE_integer('classes', 200, 'Number of classes.', lower_bound=2)
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'Rounds; the median counts.', lower_bound=1)
_OUT = flags.DEFINE_string('out', None, 'JSON file for the figures.')

WAYS = ('image', 'part', 'none')


def main(arguments: list[str]) -> None:
    """Prints the table."""
    if arguments:
        raise UserError(f'{arguments[0]!r} is no flag: see --help')
    table = Table('batch', 'what', 'a call', 'times the backbone', "times 'none'", title=machine())
    figures = {}
    for batch in _BATCH.value:
        times = take_turns(competitors(batch), _ROUNDS.value)
        figures[batch] = times
        for name, seconds in times.items():
            cells = milliseconds(seconds), ratio(seconds, times['backbone']), ratio(seconds, times['none'])
            table.add_row(str(batch), name, *cells)
    Console(width=100).print(table)
    if _OUT.value:
        Path(_OUT.value).write_text(json.dumps({'machine': machine(), 'seconds': figures}, indent=2) + '\n')


def competitors(batch: int) -> dict[str, Timed]:
    """The backbone alone and the network in its three ways, compiled, on the same images."""
    mesh = parallel.make_mesh(jax.devices()[:1])
    images = jax.random.randint(jax.random.key(0), (batch, _SIZE.value, _SIZE.value, 3), 0, 256, jnp.uint8)
    found = {}
    for groups, name, way in [(('image_classifier',), 'backbone', 'image'), *((GROUPS, way, way) for way in WAYS)]:
        network = lambda way=way: prepared(
            SSANet(_CLASSES.value, _SIZE.value, backbone=_BACKBONE.value, sharing=way, rngs=nnx.Rngs(0))
        )
        predict = make_predict(nnx.eval_shape(network), groups, mesh)
        params, stats = jax.jit(lambda network=network: split_model(network())[1:])()
        # The weights and images are arguments: a constant would be worked on by the compiler.
        logits = jax.jit(lambda *inputs, predict=predict: predict(*inputs).logits)
        found[name] = lambda run=logits, inputs=(params, stats, images): jax.block_until_ready(run(*inputs))
    return found


if __name__ == '__main__':
    command.run(main)
