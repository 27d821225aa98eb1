"""The cost of a training step of each stage, relative to plain fine-tuning of the same backbone.

    python -m benchmarks.training                                    # ResNet-50 at 448, batch 4
    python -m benchmarks.training --backbone=efficientnet_lite0 --size=224 --batch=16

Compares the step of global average pooling with a linear classifier to the steps of the three stages of
configs/common.py, all compiled as in training, on the same images. All run interleaved in one process; the median of
the rounds counts. FLOPs are the compiler's count for each program.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks import runner
from benchmarks.comparisons import Findings, at_most, compare
from benchmarks.networks import SHARING, crop_size
from benchmarks.programs import Program
from benchmarks.runner import setting
from configs import common
from ssanet_jax.distributed import sharding
from ssanet_jax.experiments.timing import Log, Workload, no_log, time_interleaved
from ssanet_jax.models.backbones.registry import BACKBONES
from ssanet_jax.models.groups import active_groups
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.runs.run import build_model
from ssanet_jax.training.feature_cache import make_extract_features
from ssanet_jax.training.step import TrainState, make_train_step

PLAIN = 'plain fine-tuning'
FIRST, SECOND, THIRD = (stage.name for stage in common.three_stages())
CACHED = f'{SECOND} from cached features'
# (first, second, target); the targets are for ResNet-50 at 448 with sharing='image'.
PAIRS = (
    (FIRST, PLAIN, at_most(1.25)),
    (SECOND, FIRST, at_most(0.45)),
    (CACHED, FIRST, at_most(0.05)),
    (THIRD, FIRST, None),
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The sizes to compare."""

    batch: int = setting(4, 'Images per step.')
    backbone: str = setting('resnet50', 'Name of the backbone.', choices=tuple(BACKBONES))
    size: int = setting(448, 'Side of the images, pixels.', minimum=32)
    sharing: str = setting('image', 'Where the features of regions come from: config.model.sharing.', choices=SHARING)
    num_classes: int = setting(200, 'Number of classes.', minimum=2, alias='classes')
    rounds: int = setting(5, 'Rounds; the median counts.')


def measure(settings: Settings, log: Log = no_log) -> Findings:
    """The stages against plain fine-tuning, and against the first stage."""
    programs = steps(settings, log)
    times = time_interleaved({name: program.run for name, program in programs.items()}, settings.rounds, log)
    has_targets = (settings.backbone, settings.size, settings.sharing) == ('resnet50', 448, 'image')
    found = compare(
        times,
        [(first, second, target if has_targets else None) for first, second, target in PAIRS],
        where=f'a step, {settings.backbone}, {settings.size}, batch {settings.batch}, {settings.sharing}',
        command=runner.command_line('training', settings),
        images=settings.batch,
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


def steps(settings: Settings, log: Log = no_log) -> dict[str, Program]:
    """The training step of plain fine-tuning, of each stage, and of stage 2 on cached features."""
    config = configuration(settings)
    (plain,) = common.global_pooling()
    cases = {PLAIN: (plain, frozenset(plain.train))}
    cases |= {stage.name: (stage, active_groups(config.stages, index)) for index, stage in enumerate(config.stages)}

    mesh = sharding.make_mesh(jax.devices()[:1])
    model = build_model(config, settings.num_classes, pretrained=False)
    _, params, stats = split_model(model)
    batch = sharding.replicate(random_batch(settings), mesh)
    found = {}
    for name, (stage, active) in cases.items():
        log(f'compiling {name}')
        optimizer, step = make_train_step(model, stage, active, config, 100.0, mesh)
        # A copy, because the step donates its state.
        state = TrainState(*jax.tree.map(jnp.copy, (params, stats, optimizer.init(params))), np.int32(0))
        compiled = step.lower(sharding.replicate(state, mesh), batch).compile()
        found[name] = Program(_repeated(compiled, sharding.replicate(state, mesh), batch), compiled)
        if name == SECOND:
            log(f'compiling {CACHED}')
            extract_features = make_extract_features(model, active, False, mesh)
            cached = {'features': extract_features(params, stats, batch['image']), 'label': batch['label']}
            compiled = step.lower(sharding.replicate(state, mesh), cached).compile()
            found[CACHED] = Program(_repeated(compiled, sharding.replicate(state, mesh), cached), compiled)
    return found


def random_batch(settings: Settings) -> dict[str, np.ndarray]:
    """Random images and labels with a fixed seed."""
    random = np.random.default_rng(0)
    return {
        'image': random.integers(0, 256, (settings.batch, settings.size, settings.size, 3), np.uint8),
        'label': random.integers(0, settings.num_classes, settings.batch).astype(np.int32),
    }


def _repeated(step: jax.stages.Compiled, state: TrainState, batch: dict[str, jax.Array]) -> Workload:
    """A call per training step, each from the state that the previous one returned."""

    def train_step() -> None:
        nonlocal state
        state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))

    return train_step


if __name__ == '__main__':
    runner.run('training', Settings, measure)
