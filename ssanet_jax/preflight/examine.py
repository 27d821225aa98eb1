"""All stages of a configuration on one topology: compiled, measured, and searched for the largest batch."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from ssanet_jax.preflight import estimate
from ssanet_jax.preflight.chips import Topology
from ssanet_jax.preflight.estimate import Line, Roofline, total_bytes
from ssanet_jax.preflight.program import Overflow, Program, compile_step, make_mesh, make_step

TRIES = 4  # compilations of the tightest stage in search of its largest batch, beside the first two

# Told before each compilation (stage, batch) and after it (stage, batch, bytes a device, seconds).
Begins = Callable[[str, int], None]
Ends = Callable[[str, int, float, float], None]


class Stage(NamedTuple):
    """What a stage takes at the batch that was asked for."""

    name: str
    result: Program | Overflow
    roofline: Roofline | None  # None where it was not compiled
    line: Line | None = None  # bytes by batch; None if only one was tried

    @property
    def compiled(self) -> bool:
        """Whether the compiler did not refuse it for lack of memory."""
        return isinstance(self.result, Program)

    @property
    def total(self) -> float:
        """Bytes on each device, at least."""
        return total_bytes(self.result)


class Largest(NamedTuple):
    """The largest batch that was compiled and fits, over all devices."""

    stage: str  # the tightest, for which it was looked for
    batch: int  # 0: none does
    too_large: int | None  # the smallest batch that was compiled and does not fit


class Report(NamedTuple):
    """Everything that preflight says."""

    topology: Topology
    batch: int
    dtype: str
    stages: tuple[Stage, ...]
    largest: Largest | None

    @property
    def tightest(self) -> Stage:
        return max(self.stages, key=lambda stage: stage.total)

    @property
    def fits(self) -> bool:
        return self.tightest.total <= self.topology.chip.available


def examine(
    config: ConfigDict,
    classes: int,
    batch: int,
    topology: Topology,
    devices: Sequence[jax.Device],
    *,
    largest: bool,
    begins: Begins,
    ends: Ends,
) -> Report:
    """Compiles the step of every stage.

    Args:
      config: the whole configuration.
      classes: N.
      batch: images, over all devices.
      topology: on which it is to train.
      devices: of `program.find_devices` for it.
      largest: also compile each stage for a second batch, and the tightest for more until the largest batch
        that fits is found.
      begins, ends: told about each compilation.

    Raises:
      UserError: for settings that do not fit together.
    """
    available, unit = topology.chip.available, topology.devices

    def compile_for(index: int, images: int) -> Program | Overflow:
        name, began = config.stages[index].name, time.monotonic()
        begins(name, images)
        result = compile_step(make_step(config, index, classes, images, make_mesh(config, images, devices)), topology)
        ends(name, images, total_bytes(result), time.monotonic() - began)
        return result

    stages, points = [], []
    for index, row in enumerate(config.stages):
        result = compile_for(index, batch)
        times = estimate.roofline(result, topology, config.model.dtype) if isinstance(result, Program) else None
        stage, tried = Stage(row.name, result, times), {batch: total_bytes(result)}
        if largest:
            second = estimate.second_guess(result, batch, available, unit)
            if second != batch:
                tried[second] = total_bytes(compile_for(index, second))
            stage = stage._replace(line=estimate.fit_line(tried))
        stages.append(stage)
        points.append(tried)
    found = None
    if largest:
        index = min(range(len(stages)), key=lambda i: _room(stages[i], available))
        measure = lambda images: total_bytes(compile_for(index, images))
        most, over = estimate.largest_batch(points[index], available, unit, measure, TRIES)
        found = Largest(stages[index].name, most, over)
    return Report(topology, batch, config.model.dtype, tuple(stages), found)


def _room(stage: Stage, available: float) -> tuple[float, float]:
    """Sorts the stages by the images that fit, and where no line says how many by what they take."""
    images = stage.line.images(available) if stage.line and stage.line.image else float('inf')
    return (images if stage.compiled else -1, -stage.total)
