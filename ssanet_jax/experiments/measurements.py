"""Measurements of a trained run beyond its accuracy: the paper's Tables 1 and 2, its Figure 4, and feature sharing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ssanet_jax.data.dataset import Dataset
from ssanet_jax.data.pipeline import eval_batches, list_unreadable
from ssanet_jax.data.splits import image_set
from ssanet_jax.evaluation.keypoint_layout import keypoint_layout
from ssanet_jax.evaluation.keypoints import annotated_batches, check_keypoints, evaluate_keypoints
from ssanet_jax.evaluation.part_statistics import NEAR, LocatedParts
from ssanet_jax.evaluation.robustness import evaluate_robustness
from ssanet_jax.experiments.inference import evaluation_mesh, predict_function, track_batches
from ssanet_jax.experiments.sharing_tradeoff import check_proposals, measure_sharing
from ssanet_jax.runs.evaluation_count import count_test_evaluation
from ssanet_jax.runs.files import write_arrays, write_json
from ssanet_jax.runs.run import Run

BEFORE, AFTER = 'before scale mining', 'after scale mining'


@dataclass(frozen=True)
class Options:
    """Settings of the measurements."""

    seed: int = 0  # seed of the random angles
    rounds: int = 5  # rounds of timing
    batch_size: int | None = None  # images per timed call; None: the run's evaluation batch


class Measured(NamedTuple):
    """The result of a measurement."""

    content: dict[str, Any]  # of `<name>.json` in the run's folder
    arrays: Mapping[str, np.ndarray] | None = None  # of `<name>.npz` beside it: one row per test image


@dataclass(frozen=True)
class Measurement:
    """Something that can be measured of a trained run."""

    name: str
    measure: Callable[[Run, Dataset, Options], Measured]
    check: Callable[[Run, Dataset], None]  # raises `UserError` if the run or its data cannot be measured so
    unreadable: str  # what it makes of images that cannot be read, as in `unreadable_line`
    accuracy: bool  # whether it evaluates accuracies on the test images, which is counted


def measure_robustness(run: Run, dataset: Dataset, seed: int = 0) -> Measured:
    """`evaluate_robustness` of a run's predictions on the test set; the arrays are those of `ImagePredictions`.

    Args:
      run: the network.
      dataset: its data.
      seed: determines the random angles.
    """
    mesh = evaluation_mesh(run)
    predict = predict_function(run, mesh)
    config = run.config.data
    batches = track_batches('robustness', eval_batches(dataset.test, config), len(dataset.test), config.eval_batch_size)
    result = evaluate_robustness(lambda images: predict(images).logits, batches, mesh, seed)
    content = {field.name: getattr(result, field.name) for field in fields(result) if field.name != 'images'}
    return Measured(content, replace(result.images, image_set=image_set(dataset, 'test')).to_arrays())


def measure_keypoints(run: Run, dataset: Dataset) -> Measured:
    """`evaluate_keypoints` of a run's parts on the test set, with the names of the key points."""
    check_parts(run, dataset)
    mesh = evaluation_mesh(run)
    predict = predict_function(run, mesh)
    config = run.config.data
    layout = keypoint_layout(dataset.keypoint_names, dataset.keypoint_groups)

    def locate(images: jax.Array) -> dict[str, LocatedParts]:
        outputs = predict(images)
        assert outputs.boxes is not None  # `check_parts`
        parts = {BEFORE: LocatedParts(outputs.boxes[:, : run.model.num_parts], outputs.present)}
        if 'scale_mining' in run.active and run.model.num_scales > 1:
            assert outputs.aligned_boxes is not None
            parts[AFTER] = LocatedParts(outputs.aligned_boxes, outputs.present)
        return parts

    batches = annotated_batches(dataset, config)
    batches = track_batches('key points', batches, len(dataset.test), config.eval_batch_size)
    result = evaluate_keypoints(locate, batches, mesh, layout)
    header = {'keypoint_names': list(layout.names), 'group_names': list(layout.groups), 'near': NEAR}
    return Measured(header | {'image_size': config.image_size} | result.to_json(), result.per_image)


def check_parts(run: Run, dataset: Dataset) -> None:
    """Raises `UserError` if the data set has no key points or the network has no parts."""
    check_keypoints(dataset)
    check_proposals(run)


MEASUREMENTS: dict[str, Measurement] = {
    measurement.name: measurement
    for measurement in (
        Measurement(
            'robustness',
            lambda run, dataset, options: measure_robustness(run, dataset, options.seed),
            lambda run, dataset: None,
            'count as wrong',
            True,
        ),
        Measurement(
            'keypoints',
            lambda run, dataset, options: measure_keypoints(run, dataset),
            check_parts,
            'are left out',
            False,
        ),
        Measurement(
            'sharing',
            lambda run, dataset, options: Measured(
                measure_sharing(run, dataset, options.rounds, options.batch_size).to_json()
            ),
            lambda run, dataset: check_proposals(run),
            'count as wrong',
            True,
        ),
    )
}


def write_measurement(workdir: Path, name: str, run: Run, dataset: Dataset, measured: Measured) -> dict[str, Any]:
    """Writes a result, with the data set and the stage it belongs to, to the run's folder, and counts it.

    Returns:
      The content of `<name>.json`.
    """
    if MEASUREMENTS[name].accuracy:
        count_test_evaluation(workdir, name)
    content: dict[str, Any] = {'dataset': dataset.name, 'stage': run.stage} | measured.content
    content['unreadable'] = list_unreadable(dataset.test, measured.content['unreadable'])
    if measured.arrays is not None:
        write_arrays(workdir / f'{name}.npz', measured.arrays)
    write_json(workdir / f'{name}.json', content)
    return content
