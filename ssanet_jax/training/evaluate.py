"""Evaluation of the networks that training makes."""

import dataclasses
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.console import Console

from ssanet_jax.activity import activity
from ssanet_jax.data.dataset import Dataset
from ssanet_jax.data.pipeline import eval_batches, list_unreadable
from ssanet_jax.data.registry import load_dataset
from ssanet_jax.data.splits import image_set
from ssanet_jax.distributed import processes, sharding
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.accuracy import evaluate, make_classify
from ssanet_jax.models.inference import optimize_for_inference
from ssanet_jax.models.ssanet import SSANet, split_model
from ssanet_jax.runs.compatibility import evaluation_config
from ssanet_jax.runs.evaluation_count import count_test_evaluation, evaluation_count_line
from ssanet_jax.runs.files import TRAIN_AGAIN, DamagedFile, read_run, write_json
from ssanet_jax.runs.image_predictions import PREDICTIONS_FILE, ImagePredictions, read_predictions, write_predictions
from ssanet_jax.runs.results import EvaluationResult, RunEvaluation, read_result, unreadable_line
from ssanet_jax.runs.run import Run, load_run


class Evaluator:
    """Measures the accuracy of a network. All evaluations share one compiled program.

    Args:
      model: gives the structure.
      active: groups that take part in the prediction.
      config: the whole configuration.
      workdir: the run's work directory, where evaluations on test images are counted.
      purpose: what the evaluations are for, for the count.

    Raises:
      UserError: the evaluation batch does not suit the devices.
    """

    def __init__(self, model: SSANet, active: frozenset[str], config: ConfigDict, workdir: Path, purpose: str):
        self._data = config.data
        self._workdir, self._purpose = workdir, purpose
        self.mesh = evaluation_mesh(config)
        self._classify = make_classify(model, active, self.mesh)

    def __call__(
        self, params: dict[str, Any], stats: dict[str, Any], dataset: Dataset, split: str
    ) -> tuple[EvaluationResult, ImagePredictions]:
        """Evaluates a network on all images of a split.

        Args:
          params: parameters by group, on the devices.
          stats: BatchNorm statistics by group, on the devices.
          dataset: the data set.
          split: 'test' or 'validation'.

        Returns:
          The accuracies, and the predictions for every image.
        """
        source = dataset.test if split == 'test' else dataset.validation
        assert source is not None
        batches = eval_batches(source, self._data, process=processes.current())
        found = evaluate(self._classify, params, stats, batches, self.mesh)
        if split == 'test':
            count_test_evaluation(self._workdir, self._purpose)
        result = EvaluationResult(
            accuracy=found.accuracy,
            examples=found.examples,
            heads=found.heads,
            unreadable=list_unreadable(source, found.unreadable),
        )
        return result, dataclasses.replace(found.images, image_set=image_set(dataset, split))


def evaluation_mesh(config: ConfigDict) -> Mesh:
    """Arranges the devices for batches of `config.data.eval_batch_size` images.

    Raises:
      UserError: the batch does not suit the devices.
    """
    mesh = sharding.make_mesh(images=config.data.eval_batch_size)
    sharding.check_batch(config.data.eval_batch_size, mesh, 'config.data.eval_batch_size')
    return mesh


def evaluate_run(config: ConfigDict, workdir: Path, console: Console) -> RunEvaluation:
    """Evaluates the network in a work directory on the test images of `config.data`, without training.

    Args:
      config: the configuration as given; the network's settings come from the run.
      workdir: the run's work directory. The result goes to its `evaluation.json`, and the predictions to its
        `predictions.npz` unless the images are others than those of the training.
      console: the console for progress messages.

    Raises:
      UserError: there is no trained network, or the data has other classes.
    """
    evaluation_mesh(config)  # its errors should come before the network is read
    run = load_run(workdir)
    config = evaluation_config(run.config, config)
    dataset = load_dataset(config.data, run.class_names)
    if dataset.class_names != run.class_names:
        raise UserError(
            f'{workdir} was trained on other classes than {dataset.name} has: check --config and config.data'
        )
    unfinished = '' if run.finished else ', which is not finished'
    print_dataset(console, dataset, f': {dataset.test_summary}; the network of stage {run.stage}{unfinished}')
    result, predictions = _evaluate_test_set(run, dataset, config, workdir, 'evaluation', console)
    if dataset.digest == read_run(workdir)['images']:
        write_predictions(workdir / PREDICTIONS_FILE, predictions)
    else:
        console.print(
            f'{PREDICTIONS_FILE} is left as it was, since the run was trained for other images', style='yellow'
        )
    write_json(workdir / 'evaluation.json', result.to_dict())
    console.print(evaluation_count_line(workdir), highlight=False)
    return result


def print_dataset(console: Console, dataset: Dataset, summary: str) -> None:
    """Prints what was understood of a data set, what was left out and what was guessed, one line each.

    Args:
      console: where to.
      dataset: the data set.
      summary: the first line after the data set's name, such as `Dataset.summary` after a colon.
    """
    console.print(f'{dataset.name}{summary}', markup=False, highlight=False, soft_wrap=True)
    for message in dataset.messages:
        console.print(message, style='yellow', markup=False, highlight=False, soft_wrap=True)


def evaluate_once(config: ConfigDict, workdir: Path, dataset: Dataset, console: Console) -> RunEvaluation:
    """Evaluates, on the test images, the network selected on the validation images.

    The result is kept in `test.json`, and the predictions in `predictions.npz`: a network is evaluated on the test
    images only once. Results of another network, such as that of a stage that has been trained again since, are
    replaced.
    """
    path = workdir / 'test.json'
    try:
        result = read_result(path, RunEvaluation, TRAIN_AGAIN)
        read_predictions(workdir / PREDICTIONS_FILE, TRAIN_AGAIN)
    except DamagedFile as error:
        result = None
        processes.barrier(f'read {path}')
        console.print(f'{error.problem}: the run is evaluated again', style='yellow', markup=False, soft_wrap=True)
    run = load_run(workdir)
    if result is not None and result.network not in ('', run.network_digest()):
        result = None
        problem = f'{path} is the result of another network'
        console.print(f'{problem}: the run is evaluated again', style='yellow', markup=False, soft_wrap=True)
    if result is None:
        result, predictions = _evaluate_test_set(run, dataset, config, workdir, 'end of training', console)
        write_predictions(workdir / PREDICTIONS_FILE, predictions)
        write_json(path, result.to_dict())
    return result


def _evaluate_test_set(
    run: Run, dataset: Dataset, config: ConfigDict, workdir: Path, purpose: str, console: Console
) -> tuple[RunEvaluation, ImagePredictions]:
    with activity(console, f'evaluating stage {run.stage} on {len(dataset.test)} images'):
        model = optimize_for_inference(run.model)
        evaluator = Evaluator(model, run.active, config, workdir, purpose)
        _, params, stats = split_model(model)
        params, stats = sharding.replicate((params, stats), evaluator.mesh)
        result, predictions = evaluator(params, stats, dataset, 'test')
    if line := unreadable_line(result.unreadable, result.examples):
        console.print(line, style='yellow', markup=False, highlight=False, soft_wrap=True)
    network = run.network_digest()
    evaluation = RunEvaluation(**result.to_dict(), stage=run.stage, dataset=dataset.name, network=network)
    return evaluation, predictions
