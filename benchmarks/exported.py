"""The time of an exported network in onnxruntime and OpenVINO, relative to the same network in XLA.

    python -m benchmarks.exported                        # the recommended settings with random weights
    python -m benchmarks.exported --workdir=runs/birds   # a finished run

All compute the same inputs in one process, in alternation, in float32: logits, parts, evidence and features.
"""

import dataclasses

import numpy as np

from benchmarks import artifacts, networks, runner
from benchmarks.artifacts import ONNXRUNTIME, OPENVINO
from benchmarks.comparisons import Comparison, Findings, compare
from benchmarks.programs import cpu_seconds
from benchmarks.runner import setting
from ssanet_jax.artifact.onnx_file import OnnxFile
from ssanet_jax.configs import common
from ssanet_jax.experiments.timing import Log, no_log, time_interleaved
from ssanet_jax.filesystem.paths import user_path
from ssanet_jax.models.backbones.registry import BACKBONES
from ssanet_jax.models.groups import active_groups
from ssanet_jax.predictor import Predictor, load
from ssanet_jax.runs.run import build_model

XLA = 'XLA'


@dataclasses.dataclass(frozen=True)
class Settings:
    """The network and the images per call."""

    workdir: str = setting('', 'A finished run; without it, a network with random weights.')
    variant: str = setting('prototypes', 'Variant of configs/cub.py.', choices=tuple(common.prototype_variants()))
    backbone: str = setting('efficientnet_lite0', 'Name of the backbone.', choices=tuple(BACKBONES))
    size: int = setting(448, 'Side of the images, pixels.', minimum=32)
    num_classes: int = setting(200, 'Number of classes.', minimum=2)
    batch: tuple[int, ...] = setting((1, 8), 'Images per call.', minimum=1)
    weights: str = setting('float32', 'Type of the weights in the file.', choices=('float32', 'float16'))
    rounds: int = setting(5, 'Rounds; the median counts.')


def measure(settings: Settings, log: Log = no_log) -> Findings:
    """onnxruntime against XLA, and OpenVINO against onnxruntime, per image."""
    predictor = load(user_path(settings.workdir, '--workdir')) if settings.workdir else _random(settings)
    size = predictor.inputs.image_size
    images = np.random.default_rng(0).integers(0, 256, (max(settings.batch), size, size, 3), np.uint8)
    log('exporting')
    file = artifacts.export(predictor, images, settings.weights)
    found = []
    for count in settings.batch:
        found += _compare(predictor, file, images[:count], settings, log)
    return Findings(found)


def _compare(
    predictor: Predictor, file: OnnxFile, images: np.ndarray, settings: Settings, log: Log
) -> list[Comparison]:
    runtimes = artifacts.runtimes(file, images)
    workloads = runtimes.workloads | {XLA: lambda: predictor.outputs(images)}
    times = time_interleaved(workloads, settings.rounds, log)
    seconds = {name: value / len(images) for name, value in times.items()}
    cpu = {name: cpu_seconds(workload) / len(images) for name, workload in workloads.items()}
    where = (
        f'{predictor.config.model.backbone}, {predictor.inputs.image_size}, {settings.weights} weights, '
        f'batch {len(images)}; time per image'
    )
    command = runner.command_line('exported', settings)
    rows = compare(seconds, [(ONNXRUNTIME, XLA, None), (OPENVINO, ONNXRUNTIME, None)], where=where, command=command)
    found = [
        row._replace(
            images=1,
            remark=f'{1e3 * cpu[row.first]:.1f} and {1e3 * cpu[row.second]:.1f} ms of CPU time',
            details={f'cpu_seconds of {name}': cpu[name] for name in (row.first, row.second)},
        )
        for row in rows
    ]
    missing = [Comparison(name, ONNXRUNTIME, where, command, remark=why) for name, why in runtimes.missing.items()]
    return found + missing


def _random(settings: Settings) -> Predictor:
    """A network with random weights."""
    config = common.prototype_variants()[settings.variant]()
    config.data.update(image_size=settings.size, resize=settings.size, interpolation='bilinear')
    config.model.update(backbone=settings.backbone, crop_size=networks.crop_size(settings.backbone))
    model = build_model(config, settings.num_classes, pretrained=False)
    active = active_groups(config.stages, len(config.stages) - 1)
    return Predictor(model, active, config, [f'class {number}' for number in range(settings.num_classes)])


if __name__ == '__main__':
    runner.run('exported', Settings, measure)
