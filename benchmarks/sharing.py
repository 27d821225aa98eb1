"""The cost of SSANet relative to its backbone, for each value of `config.model.sharing`.

    python -m benchmarks.sharing --batch=1 --batch=16     # ResNet-50 at 448, inference

Compares the backbone with global average pooling and a linear classifier to the whole network with
`config.model.sharing` image, part and none: the settings of configs/cub.py:paper with random weights, optimized for
inference (`models/inference.py`). All run interleaved in one process; the median of the rounds counts.
"""

import dataclasses
from collections.abc import Mapping

from benchmarks import networks, runner
from benchmarks.comparisons import Comparison, Findings, at_least, at_most, compare
from benchmarks.networks import BACKBONE, NETWORKS, Size
from benchmarks.programs import Program
from benchmarks.runner import setting
from ssanet_jax.experiments.timing import Log, no_log, time_interleaved
from ssanet_jax.models.backbones.registry import BACKBONES

# (first, second, target); the targets are for ResNet-50 at 448, batch 1 and 16.
PAIRS = (
    ('image', BACKBONE, at_most(1.10)),
    ('none', 'image', at_least(5)),
    ('part', BACKBONE, at_most(2.3)),
    ('none', 'part', at_least(2)),
    ('none', BACKBONE, None),
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The sizes to compare."""

    batch: tuple[int, ...] = setting((1, 16), 'Images per call.')
    backbone: str = setting('resnet50', 'Name of the backbone.', choices=tuple(BACKBONES))
    size: int = setting(448, 'Side of the images, pixels.', minimum=32)
    num_classes: int = setting(200, 'Number of classes.', minimum=2, alias='classes')
    rounds: int = setting(3, 'Rounds, three times as many for single images; the median counts.')
    dtype: str = setting('float32', 'Type of the computation.', choices=('float32', 'bfloat16'))


def measure(settings: Settings, log: Log = no_log) -> Findings:
    """The network with each value of `sharing` against its backbone, and against the paper's setting."""
    found = []
    for batch in settings.batch:
        runs = {name: program.run for name, program in load_all(settings, batch, log).items()}
        found += comparisons(time_interleaved(runs, rounds_at(settings, batch), log), settings, batch)
    return Findings(found)


def rounds_at(settings: Settings, batch: int) -> int:
    """Rounds of timing at one batch: a single image is fast, and its time varies more."""
    return 3 * settings.rounds if batch == 1 else settings.rounds


def load_all(settings: Settings, batch: int, log: Log) -> dict[str, Program]:
    """All networks at one batch size."""
    programs = {}
    for name in NETWORKS:
        log(f'compiling {name}, batch {batch}')
        programs[name] = networks.load(name, size_of(settings, batch))
    return programs


def size_of(settings: Settings, batch: int) -> Size:
    """The size of the networks at one batch size."""
    return Size(settings.backbone, settings.size, settings.num_classes, batch, settings.dtype)


def comparisons(times: Mapping[str, float], settings: Settings, batch: int) -> list[Comparison]:
    """The comparisons at one batch size, from seconds by `NETWORKS`."""
    ours = dataclasses.replace(settings, batch=(batch,))
    wanted = settings.backbone, settings.size, settings.dtype
    has_targets = wanted == ('resnet50', 448, 'float32') and batch in (1, 16)
    pairs = [(first, second, target if has_targets else None) for first, second, target in PAIRS]
    command = runner.command_line('sharing', ours)
    where = str(size_of(settings, batch))
    return compare(times, pairs, where=where, command=command, images=batch, dtype=settings.dtype)


if __name__ == '__main__':
    runner.run('sharing', Settings, measure)
