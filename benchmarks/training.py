"""What a step of each stage of training costs, against plain fine-tuning of the same backbone.

    python -m benchmarks.training                                    # ResNet-50 at 448, batch 4
    python -m benchmarks.training --backbone=efficientnet_lite0 --size=224 --batch=16

The step of global average pooling with a linear classifier, against the steps of the three stages of
configs/common.py, all compiled as training compiles them, on the same images. All in one process, in turns; the
median of the rounds counts. FLOPs are the compiler's count for each program.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks import alone
from benchmarks.alone import setting
from benchmarks.comparisons import Findings, at_most, compare
from benchmarks.networks import WAYS, crop_size
from benchmarks.programs import Program
from configs import common
from ssanet_jax.distributed import sharding
from ssanet_jax.experiments.timing import Say, Timed, silent, take_turns
from ssanet_jax.models.backbones.registry import BACKBONES
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.runs.run import active_groups, build_model
from ssanet_jax.training.feature_cache import make_extract_features
from ssanet_jax.training.step import TrainState, make_train_step

PLAIN = 'plain fine-tuning'
FIRST, SECOND, THIRD = (row.name for row in common.three_stages())
CACHED = f'{SECOND} from kept features'
# (first, second, target); the targets are for ResNet-50 at 448 with the image's own map.
PAIRS = (
    (FIRST, PLAIN, at_most(1.25)),
    (SECOND, FIRST, at_most(0.45)),
    (CACHED, FIRST, at_most(0.05)),
    (THIRD, FIRST, None),
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is compared."""

    batch: int = setting(4, 'Images a step.')
    backbone: str = setting('resnet50', 'Name of the backbone.', choices=tuple(BACKBONES))
    size: int = setting(448, 'Side of the images, pixels.', least=32)
    sharing: str = setting('image', 'Where the features of regions come from.', choices=WAYS)
    classes: int = setting(200, 'Number of classes.', least=2)
    rounds: int = setting(5, 'Rounds; the median counts.')


def measure(settings: Settings, say: Say = silent) -> Findings:
    """The stages against plain fine-tuning, and against the first of them."""
    programs = steps(settings, say)
    times = take_turns({name: program.run for name, program in programs.items()}, settings.rounds, say)
    aimed_at = (settings.backbone, settings.size, settings.sharing) == ('resnet50', 448, 'image')
    found = compare(
        times,
        [(first, second, target if aimed_at else None) for first, second, target in PAIRS],
        where=f'a step, {settings.backbone}, {settings.size}, batch {settings.batch}, {settings.sharing}',
        command=alone.command_line('training', settings),
    )
    for index, row in enumerate(found):
        flops = [programs[name].cost.get('flops', 0.0) for name in (row.first, row.second)]
        remark = '{:.4g} and {:.4g} GFLOP'.format(*(count / 1e9 for count in flops))
        found[index] = row._replace(remark=remark, details={'first_flops': flops[0], 'second_flops': flops[1]})
    return Findings(found)


def configuration(settings: Settings) -> ConfigDict:
    """The configuration whose stages are compared."""
    config = common.get_config()
    config.data.update(image_size=settings.size, batch_size=settings.batch)
    config.model.update(backbone=settings.backbone, sharing=settings.sharing, crop_size=crop_size(settings.backbone))
    return config


def steps(settings: Settings, say: Say = silent) -> dict[str, Program]:
    """A step of plain fine-tuning, of each stage, and of stage 2 on features that were kept."""
    config = configuration(settings)
    (plain,) = common.global_pooling()
    cases = {PLAIN: (plain, frozenset(plain.train))}
    cases |= {row.name: (row, active_groups(config.stages, index)) for index, row in enumerate(config.stages)}

    mesh = sharding.make_mesh(jax.devices()[:1])
    model = build_model(config, settings.classes, pretrained=False)
    _, params, stats = split_model(model)
    batch = sharding.replicate(random_batch(settings), mesh)
    found = {}
    for name, (row, active) in cases.items():
        say(f'compiling {name}')
        optimizer, step = make_train_step(model, row, active, config, 100.0, mesh)
        # A copy of its own: a step gives its state away.
        state = TrainState(*jax.tree.map(jnp.copy, (params, stats, optimizer.init(params))), np.int32(0))
        compiled = step.lower(sharding.replicate(state, mesh), batch).compile()
        found[name] = Program(_taking(compiled, sharding.replicate(state, mesh), batch), compiled)
        if name == SECOND:
            say(f'compiling {CACHED}')
            describe = make_extract_features(model, active, False, mesh)
            kept = {'features': describe(params, stats, batch['image']), 'label': batch['label']}
            compiled = step.lower(sharding.replicate(state, mesh), kept).compile()
            found[CACHED] = Program(_taking(compiled, sharding.replicate(state, mesh), kept), compiled)
    return found


def random_batch(settings: Settings) -> dict[str, np.ndarray]:
    """Images and labels, the same each time."""
    random = np.random.default_rng(0)
    return {
        'image': random.integers(0, 256, (settings.batch, settings.size, settings.size, 3), np.uint8),
        'label': random.integers(0, settings.classes, settings.batch).astype(np.int32),
    }


def _taking(step: jax.stages.Compiled, state: TrainState, batch: dict[str, jax.Array]) -> Timed:
    def once() -> None:
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))

    return once


if __name__ == '__main__':
    alone.run('training', Settings, measure)
