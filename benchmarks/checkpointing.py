"""The time that training waits for a checkpoint, with config.async_checkpointing=off and on.

    python -m benchmarks.checkpointing                              # ResNet-50 and its optimizer's state
    python -m benchmarks.checkpointing --backbone=efficientnet_lite0

Saves the first stage of configs/common.py: parameters, BatchNorm statistics and the optimizer's state. Of an
asynchronous save, training waits until the call returns; the time until all is on the disk, with checksums, is measured
too. Nothing else runs meanwhile. Both kinds alternate; the medians of the rounds count.
"""

import contextlib
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import runner, training
from benchmarks.comparisons import Comparison, Findings
from benchmarks.runner import setting
from ssanet_jax.distributed import sharding
from ssanet_jax.experiments.timing import Log, no_log
from ssanet_jax.models.backbones.registry import BACKBONES
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.runs.checkpoints import Checkpoints
from ssanet_jax.runs.run import build_model
from ssanet_jax.training.step import make_train_step

SYNCHRONOUS, RETURN, WRITTEN = 'saving', 'saving asynchronously, until training goes on', '..., until it is written'


@dataclasses.dataclass(frozen=True)
class Settings:
    """The network whose state is saved."""

    backbone: str = setting('resnet50', 'Name of the backbone.', choices=tuple(BACKBONES))
    size: int = setting(448, 'Side of the images, pixels.', minimum=32)
    num_classes: int = setting(200, 'Number of classes.', minimum=2)
    rounds: int = setting(5, 'Rounds; the median counts.')


def measure(settings: Settings, log: Log = no_log) -> Findings:
    """The time that training waits for a checkpoint, saved in both ways."""
    items = state(settings)
    size = sum(array.nbytes for array in jax.tree.leaves(items)) / 2**20
    times: dict[str, list[float]] = {SYNCHRONOUS: [], RETURN: [], WRITTEN: []}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as closing:
        blocking = Checkpoints(Path(folder) / 'blocking', writes=True)
        asynchronous = Checkpoints(Path(folder) / 'asynchronous', writes=True, asynchronous=True)
        for checkpoints in (blocking, asynchronous):
            closing.enter_context(contextlib.closing(checkpoints))
        for step in range(settings.rounds + 1):  # the first round is not counted
            saved = {SYNCHRONOUS: _seconds_of_save(blocking, step, items)}
            saved[RETURN] = _seconds_of_save(asynchronous, step, items)
            saved[WRITTEN] = saved[RETURN] + _seconds(asynchronous.wait)
            if step:
                for name, seconds in saved.items():
                    times[name].append(seconds)
            log(f'round {step} of {settings.rounds}')
    median = {name: statistics.median(seconds) for name, seconds in times.items()}
    where = f'{settings.backbone}, {size:.0f} MiB'
    command = runner.command_line('checkpointing', settings)
    return Findings(
        [
            Comparison(name, SYNCHRONOUS, where, command, (median[name], median[SYNCHRONOUS]))
            for name in (RETURN, WRITTEN)
        ]
    )


def state(settings: Settings) -> dict[str, Any]:
    """The items of a checkpoint of the first stage, with random weights."""
    config = training.configuration(
        training.Settings(backbone=settings.backbone, size=settings.size, num_classes=settings.num_classes)
    )
    stage, mesh = config.stages[0], sharding.make_mesh(jax.devices()[:1])
    model = build_model(config, settings.num_classes, pretrained=False)
    _, params, stats = split_model(model)
    optimizer, _ = make_train_step(model, stage, frozenset(stage.train), config, 1, mesh)
    return {'params': params, 'stats': stats, 'opt': jax.jit(optimizer.init)(params)}


def _seconds_of_save(checkpoints: Checkpoints, step: int, items: dict[str, Any]) -> float:
    # JAX keeps what it has copied off the devices, so each save gets arrays of its own, as in training.
    fresh = jax.block_until_ready(jax.tree.map(jnp.copy, items))
    return _seconds(lambda: checkpoints.save(step, fresh))


def _seconds(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == '__main__':
    runner.run('checkpointing', Settings, measure)
