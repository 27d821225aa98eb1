"""The time of an exported network in onnxruntime, relative to the same network in XLA.

    python -m benchmarks.exported                        # the recommended settings with random weights
    python -m benchmarks.exported --workdir=runs/birds   # a finished run

Both compute the same inputs in one process, in alternation: logits, parts, evidence and features.
"""

import dataclasses

import numpy as np

from benchmarks import networks, runner
from benchmarks.comparisons import Comparison, Findings
from benchmarks.programs import cpu_seconds
from benchmarks.runner import setting
from ssanet_jax.artifact.onnx_file import OnnxFile, check_content
from ssanet_jax.artifact.onnx_predictor import OnnxPredictor
from ssanet_jax.configs import common
from ssanet_jax.errors import UserError
from ssanet_jax.experiments.timing import Log, no_log, time_interleaved
from ssanet_jax.filesystem.paths import user_path
from ssanet_jax.models.backbones.registry import BACKBONES
from ssanet_jax.models.groups import active_groups
from ssanet_jax.predictor import Predictor, load
from ssanet_jax.runs.run import build_model

ONNXRUNTIME, XLA = 'onnxruntime', 'XLA'


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
    """onnxruntime against XLA, per image."""
    try:
        from ssanet_jax.export.checking import CheckImages
        from ssanet_jax.export.onnx_export import export_onnx
    except ImportError as error:
        raise UserError(f'{error}: pip install "ssanet-jax[export]"') from error
    predictor = load(user_path(settings.workdir, '--workdir')) if settings.workdir else _random(settings)
    size = predictor.inputs.image_size
    images = np.random.default_rng(0).integers(0, 256, (max(settings.batch), size, size, 3), np.uint8)
    log('exporting')
    content, _ = export_onnx(predictor, 'benchmark', settings.weights, CheckImages(images[:2], 'noise'))
    exported = OnnxPredictor(OnnxFile(content, check_content(content, 'the export')))
    return Findings([_compare(predictor, exported, images[:count], settings, log) for count in settings.batch])


def _compare(
    predictor: Predictor, exported: OnnxPredictor, images: np.ndarray, settings: Settings, log: Log
) -> Comparison:
    workloads = {ONNXRUNTIME: lambda: exported.outputs(images), XLA: lambda: predictor.outputs(images)}
    times = time_interleaved(workloads, settings.rounds, log)
    cpu = {name: cpu_seconds(workload) / len(images) for name, workload in workloads.items()}
    seconds = {name: value / len(images) for name, value in times.items()}
    return Comparison(
        ONNXRUNTIME,
        XLA,
        f'{predictor.config.model.backbone}, {predictor.inputs.image_size}, {settings.weights} weights, '
        f'batch {len(images)}; time per image',
        runner.command_line('exported', settings),
        (seconds[ONNXRUNTIME], seconds[XLA]),
        remark=f'{1 / seconds[ONNXRUNTIME]:.1f} and {1 / seconds[XLA]:.1f} images/s, '
        f'{1e3 * cpu[ONNXRUNTIME]:.1f} and {1e3 * cpu[XLA]:.1f} ms of CPU time',
        details={'cpu_seconds': cpu[ONNXRUNTIME], 'cpu_seconds_of_xla': cpu[XLA]},
    )


def _random(settings: Settings) -> Predictor:
    """A network with random weights."""
    config = common.prototype_variants()[settings.variant]()
    config.data.update(image_size=settings.size, resize=settings.size)
    config.model.update(backbone=settings.backbone, crop_size=networks.crop_size(settings.backbone))
    model = build_model(config, settings.num_classes, pretrained=False)
    active = active_groups(config.stages, len(config.stages) - 1)
    return Predictor(model, active, config, [f'class {number}' for number in range(settings.num_classes)])


if __name__ == '__main__':
    runner.run('exported', Settings, measure)
