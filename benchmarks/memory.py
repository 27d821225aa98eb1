"""The memory of prediction and of a training step, for each value of `config.model.sharing`.

    python -m benchmarks.memory --batch=1 --batch=16 --train_batch=16     # ResNet-50 at 448

Each program is compiled from shapes and not run, so that measuring needs no memory. The peak is the sum of arguments
(weights, images, in training also the optimizer state), results and temporary arrays, less the results that reuse the
memory of arguments, from `compiled.memory_analysis()`. This is what the compiler allocates for the program, without the
memory of libraries and of prefetched batches. The training step is that of stage 1, which trains the most groups.
`ssanet_jax.preflight` reports the same for absent devices.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
from rich.table import Table

from benchmarks import networks, runner, training
from benchmarks.comparisons import Findings, machine
from benchmarks.networks import BACKBONE, SHARING, Size
from benchmarks.runner import setting
from configs import common
from ssanet_jax.experiments.timing import Log, no_log
from ssanet_jax.models.backbones.registry import BACKBONES
from ssanet_jax.preflight.compilation import make_mesh, make_step

MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Settings:
    """The programs to compile."""

    batch: tuple[int, ...] = setting((1, 16), 'Images per call of prediction.')
    train_batch: tuple[int, ...] = setting((16,), 'Images per training step.')
    sharing: tuple[str, ...] = setting(SHARING, 'Values of config.model.sharing.', choices=SHARING)
    backbone: str = setting('resnet50', 'Name of the backbone.', choices=tuple(BACKBONES))
    size: int = setting(448, 'Side of the images, pixels.', minimum=32)
    num_classes: int = setting(200, 'Number of classes.', minimum=2, alias='classes')


class Memory(NamedTuple):
    """Bytes of a program."""

    arguments: int
    results: int
    temporary: int
    reused: int  # results that reuse the memory of arguments

    @property
    def peak(self) -> int:
        """The largest amount in use at any time."""
        return self.arguments + self.results + self.temporary - self.reused


def memory_of(compiled: jax.stages.Compiled) -> Memory | None:
    """The memory of a program; None if the compiler gives none."""
    used = compiled.memory_analysis()
    if used is None:
        return None
    return Memory(
        used.argument_size_in_bytes, used.output_size_in_bytes, used.temp_size_in_bytes, used.alias_size_in_bytes
    )


def measure(settings: Settings, log: Log = no_log) -> Findings:
    """The memory of all programs, as a table and as figures."""
    table = Table('program', 'batch', title='Memory, MiB', caption=machine(), caption_justify='left')
    for heading in ('arguments', 'results', 'temporary', 'reused', 'peak'):
        table.add_column(heading, justify='right')
    figures = []
    for name, batch, lower in _programs(settings):
        log(f'compiling {name}, batch {batch}')
        memory = memory_of(lower().compile())
        cells = [f'{size / MIB:.1f}' for size in (*memory, memory.peak)] if memory else ['unknown'] * 5
        table.add_row(name, str(batch), *cells)
        sizes: dict[str, Any] = memory._asdict() | {'peak': memory.peak} if memory else {'peak': None}
        figures.append({'program': name, 'batch': batch, **sizes})
    return Findings(table=table, figures=figures)


def _programs(settings: Settings) -> Iterator[tuple[str, int, Callable[[], jax.stages.Lowered]]]:
    """The name, the batch size and a function that lowers it, for every program."""
    for batch in settings.batch:
        size = Size(settings.backbone, settings.size, settings.num_classes, batch)
        for name in (BACKBONE, *settings.sharing):
            yield f'prediction, {name}', batch, lambda name=name, size=size: networks.lower(name, size)
    for batch in settings.train_batch:
        yield training.PLAIN, batch, lambda batch=batch: _step(settings, batch, 'image', plain=True)
        for sharing in settings.sharing:
            lower = lambda batch=batch, sharing=sharing: _step(settings, batch, sharing)
            yield f'training, stage 1, {sharing}', batch, lower


def _step(settings: Settings, batch: int, sharing: str, *, plain: bool = False) -> jax.stages.Lowered:
    config = training.configuration(
        training.Settings(batch=batch, backbone=settings.backbone, size=settings.size, sharing=sharing)
    )
    if plain:
        config.stages = common.global_pooling()
    step = make_step(config, 0, settings.num_classes, batch, make_mesh(config, batch, jax.devices()[:1]))
    return step.run.lower(step.state, step.batch)


if __name__ == '__main__':
    runner.run('memory', Settings, measure)
