"""What a step of each stage of training costs, against plain fine-tuning of the same backbone.

    python -m benchmarks.training                                    # ResNet-50 at 448, batch 4
    python -m benchmarks.training --backbone=efficientnet_lite0 --size=224 --batch=16

The step of global average pooling with a linear classifier, against the steps of the three stages of
configs/common.py, all compiled as training compiles them, on the same images. All in one process, in turns; the
median of the rounds counts. FLOPs are the compiler's count for each program.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from benchmarks.timing import Timed, machine, milliseconds, ratio, take_turns
from configs import common
from ssanet_jax import command, parallel
from ssanet_jax.errors import UserError
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.training import experiment
from ssanet_jax.training.stages import active_groups
from ssanet_jax.training.step import TrainState, make_train_step

_BATCH = flags.DEFINE_integer('batch', 4, 'Images a step.', lower_bound=1)
_BACKBONE = flags.DEFINE_string('backbone', 'resnet50', 'Name of the backbone.')
_SIZE = flags.DEFINE_integer('size', 448, 'Side of the images, pixels.', lower_bound=32)
_SHARING = flags.DEFINE_string('sharing', 'image', 'Where the features of regions come from: image, part or none.')
_CLASSES = flags.DEFINE_integer('classes', 200, 'Number of classes.', lower_bound=2)
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'Rounds; the median counts.', lower_bound=1)
_OUT = flags.DEFINE_string('out', None, 'JSON file for the figures.')

PLAIN = 'plain fine-tuning'


def main(arguments: list[str]) -> None:
    """Prints the table."""
    if arguments:
        raise UserError(f'{arguments[0]!r} is no flag: see --help')
    competitors, flops = steps()
    times = take_turns(competitors, _ROUNDS.value)
    table = Table('stage', 'a step', 'times plain', 'times stage 1', 'GFLOP', title=machine())
    for name, seconds in times.items():
        cells = milliseconds(seconds), ratio(seconds, times[PLAIN]), ratio(seconds, times['scale_mining'])
        table.add_row(name, *cells, f'{flops[name] / 1e9:.0f}')
    Console(width=100).print(table)
    if _OUT.value:
        content = {'machine': machine(), 'seconds': times, 'flops': flops}
        Path(_OUT.value).write_text(json.dumps(content, indent=2) + '\n')


def steps() -> tuple[dict[str, Timed], dict[str, float]]:
    """A step of plain fine-tuning and of each stage, and the FLOPs of each."""
    config = common.get_config()
    config.data.image_size = _SIZE.value
    config.data.batch_size = _BATCH.value
    config.model.update(backbone=_BACKBONE.value, sharing=_SHARING.value)
    stages, (plain,) = config.stages, common.global_pooling()
    cases = {PLAIN: (plain, frozenset(plain.train))}
    cases |= {row.name: (row, active_groups(stages, index)) for index, row in enumerate(stages)}

    mesh = parallel.make_mesh(jax.devices()[:1])
    model = experiment.build_model(config, _CLASSES.value, pretrained=False)
    _, params, stats = split_model(model)
    random = np.random.default_rng(0)
    batch = {
        'image': random.integers(0, 256, (_BATCH.value, _SIZE.value, _SIZE.value, 3), np.uint8),
        'label': random.integers(0, _CLASSES.value, _BATCH.value).astype(np.int32),
    }
    batch = parallel.replicate(batch, mesh)
    found, flops = {}, {}
    for name, (row, active) in cases.items():
        optimizer, step = make_train_step(model, row, active, config, 100.0, mesh)
        # A copy of its own: a step gives its state away.
        state = TrainState(*jax.tree.map(jnp.copy, (params, stats, optimizer.init(params))), np.int32(0))
        compiled = step.lower(parallel.replicate(state, mesh), batch).compile()
        flops[name] = compiled.cost_analysis()['flops']
        found[name] = _taking(compiled, parallel.replicate(state, mesh), batch)
    return found, flops


def _taking(step: jax.stages.Compiled, state: TrainState, batch: dict[str, jax.Array]) -> Timed:
    def once() -> None:
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))

    return once


if __name__ == '__main__':
    command.run(main)
