"""What can be measured of a trained run beyond its accuracy: the paper's Tables 1 and 2, and its Figure 4."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import track

from ssanet_jax.data.dataset import Dataset
from ssanet_jax.data.pipeline import Batch, eval_batches, list_unreadable, num_steps
from ssanet_jax.distributed import sharding
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.accuracy import make_predict
from ssanet_jax.evaluation.keypoints import annotated_batches, check_keypoints, keypoint_distances
from ssanet_jax.evaluation.robustness import robustness
from ssanet_jax.models.inference import optimize_for_inference
from ssanet_jax.models.outputs import Outputs
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.runs.files import write_json
from ssanet_jax.runs.run import Run

BEFORE, AFTER = 'before scale mining', 'after scale mining'
CENTRE = 'centre of the image'  # where photographers put the object: what any box has to be nearer than


def measure_robustness(run: Run, dataset: Dataset, seed: int = 0) -> dict[str, Any]:
    """`robustness` of a run's prediction on the test set.

    Args:
      run, dataset: the network and its data.
      seed: of the random angles.
    """
    mesh = _mesh(run)
    predict = network(run, mesh)
    config = run.config.data
    batches = tracked('robustness', eval_batches(dataset.test, config), len(dataset.test), config.eval_batch_size)
    return robustness(lambda images: predict(images).logits, batches, mesh, seed)


def measure_keypoints(run: Run, dataset: Dataset) -> dict[str, Any]:
    """`keypoint_distances` of a run's parts on the test set, with the names of the key points."""
    check_parts(run, dataset)
    mesh = _mesh(run)
    predict = network(run, mesh)
    config = run.config.data
    side = config.image_size

    def locate(images):
        outputs = predict(images)
        boxes = {BEFORE: outputs.boxes[:, : run.model.num_parts]}
        if 'scale_mining' in run.active:
            boxes[AFTER] = outputs.aligned_boxes
        return boxes | {CENTRE: np.tile(np.float32([0, 0, side, side]), (len(images), 1, 1))}

    batches = tracked('key points', annotated_batches(dataset, config), len(dataset.test), config.eval_batch_size)
    about = {'keypoint_names': list(dataset.keypoint_names), 'image_size': side}
    return about | keypoint_distances(locate, batches, mesh)


def check_parts(run: Run, dataset: Dataset) -> None:
    """Raises `UserError` for a run or a data set whose parts cannot be held against key points."""
    check_keypoints(dataset)
    check_proposals(run)


def check_proposals(run: Run) -> None:
    """Raises `UserError` for a network that looks for no parts, and so describes no regions."""
    if 'proposals' not in run.active:
        raise UserError(f'the network of stage {run.stage} looks for no parts: measure a run that trains proposals')


def write_measurement(workdir: Path, name: str, run: Run, dataset: Dataset, result: dict[str, Any]) -> dict[str, Any]:
    """Writes what was measured to `<name>.json` of the run, with what it was measured on, and returns that."""
    result['unreadable'] = list_unreadable(dataset.test, result['unreadable'])
    content = {'dataset': dataset.name, 'stage': run.stage} | result
    write_json(workdir / f'{name}.json', content)
    return content


def _mesh(run: Run) -> Mesh:
    return sharding.make_mesh(images=run.config.data.eval_batch_size)


def network(run: Run, mesh: Mesh) -> Callable[[jax.Array], Outputs]:
    """The run's network as a function of images alone."""
    model = optimize_for_inference(run.model)
    _, params, stats = split_model(model)
    params, stats = sharding.replicate((params, stats), mesh)
    predict = make_predict(model, run.active, mesh)
    return lambda images: predict(params, stats, images)


def tracked(what: str, batches: Iterator[Batch], images: int, batch_size: int) -> Iterator[Batch]:
    """Batches of so many images, with a bar on stderr that says how many have gone by."""
    total = num_steps(1, images, batch_size)
    return track(batches, what, total=total, console=Console(stderr=True), transient=True)
