"""Analyzes all stages of a configuration on one topology, and searches for the largest batch that fits."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from ssanet_jax.distributed import sharding
from ssanet_jax.errors import UserError
from ssanet_jax.preflight.batch_search import MemoryFit, fit_memory, largest_batch, second_guess
from ssanet_jax.preflight.chips import Topology
from ssanet_jax.preflight.compilation import CompiledStep, OutOfMemory, compile_step, make_mesh, make_step
from ssanet_jax.preflight.roofline import Roofline, roofline

TRIES = 4  # compilations in search of the largest batch of the tightest stage, besides the first two

OnStart = Callable[[str, int], None]  # before a compilation: (stage, batch)
OnEnd = Callable[[str, int, float, float], None]  # after it: (stage, batch, bytes per device, seconds)


class StageReport(NamedTuple):
    """The cost of a stage at the requested batch."""

    name: str
    result: CompiledStep | OutOfMemory
    roofline: Roofline | None  # None if it does not compile
    fit: MemoryFit | None = None  # memory by batch; None if only one batch was tried

    @property
    def total(self) -> float:
        """Lower bound of the bytes on each device."""
        return total_bytes(self.result)


class LargestBatch(NamedTuple):
    """The largest batch over all devices that was compiled and fits."""

    stage: str  # the tightest stage, for which it was searched
    batch: int  # 0 if none fits
    too_large: int | None  # the smallest batch that was compiled and does not fit


class Report(NamedTuple):
    """The result of a preflight."""

    topology: Topology
    batch: int
    dtype: str
    stages: tuple[StageReport, ...]
    largest: LargestBatch | None

    @property
    def tightest(self) -> StageReport:
        """The stage that needs the most memory."""
        return max(self.stages, key=lambda stage: stage.total)

    @property
    def fits(self) -> bool:
        """Whether all stages fit."""
        return self.tightest.total <= self.topology.chip.available


def analyze(
    config: ConfigDict,
    num_classes: int,
    batch: int,
    topology: Topology,
    devices: Sequence[jax.Device],
    *,
    largest: bool,
    on_start: OnStart,
    on_end: OnEnd,
) -> Report:
    """Compiles the step of every stage.

    Args:
      config: the whole configuration.
      num_classes: N.
      batch: images over all devices.
      topology: the devices to train on.
      devices: those of `compilation.find_devices` for this topology.
      largest: also compile each stage for a second batch, and the tightest one for more, until the largest batch that
        fits is found.
      on_start: called before each compilation.
      on_end: called after each compilation.

    Raises:
      UserError: for inconsistent settings, or if no stage trains.
    """
    available, multiple = topology.chip.available, topology.devices

    def compile_stage(index: int, images: int) -> CompiledStep | OutOfMemory:
        name, start = config.stages[index].name, time.monotonic()
        on_start(name, images)
        step = make_step(config, index, num_classes, images, make_mesh(config, images, devices))
        undivided = None
        if topology.chip.kind == 'gpu' and topology.devices > 1:
            undivided = make_step(config, index, num_classes, images, sharding.make_mesh(devices[:1]))
        result = compile_step(step, topology, undivided)
        on_end(name, images, total_bytes(result), time.monotonic() - start)
        return result

    stages: list[StageReport] = []
    tried: list[dict[int, float]] = []  # one per stage: batch -> bytes per device
    trained = [index for index, stage in enumerate(config.stages) if not stage.get('fit')]
    if not trained:
        raise UserError(
            'every stage of this configuration has fit=True, so there is no training step to compile: give '
            'a configuration that trains, such as configs/cub.py:paper'
        )
    for index in trained:
        stage = config.stages[index]
        result = compile_stage(index, batch)
        times = roofline(result, topology, config.model.dtype) if isinstance(result, CompiledStep) else None
        points = {batch: total_bytes(result)}
        if largest:
            second = second_guess(result, batch, available, multiple)
            if second != batch:
                points[second] = total_bytes(compile_stage(index, second))
        stages.append(StageReport(stage.name, result, times, fit_memory(points) if largest else None))
        tried.append(points)
    found = None
    if largest:
        index = min(range(len(stages)), key=lambda i: _capacity(stages[i], available))
        measure = lambda images: total_bytes(compile_stage(trained[index], images))
        fits, too_large = largest_batch(tried[index], available, multiple, measure, TRIES)
        found = LargestBatch(stages[index].name, fits, too_large)
    return Report(topology, batch, config.model.dtype, tuple(stages), found)


def total_bytes(result: CompiledStep | OutOfMemory) -> float:
    """Lower bound of a step's bytes on each device."""
    return result.memory.total if isinstance(result, CompiledStep) else result.total


def _capacity(stage: StageReport, available: float) -> tuple[float, float]:
    """Sort key, the tightest stage first: by the batch that fits, or where that is unknown by the memory it needs."""
    batch = stage.fit.max_batch(available) if stage.fit and stage.fit.per_image else float('inf')
    return (batch if isinstance(stage.result, CompiledStep) else -1, -stage.total)
