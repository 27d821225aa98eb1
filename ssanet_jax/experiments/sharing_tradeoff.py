"""Accuracy and latency of one trained network for each value of `config.model.sharing`.

The modes of `models/sharing.py` have no weights, so a network trained with one of them can predict with any other.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssanet_jax.data.dataset import Dataset
from ssanet_jax.data.pipeline import eval_batches
from ssanet_jax.distributed import sharding
from ssanet_jax.distributed.sharding import device_kind
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.accuracy import Classify, Evaluation, HeadPredictions, evaluate, head_logits
from ssanet_jax.experiments.inference import Predict, predict_function, track_batches
from ssanet_jax.experiments.paired_comparison import paired_difference
from ssanet_jax.experiments.timing import time_interleaved
from ssanet_jax.models.sharing import REGION_SIDE, Sharing
from ssanet_jax.models.ssanet import merge_model, split_model
from ssanet_jax.runs.image_predictions import SUM
from ssanet_jax.runs.run import Run, build_model

GLOBAL_POOLING = 'global pooling'  # the baseline: the backbone with its image classifier


class SharingMode(NamedTuple):
    """A way to compute the features of regions: how they are shared, and at which stride."""

    sharing: Sharing
    dilated: bool = False

    def __str__(self) -> str:
        return f'{self.sharing}, dilated' if self.dilated else self.sharing


@dataclasses.dataclass(frozen=True)
class ModeResult:
    """Accuracy and latency of a network in one mode."""

    accuracy: float
    heads: dict[str, float]  # accuracy of each head
    won: int  # images that this mode has right and the trained mode wrong
    lost: int  # the reverse
    difference: float  # accuracy minus that of the trained mode, percentage points
    half_width: float  # half the width of its 95 % interval, see `paired_difference`
    milliseconds: dict[str, float]  # per image, by images per call


@dataclasses.dataclass(frozen=True)
class ModeRow:
    """One mode: its result, or the reason why the network cannot predict in it."""

    mode: SharingMode
    crop_size: int | None  # side of the crops in pixels; None for 'image', which has none
    trained: bool  # whether the run was trained in this mode
    result: ModeResult | None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The row in `sharing.json`."""
        header = {
            'way': str(self.mode),
            'sharing': self.mode.sharing,
            'dilate': self.mode.dilated,
            'crop_size': self.crop_size,
            'trained': self.trained,
        }
        return header | ({'problem': self.problem} if self.result is None else dataclasses.asdict(self.result))


@dataclasses.dataclass(frozen=True)
class SharingResult:
    """The result of `measure_sharing`."""

    rows: tuple[ModeRow, ...]
    baseline_accuracy: float | None  # accuracy of global pooling; None if the run trained no image classifier
    baseline_milliseconds: dict[str, float]
    examples: int
    unreadable: list[int]  # positions of images; they count as wrong
    device: str

    def to_json(self) -> dict[str, Any]:
        """The content of `sharing.json`."""
        return {
            'ways': [row.to_json() for row in self.rows],
            'global_pooling': {'accuracy': self.baseline_accuracy, 'milliseconds': self.baseline_milliseconds},
            'examples': self.examples,
            'unreadable': self.unreadable,
            'device': self.device,
        }


def check_proposals(run: Run) -> None:
    """Raises `UserError` for a network without parts."""
    if 'proposals' not in run.active:
        raise UserError(f'the network of stage {run.stage} has no parts: measure a run that trains proposals')


def trained_mode(run: Run) -> SharingMode:
    """The mode that a run was trained in."""
    return SharingMode(run.model.sharing, run.model.backbone.dilated)


def candidate_modes(run: Run) -> list[SharingMode]:
    """The modes to compare: all three, and for a dilated run 'image' and 'part' without dilation too.

    A run trained without dilation is not dilated: that would be another, slower network.
    """
    dilations = (True, False) if trained_mode(run).dilated else (False,)
    shared: tuple[Sharing, ...] = ('image', 'part')
    modes = [SharingMode(sharing, dilated) for sharing in shared for dilated in dilations]
    return [*modes, SharingMode('none')]


def with_mode(run: Run, mode: SharingMode) -> Run:
    """The run with the same weights in a network of another mode.

    Crops of 'part', and those of 'none' in a run trained with it, have the run's `config.model.crop_size`. In other
    runs, those of 'none' have the size that makes a 7 x 7 map.

    Raises:
      UserError: the network does not support the mode.
    """
    config = run.config.copy_and_resolve_references()
    config.model.sharing = mode.sharing
    config.model.output_stride = run.model.backbone.stride if mode.dilated else 0
    if mode.sharing == 'none':
        config.model.crop_size = _crop_size(run, mode)
    shapes = nnx.eval_shape(lambda: build_model(config, len(run.class_names), pretrained=False))
    model = merge_model(split_model(shapes)[0], *split_model(run.model)[1:])
    return dataclasses.replace(run, config=config, model=model)


def _crop_size(run: Run, mode: SharingMode) -> int | None:
    if mode.sharing == 'image':
        return None
    if mode.sharing in ('part', run.model.sharing):
        return run.model.crop_size
    return REGION_SIDE * run.model.anchor_stride  # the anchors have the undilated stride


def measure_sharing(run: Run, dataset: Dataset, rounds: int = 5, batch_size: int | None = None) -> SharingResult:
    """Accuracy on the test set and latency of prediction for each way to share features.

    Args:
      run: the trained network.
      dataset: its data.
      rounds: rounds of timing; the median counts.
      batch_size: images per timed call, besides the single image that is always timed; the run's evaluation batch by
        default.

    Raises:
      UserError: the network has no parts, or a batch in its own mode does not fit into memory.
    """
    check_proposals(run)
    data = run.config.data.copy_and_resolve_references()
    batch_size = int(batch_size or data.eval_batch_size)
    data.eval_batch_size = batch_size
    own = trained_mode(run)
    runs, problems = _runs_by_name(run)

    milliseconds: dict[str, dict[str, float]] = {name: {} for name in runs}
    evaluation: Evaluation | None = None
    for batch in sorted({1, batch_size}):
        mesh = sharding.make_mesh(images=batch)
        predict = {name: predict_function(runs[name], mesh) for name in runs}
        images = _random_images(batch, data.image_size, mesh)
        for name in _too_large(predict, images):
            problems[name] = f'{batch} images at once do not fit into memory: lower --batch'
            del runs[name], predict[name]
            if name == str(own):  # the reference of all comparisons
                raise UserError(problems[name])
        if batch == batch_size:
            evaluation = _evaluate(predict, str(own), dataset, data, mesh)
        for name, seconds in _time_predictions(predict, images, rounds).items():
            milliseconds[name][str(batch)] = 1e3 * seconds / batch

    assert evaluation is not None  # one of the timed batches is the evaluation's
    rows = []
    for mode in candidate_modes(run):
        name = str(mode)
        result = None if name in problems else _mode_result(name, evaluation, milliseconds[name])
        rows.append(ModeRow(mode, _crop_size(run, mode), mode == own, result, problems.get(name)))
    return SharingResult(
        rows=tuple(rows),
        baseline_accuracy=evaluation.heads[GLOBAL_POOLING, SUM] if 'image_classifier' in run.active else None,
        baseline_milliseconds=milliseconds[GLOBAL_POOLING],
        examples=evaluation.examples,
        unreadable=evaluation.unreadable,
        device=device_kind(),
    )


def _runs_by_name(run: Run) -> tuple[dict[str, Run], dict[str, str]]:
    """The baseline and the run in each mode, and by name why the network does not support the others."""
    runs = {GLOBAL_POOLING: _baseline(run)}
    problems = {}
    for mode in candidate_modes(run):
        try:
            runs[str(mode)] = with_mode(run, mode)
        except UserError as error:
            problems[str(mode)] = str(error).removeprefix('config.model: ')
    return runs, problems


def _baseline(run: Run) -> Run:
    """The backbone, without dilation, with its image classifier: no regions, so the run's own sharing does no harm."""
    undilated = with_mode(run, SharingMode(trained_mode(run).sharing))
    return dataclasses.replace(undilated, active=frozenset({'backbone', 'image_classifier'}))


def _too_large(predict: Mapping[str, Predict], images: jax.Array) -> Iterable[str]:
    """The modes, other than the baseline, in which these images do not fit into the devices' memory."""
    return [name for name in predict if name != GLOBAL_POOLING and not _fits(predict[name], images)]


def _fits(predict: Predict, images: jax.Array) -> bool:
    try:
        jax.block_until_ready(predict(images).logits)
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        return False
    return True


def _evaluate(predict: Mapping[str, Predict], own: str, dataset: Dataset, data: ConfigDict, mesh: Mesh) -> Evaluation:
    """`evaluate` with the heads (network, head); the prediction is that of `own`."""
    batches = eval_batches(dataset.test, data)
    batches = track_batches('feature sharing', batches, len(dataset.test), data.eval_batch_size)
    return evaluate(_make_classify(predict, own), {}, {}, batches, mesh)


def _make_classify(predict: Mapping[str, Predict], own: str) -> Classify:
    """Makes a function for `evaluate` with the heads (network, head); the prediction is that of `own`."""

    def classify(params, stats, batch):
        del params, stats  # each network has its own
        predicted = {
            (name, head): HeadPredictions(logits.argmax(-1))
            for name, network in predict.items()
            for head, logits in head_logits(network(batch['image'])).items()
        }
        return {**predicted, SUM: predicted[own, SUM]}

    return classify


def _mode_result(name: str, evaluation: Evaluation, milliseconds: dict[str, float]) -> ModeResult:
    heads = {head: share for (network, head), share in evaluation.heads.items() if network == name}
    correct, trained = evaluation.images.correct((name, SUM)), evaluation.images.correct()
    won, lost = int(np.sum(correct & ~trained)), int(np.sum(trained & ~correct))
    difference, half_width = paired_difference(won, lost, evaluation.examples)
    return ModeResult(heads.pop(SUM), heads, won, lost, difference, half_width, milliseconds)


def _random_images(count: int, side: int, mesh: Mesh) -> jax.Array:
    """Images on the devices; latency does not depend on their content."""
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    return sharding.shard_batch({'image': images}, mesh)['image']


def _time_predictions(predict: Mapping[str, Predict], images: jax.Array, rounds: int) -> dict[str, float]:
    """Seconds per call."""
    calls = {
        name: lambda network=network: jax.block_until_ready(network(images).logits) for name, network in predict.items()
    }
    return time_interleaved(calls, rounds)
