"""The time per photo of the command `predict`, relative to an evaluation of the same files.

    python -m benchmarks.prediction

Both read JPEG files, with the same network, images per call and threads, in alternation in one process. The evaluation
only counts correct predictions. `predict` also finds where the parts lie in the photo and what each adds, writes its
journal and `predictions.jsonl`, and draws a picture of the parts unless `--pictures=none` is given. Photos are not
shrunk first, as an evaluation reads a data set whose photos have been.
"""

import dataclasses
import itertools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ml_collections import ConfigDict

from benchmarks import networks, runner
from benchmarks.comparisons import Comparison, Findings
from benchmarks.programs import cpu_seconds
from benchmarks.runner import setting
from ssanet_jax.configs import common
from ssanet_jax.data.image_inputs import read_image
from ssanet_jax.data.pipeline import eval_batches
from ssanet_jax.distributed import sharding
from ssanet_jax.evaluation.accuracy import evaluate, make_classify
from ssanet_jax.evaluation.prediction import Prediction
from ssanet_jax.experiments.timing import Log, no_log, time_interleaved
from ssanet_jax.models.backbones.registry import BACKBONES
from ssanet_jax.models.groups import active_groups
from ssanet_jax.models.inference import optimize_for_inference
from ssanet_jax.models.ssanet import SSANet, split_model
from ssanet_jax.prediction_files.formats import FORMATS, write_formats
from ssanet_jax.prediction_files.journal import open_journal
from ssanet_jax.prediction_files.recording import record_predictions
from ssanet_jax.predictor import Predictor
from ssanet_jax.runs.run import build_model

_BATCH = 8  # as in the command
_HEIGHT, _WIDTH = 375, 500  # of a photo, as most of CUB-200-2011
EVALUATION, NO_PICTURES, PARTS = 'evaluation', 'predict --pictures=none', 'predict --pictures=parts'


@dataclasses.dataclass(frozen=True)
class Settings:
    """The network and the photos."""

    variant: str = setting('fast', 'Variant of configs/cub.py.', choices=tuple(common.prototype_variants()))
    backbone: str = setting('efficientnet_lite0', 'Name of the backbone.', choices=tuple(BACKBONES))
    size: int = setting(448, 'Side of the images, pixels.', minimum=32)
    num_classes: int = setting(200, 'Number of classes.', minimum=2)
    photos: int = setting(96, 'Photos per round.', minimum=8)
    rounds: int = setting(5, 'Rounds; the median counts.')


class _Photos:
    """A data set of files, all of class 0."""

    def __init__(self, files: list[str]):
        self.labels = np.zeros(len(files), np.int32)
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        file = self._files[index]
        return {'image': read_image(file), 'label': self.labels[index], 'file': file}


def measure(settings: Settings, log: Log = no_log) -> Findings:
    """`predict` against an evaluation, per photo."""
    with tempfile.TemporaryDirectory() as folder:
        files = _make_photos(Path(folder) / 'photos', settings.photos)
        config = common.prototype_variants()[settings.variant]()
        _resize(config, settings)
        model = build_model(config, settings.num_classes, pretrained=False)
        active = active_groups(config.stages, len(config.stages) - 1)
        names = [f'class {number}' for number in range(settings.num_classes)]
        predictor = Predictor(model, active, config, names)
        command = lambda draw: _predict(predictor, files, Path(folder) / 'out', draw)
        workloads = {
            EVALUATION: _evaluation(model, active, config, files),
            NO_PICTURES: lambda: command(lambda prediction, path: None),
            PARTS: lambda: command(lambda prediction, path: prediction.save(path)),
        }
        times = time_interleaved(workloads, settings.rounds, log)
        cpu = {name: cpu_seconds(workload) / len(files) for name, workload in workloads.items()}
    seconds = {name: value / len(files) for name, value in times.items()}
    where = f'{settings.variant}, {settings.backbone}, {settings.size}, batch {_BATCH}; time per photo'
    line = runner.command_line('prediction', settings)
    return Findings(
        [
            Comparison(
                name,
                EVALUATION,
                where,
                line,
                (seconds[name], seconds[EVALUATION]),
                remark=f'{1e3 * cpu[name]:.1f} and {1e3 * cpu[EVALUATION]:.1f} ms of CPU time',
                details={'cpu_seconds': cpu[name], 'cpu_seconds_of_evaluation': cpu[EVALUATION]},
                images=1,
            )
            for name in (NO_PICTURES, PARTS)
        ]
    )


def _resize(config: ConfigDict, settings: Settings) -> None:
    crop_size = networks.crop_size(settings.backbone)
    config.data.update(image_size=settings.size, resize=settings.size, shrink=False, eval_batch_size=_BATCH)
    config.model.update(backbone=settings.backbone, crop_size=crop_size)
    for view in ('global_size', 'upright_size'):
        if config.model[view]:
            config.model[view] = crop_size


def _evaluation(model: SSANet, active: frozenset[str], config: ConfigDict, files: list[str]) -> Callable[[], object]:
    mesh = sharding.make_mesh(images=_BATCH)
    optimized = optimize_for_inference(model)
    _, params, stats = split_model(optimized)
    params, stats = sharding.replicate((params, stats), mesh)
    classify = make_classify(optimized, active, mesh)
    source = _Photos(files)
    return lambda: evaluate(classify, params, stats, eval_batches(source, config.data), mesh)


def _predict(predictor: Predictor, files: list[str], out: Path, draw: Callable[[Prediction, Path], None]) -> None:
    shutil.rmtree(out, ignore_errors=True)
    number = itertools.count()
    with open_journal(out, {}, files) as journal:
        for records in record_predictions(
            predictor,
            files,
            _BATCH,
            lambda prediction: {'file': prediction.path, **prediction.to_dict()},
            lambda prediction: draw(prediction, out / f'{next(number)}.png'),
        ):
            journal.add(records)
        write_formats(out, [FORMATS['jsonl']], journal, 'network')
    assert len((out / 'predictions.jsonl').read_text().splitlines()) == len(files)


def _make_photos(folder: Path, count: int) -> list[str]:
    """Photos as large on disk as those of birds: smooth noise, since a photo has few high frequencies."""
    folder.mkdir()
    random = np.random.default_rng(0)
    files = []
    for number in range(count):
        coarse = random.integers(0, 256, (_HEIGHT // 8, _WIDTH // 8, 3), np.uint8)
        files.append(str(folder / f'{number}.jpg'))
        cv2.imwrite(files[-1], cv2.resize(coarse, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_CUBIC))
    return files


if __name__ == '__main__':
    runner.run('prediction', Settings, measure)
