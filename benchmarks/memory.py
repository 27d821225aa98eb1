"""The memory of prediction and of a training step, in each way to share features.

    python -m benchmarks.memory --batch=1 --batch=16 --train_batch=16     # ResNet-50 at 448

Each program is compiled from shapes alone and not run, so that it takes no memory to say what it would take:
arguments (weights, images, of training also the optimiser's state) + results + temporary arrays - results that take
the place of arguments, as `compiled.memory_analysis()` has them. That is what the compiler of this device sets aside
for the program: not what libraries take beside it, nor the batches that wait. The training step is that of stage 1,
which trains the most; `ssanet_jax.preflight` says the same of devices that are not there.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
from rich.table import Table

from benchmarks import alone, networks, training
from benchmarks.alone import setting
from benchmarks.comparisons import Findings, machine
from benchmarks.networks import BACKBONE, WAYS, Size
from configs import common
from ssanet_jax.experiments.timing import Say, silent
from ssanet_jax.models.backbones.registry import BACKBONES
from ssanet_jax.preflight.program import make_mesh, make_step

MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is compiled."""

    batch: tuple[int, ...] = setting((1, 16), 'Images a call of prediction.')
    train_batch: tuple[int, ...] = setting((16,), 'Images a training step.')
    sharing: tuple[str, ...] = setting(WAYS, 'The ways to share features.', choices=WAYS)
    backbone: str = setting('resnet50', 'Name of the backbone.', choices=tuple(BACKBONES))
    size: int = setting(448, 'Side of the images, pixels.', least=32)
    classes: int = setting(200, 'Number of classes.', least=2)


class Memory(NamedTuple):
    """Bytes of a program."""

    arguments: int
    results: int
    temporary: int
    reused: int  # of the results: they take the place of arguments

    @property
    def peak(self) -> int:
        """At any one time."""
        return self.arguments + self.results + self.temporary - self.reused


def memory_of(compiled: jax.stages.Compiled) -> Memory | None:
    """What a program takes; None where the compiler does not say."""
    used = compiled.memory_analysis()
    if used is None:
        return None
    return Memory(
        used.argument_size_in_bytes, used.output_size_in_bytes, used.temp_size_in_bytes, used.alias_size_in_bytes
    )


def measure(settings: Settings, say: Say = silent) -> Findings:
    """The table, and its rows for the JSON file."""
    table = Table('program', 'batch', title='Memory, MiB', caption=machine(), caption_justify='left')
    for heading in ('arguments', 'results', 'temporary', 'reused', 'peak'):
        table.add_column(heading, justify='right')
    figures = []
    for name, batch, lowered in _programs(settings):
        say(f'compiling {name}, batch {batch}')
        memory = memory_of(lowered().compile())
        cells = [f'{size / MIB:.1f}' for size in (*memory, memory.peak)] if memory else ['not known'] * 5
        table.add_row(name, str(batch), *cells)
        sizes: dict[str, Any] = memory._asdict() | {'peak': memory.peak} if memory else {'peak': None}
        figures.append({'program': name, 'batch': batch, **sizes})
    return Findings(table=table, figures=figures)


def _programs(settings: Settings):
    """Name, batch, and what lowers it, of every program."""
    for batch in settings.batch:
        size = Size(settings.backbone, settings.size, settings.classes, batch)
        for name in (BACKBONE, *settings.sharing):
            yield f'prediction, {name}', batch, lambda name=name, size=size: networks.lower(name, size)
    for batch in settings.train_batch:
        yield training.PLAIN, batch, lambda batch=batch: _step(settings, batch, 'image', plain=True)
        for way in settings.sharing:
            lowered = lambda batch=batch, way=way: _step(settings, batch, way)
            yield f'training, stage 1, {way}', batch, lowered


def _step(settings: Settings, batch: int, sharing: str, *, plain: bool = False) -> jax.stages.Lowered:
    config = training.configuration(
        training.Settings(batch=batch, backbone=settings.backbone, size=settings.size, sharing=sharing)
    )
    if plain:
        config.stages = common.global_pooling()
    step = make_step(config, 0, settings.classes, batch, make_mesh(config, batch, jax.devices()[:1]))
    return step.run.lower(step.state, step.batch)


if __name__ == '__main__':
    alone.run('memory', Settings, measure)
