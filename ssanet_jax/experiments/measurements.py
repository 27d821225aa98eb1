"""Measurements of a trained run beyond its accuracy: the paper's Tables 1 and 2, its Figure 4, and feature sharing."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ssanet_jax.data.dataset import Dataset
from ssanet_jax.data.pipeline import eval_batches, list_unreadable
from ssanet_jax.evaluation.keypoints import annotated_batches, check_keypoints, evaluate_keypoints
from ssanet_jax.evaluation.robustness import evaluate_robustness
from ssanet_jax.experiments.inference import evaluation_mesh, predict_function, track_batches
from ssanet_jax.experiments.sharing_tradeoff import check_proposals, measure_sharing
from ssanet_jax.runs.files import write_json
from ssanet_jax.runs.run import Run

BEFORE, AFTER = 'before scale mining', 'after scale mining'
CENTER = 'centre of the image'  # the baseline: photographers center the object


@dataclass(frozen=True)
class Options:
    """Settings of the measurements."""

    seed: int = 0  # seed of the random angles
    rounds: int = 5  # rounds of timing
    batch_size: int | None = None  # images per timed call; None: the run's evaluation batch


@dataclass(frozen=True)
class Measurement:
    """Something that can be measured of a trained run; its result is written to `<name>.json` in the run's folder."""

    name: str
    measure: Callable[[Run, Dataset, Options], dict[str, Any]]  # returns the content of the file
    check: Callable[[Run, Dataset], None]  # raises `UserError` if the run or its data cannot be measured so
    unreadable: str  # how images that cannot be read are treated


def measure_robustness(run: Run, dataset: Dataset, seed: int = 0) -> dict[str, Any]:
    """`evaluate_robustness` of a run's predictions on the test set, as a dictionary.

    Args:
      run: the network.
      dataset: its data.
      seed: determines the random angles.
    """
    mesh = evaluation_mesh(run)
    predict = predict_function(run, mesh)
    config = run.config.data
    batches = track_batches('robustness', eval_batches(dataset.test, config), len(dataset.test), config.eval_batch_size)
    return asdict(evaluate_robustness(lambda images: predict(images).logits, batches, mesh, seed))


def measure_keypoints(run: Run, dataset: Dataset) -> dict[str, Any]:
    """`evaluate_keypoints` of a run's parts on the test set, as a dictionary, with the names of the key points."""
    check_parts(run, dataset)
    mesh = evaluation_mesh(run)
    predict = predict_function(run, mesh)
    config = run.config.data
    side = config.image_size

    def locate(images: jax.Array) -> dict[str, Any]:
        outputs = predict(images)
        assert outputs.boxes is not None  # `check_parts`
        boxes: dict[str, Any] = {BEFORE: outputs.boxes[:, : run.model.num_parts]}
        if 'scale_mining' in run.active:
            boxes[AFTER] = outputs.aligned_boxes
        return boxes | {CENTER: np.tile(np.array([0, 0, side, side], np.float32), (len(images), 1, 1))}

    batches = annotated_batches(dataset, config)
    batches = track_batches('key points', batches, len(dataset.test), config.eval_batch_size)
    header = {'keypoint_names': list(dataset.keypoint_names), 'image_size': side}
    return header | asdict(evaluate_keypoints(locate, batches, mesh))


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
            'counted as wrong',
        ),
        Measurement(
            'keypoints',
            lambda run, dataset, options: measure_keypoints(run, dataset),
            check_parts,
            'left out',
        ),
        Measurement(
            'sharing',
            lambda run, dataset, options: measure_sharing(run, dataset, options.rounds, options.batch_size).to_json(),
            lambda run, dataset: check_proposals(run),
            'counted as wrong',
        ),
    )
}


def write_measurement(workdir: Path, name: str, run: Run, dataset: Dataset, result: dict[str, Any]) -> dict[str, Any]:
    """Writes a result, with the data set and the stage it belongs to, to `<name>.json` of the run.

    Returns:
      The content of the file.
    """
    content = {'dataset': dataset.name, 'stage': run.stage} | result
    content['unreadable'] = list_unreadable(dataset.test, result['unreadable'])
    write_json(workdir / f'{name}.json', content)
    return content
