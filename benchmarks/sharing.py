"""What SSANet costs beyond its backbone, for each way to share features.

    python -m benchmarks.sharing --batch=1 --batch=16     # ResNet-50 at 448, inference

The bare backbone with global average pooling and a linear classifier, against the whole network with
`config.model.sharing` image, part and none: the settings of configs/cub.py:paper with random weights, which
take as long as others, made ready to predict as trained ones are (`models/inference.py`). All in one process,
in turns; the median of the rounds counts.
"""

import dataclasses
from collections.abc import Mapping

from benchmarks import alone, networks
from benchmarks.alone import setting
from benchmarks.comparisons import Comparison, Findings, at_least, at_most, compare
from benchmarks.networks import BACKBONE, NETWORKS, Size
from benchmarks.programs import Program
from ssanet_jax.experiments.timing import Say, silent, take_turns
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
    """What is compared."""

    batch: tuple[int, ...] = setting((1, 16), 'Images a call.')
    backbone: str = setting('resnet50', 'Name of the backbone.', choices=tuple(BACKBONES))
    size: int = setting(448, 'Side of the images, pixels.', least=32)
    classes: int = setting(200, 'Number of classes.', least=2)
    rounds: int = setting(3, 'Rounds, three times as many for single images; the median counts.')


def measure(settings: Settings, say: Say = silent) -> Findings:
    """The network in its three ways against its backbone, and against the paper's way."""
    found = []
    for batch in settings.batch:
        runs = {name: program.run for name, program in load_all(settings, batch, say).items()}
        found += comparisons(take_turns(runs, rounds_at(settings, batch), say), settings, batch)
    return Findings(found)


def rounds_at(settings: Settings, batch: int) -> int:
    """Of timing: a single image is quick, and its time scatters more."""
    return 3 * settings.rounds if batch == 1 else settings.rounds


def load_all(settings: Settings, batch: int, say: Say) -> dict[str, Program]:
    """All networks at one batch."""
    programs = {}
    for name in NETWORKS:
        say(f'compiling {name}, batch {batch}')
        programs[name] = networks.load(name, size_of(settings, batch))
    return programs


def size_of(settings: Settings, batch: int) -> Size:
    """Of the networks at one batch."""
    return Size(settings.backbone, settings.size, settings.classes, batch)


def comparisons(times: Mapping[str, float], settings: Settings, batch: int) -> list[Comparison]:
    """The pairs of one batch, from seconds by `NETWORKS`."""
    ours = dataclasses.replace(settings, batch=(batch,))
    aimed_at = (settings.backbone, settings.size) == ('resnet50', 448) and batch in (1, 16)
    pairs = [(first, second, target if aimed_at else None) for first, second, target in PAIRS]
    command = alone.command_line('sharing', ours)
    return compare(times, pairs, where=str(size_of(settings, batch)), command=command)


if __name__ == '__main__':
    alone.run('sharing', Settings, measure)
