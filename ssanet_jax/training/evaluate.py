"""Evaluation of the networks that training makes."""

from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.console import Console

from ssanet_jax.data.dataset import Dataset, Source
from ssanet_jax.data.pipeline import eval_batches, list_unreadable
from ssanet_jax.data.registry import load_dataset
from ssanet_jax.distributed import processes, sharding
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.accuracy import evaluate, make_count_correct
from ssanet_jax.models.inference import optimize_for_inference
from ssanet_jax.models.ssanet import SSANet, split_model
from ssanet_jax.runs.compatibility import evaluation_config
from ssanet_jax.runs.files import TRAIN_AGAIN, write_json
from ssanet_jax.runs.results import EvaluationResult, RunEvaluation, read_result
from ssanet_jax.runs.run import Run, load_run


class Evaluator:
    """Measures the accuracy of a network. All evaluations share one compiled program.

    Args:
      model: gives the structure.
      active: groups that take part in the prediction.
      config: the whole configuration.

    Raises:
      UserError: the evaluation batch does not suit the devices.
    """

    def __init__(self, model: SSANet, active: frozenset[str], config: ConfigDict):
        self._data = config.data
        self.mesh = evaluation_mesh(config)
        self._count_correct = make_count_correct(model, active, self.mesh)

    def __call__(self, params: dict[str, Any], stats: dict[str, Any], source: Source) -> EvaluationResult:
        """Evaluates a network on all images of a source.

        Args:
          params: parameters by group, on the devices.
          stats: BatchNorm statistics by group, on the devices.
          source: the images.
        """
        batches = eval_batches(source, self._data, process=processes.current())
        found = evaluate(self._count_correct, params, stats, batches, self.mesh)
        unreadable = list_unreadable(source, found.unreadable)
        return EvaluationResult(
            accuracy=found.accuracy, examples=found.examples, heads=found.heads, unreadable=unreadable
        )


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
      workdir: the run's work directory. The result goes to its `evaluation.json`.
      console: the console for progress messages.

    Raises:
      UserError: there is no trained network, or the data has other classes.
    """
    evaluation_mesh(config)  # its errors should come before the network is read
    run = load_run(workdir)
    config = evaluation_config(run.config, config)
    dataset = load_dataset(config.data)
    if dataset.class_names != run.class_names:
        raise UserError(
            f'{workdir} was trained on other classes than {dataset.name} has: check --config and config.data'
        )
    console.print(
        f'{dataset.name}: {len(dataset.test)} test images; the network of stage {run.stage}'
        + ('' if run.finished else ', which is not finished'),
        highlight=False,
        soft_wrap=True,
    )
    result = _evaluate_test_set(run, dataset, config, console)
    write_json(workdir / 'evaluation.json', result.to_dict())
    return result


def evaluate_once(config: ConfigDict, workdir: Path, dataset: Dataset, console: Console) -> RunEvaluation:
    """Evaluates, on the test images, the network selected on the validation images.

    The result is kept in `test.json`: a run is evaluated on its test images only once.
    """
    path = workdir / 'test.json'
    result = read_result(path, RunEvaluation, TRAIN_AGAIN)
    if result is None:
        result = _evaluate_test_set(load_run(workdir), dataset, config, console)
        write_json(path, result.to_dict())
    return result


def _evaluate_test_set(run: Run, dataset: Dataset, config: ConfigDict, console: Console) -> RunEvaluation:
    with console.status(f'evaluating stage {run.stage} on {len(dataset.test)} images'):
        model = optimize_for_inference(run.model)
        evaluator = Evaluator(model, run.active, config)
        _, params, stats = split_model(model)
        params, stats = sharding.replicate((params, stats), evaluator.mesh)
        result = evaluator(params, stats, dataset.test)
    for problem in result.unreadable:
        console.print(f'counted as wrong: {problem}', style='yellow', highlight=False, soft_wrap=True)
    return RunEvaluation(**result.to_dict(), stage=run.stage, dataset=dataset.name)
