"""The cost of a prediction with each recommended configuration, relative to its backbone alone at the same image size.

    python -m benchmarks.recipes --batch=1 --batch=16     # the variants of configs/cub.py, EfficientNet-Lite0 at 448

The backbone alone is the variant `backbone`. Weights are random and networks optimized for inference; the values do not
affect the time. Images are on the device already: reading and resizing are not included. All run interleaved in one
process; the median of the rounds counts. FLOPs are the compiler's count.
"""

import dataclasses

import jax
import jax.numpy as jnp

from benchmarks import networks, runner
from benchmarks.comparisons import Comparison, Findings
from benchmarks.programs import Program
from benchmarks.runner import setting
from ssanet_jax.configs import common
from ssanet_jax.distributed import sharding
from ssanet_jax.evaluation.accuracy import make_predict
from ssanet_jax.experiments.timing import Log, no_log, time_interleaved
from ssanet_jax.models.backbones.registry import BACKBONES
from ssanet_jax.models.groups import active_groups
from ssanet_jax.models.inference import optimize_for_inference
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.runs.run import build_model

BASELINE = 'backbone'
RECIPES = ('fast', 'prototypes', 'upright', 'nts')


@dataclasses.dataclass(frozen=True)
class Settings:
    """The sizes to compare."""

    batch: tuple[int, ...] = setting((1, 16), 'Images per call.')
    backbone: str = setting('efficientnet_lite0', 'Name of the backbone.', choices=tuple(BACKBONES))
    size: int = setting(448, 'Side of the images, pixels.', minimum=32)
    num_classes: int = setting(200, 'Number of classes.', minimum=2)
    rounds: int = setting(5, 'Rounds, three times as many for single images; the median counts.')


def measure(settings: Settings, log: Log = no_log) -> Findings:
    """Each recommended configuration against the backbone alone."""
    found = []
    for batch in settings.batch:
        programs = {}
        for name in (BASELINE, *RECIPES):
            log(f'compiling {name}, batch {batch}')
            programs[name] = load(name, settings, batch)
        rounds = 3 * settings.rounds if batch == 1 else settings.rounds
        times = time_interleaved({name: program.run for name, program in programs.items()}, rounds, log)
        command = runner.command_line('recipes', dataclasses.replace(settings, batch=(batch,)))
        where = f'{settings.backbone}, {settings.size}, batch {batch}'
        for name in RECIPES:
            seconds = times[name] / batch, times[BASELINE] / batch
            flops = [programs[each].cost.get('flops') for each in (name, BASELINE)]
            remark = f'per image; {flops[0] / flops[1]:.2f} times the FLOPs' if all(flops) else 'per image'
            found.append(Comparison(name, BASELINE, where, command, seconds, remark=remark, images=1))
    return Findings(found)


def load(name: str, settings: Settings, batch: int) -> Program:
    """The network of a variant of `configs/cub.py`, as it predicts after its last stage."""
    config = common.prototype_variants()[name]()
    size, crop_size = settings.size, networks.crop_size(settings.backbone)
    config.data.image_size = size
    config.model.update(backbone=settings.backbone, crop_size=crop_size)
    for view in ('global_size', 'upright_size'):
        if config.model[view]:
            config.model[view] = crop_size
    model = optimize_for_inference(build_model(config, settings.num_classes, pretrained=False))
    active = active_groups(config.stages, len(config.stages) - 1)
    predict = make_predict(model, active, sharding.make_mesh(jax.devices()[:1]))
    _, params, stats = split_model(model)
    images = jax.random.randint(jax.random.key(0), (batch, size, size, 3), 0, 256, jnp.uint8)
    compiled = jax.jit(lambda *inputs: predict(*inputs).logits).lower(params, stats, images).compile()
    return Program(lambda: jax.block_until_ready(compiled(params, stats, images)), compiled)


if __name__ == '__main__':
    runner.run('recipes', Settings, measure)
