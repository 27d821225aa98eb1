"""Training of a run: all its stages, one after the other."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.console import Console

import ssanet_jax
from ssanet_jax.activity import activity
from ssanet_jax.data.dataset import Dataset
from ssanet_jax.data.pipeline import check_batch_fits
from ssanet_jax.data.registry import find_data_dir, load_dataset
from ssanet_jax.distributed import processes, sharding
from ssanet_jax.errors import UnreadableImage
from ssanet_jax.evaluation.drawing import save_picture
from ssanet_jax.evaluation.sheets import evenly, parts_sheet
from ssanet_jax.models.ssanet import SSANet
from ssanet_jax.predictor import Predictor
from ssanet_jax.runs.checkpoints import DamagedCheckpoints
from ssanet_jax.runs.evaluation_count import evaluation_count_line
from ssanet_jax.runs.files import RESULTS_FILE, TRAIN_AGAIN, read_run, write_json
from ssanet_jax.runs.finished_stages import EVALUATION_FILE, finished_result, has_whole_checkpoint, restart_stage
from ssanet_jax.runs.geometry import resolve_geometry
from ssanet_jax.runs.image_predictions import PREDICTIONS_FILE, read_predictions, write_predictions
from ssanet_jax.runs.initial_weights import check_initial_weights, initial_weights, resolve_pretrained
from ssanet_jax.runs.locations import absolute_locations
from ssanet_jax.runs.preprocessing import (
    recorded_bit_depth,
    recorded_preprocessing,
    resolve_bit_depth,
    resolve_preprocessing,
)
from ssanet_jax.runs.results import RunResults, StageResult
from ssanet_jax.runs.run import build_model, load_run
from ssanet_jax.runs.workdir import check_config_is_there, check_workdir, claim_workdir, is_claimed, lock_workdir
from ssanet_jax.training import feature_cache
from ssanet_jax.training.context import StageContext
from ssanet_jax.training.evaluate import evaluate_once, evaluation_mesh, print_dataset
from ssanet_jax.training.fit_stage import fit_stage
from ssanet_jax.training.held_out import predict_validation
from ssanet_jax.training.loop import train_stage
from ssanet_jax.training.settings import check_settings
from ssanet_jax.training.stages import check_stages, scale_epochs

EXAMPLES = 10  # test images in the picture of the parts


def train(config: ConfigDict, workdir: Path, console: Console, messages: Sequence[str] = ()) -> RunResults:
    """Trains every stage of a configuration, from where an earlier start left off.

    Args:
      config: the whole configuration.
      workdir: the run's work directory.
      console: the console for progress messages.
      messages: lines to print after that on the data.

    Returns:
      The content of `workdir/results.json`.

    Raises:
      UserError: the settings or the data are wrong, another process trains in the work directory, or the loss is no
        longer finite.
    """
    # Settings that cannot work are refused before the work directory is claimed.
    mesh = _training_mesh(config)
    config = config.copy_and_resolve_references()
    check_stages(config.stages, config.optimizer)  # whose epochs can then be scaled
    config.stages = scale_epochs(config.stages, config.get('epochs', 0))
    check_settings(config)
    check_workdir(workdir, [stage.name for stage in config.stages])
    check_config_is_there(workdir)
    run = read_run(workdir)['config'] if is_claimed(workdir) else None
    config = absolute_locations(resolve_pretrained(config, run))
    config.data.dir = config.data.dir or (run and run['data'].get('dir')) or find_data_dir(config.data)
    check_initial_weights(config)
    config = resolve_preprocessing(config, recorded_preprocessing(run) if run else None)
    config = resolve_geometry(config, run)
    resolve_bit_depth(config, recorded_bit_depth(run) if run else 0)
    dataset = load_dataset(config.data)
    resolve_bit_depth(config, dataset.bit_depth)
    check_batch_fits(dataset.train, config.data)
    with activity(console, 'building the network', at_once=False):
        model = build_model(config, len(dataset.class_names))
    # Weights wait on the host, so that the first device does not hold a copy of all of them beside its share.
    nnx.update(model, jax.device_get(nnx.state(model)))
    with lock_workdir(workdir):
        return _train_stages(config, workdir, console, dataset, model, mesh, messages)


def _train_stages(
    config: ConfigDict,
    workdir: Path,
    console: Console,
    dataset: Dataset,
    model: SSANet,
    mesh: Mesh,
    messages: Sequence[str],
) -> RunResults:
    """Trains the stages that are not finished and collects the results of all."""
    claim_workdir(workdir, config, dataset.class_names, dataset.digest)
    place = f' in {config.data.dir}' if config.data.dir else ''
    network = f'{config.model.backbone} at {config.data.image_size} from {initial_weights(config)}'
    print_dataset(console, dataset, f'{place}: {dataset.summary}; {network} on {sharding.device_kind()}')
    for message in messages:
        console.print(message, markup=False, highlight=False, soft_wrap=True)
    stages: dict[str, StageResult] = {}
    for index, stage in enumerate(config.stages):
        is_last = index == len(config.stages) - 1
        passes_on = is_last or not has_whole_checkpoint(workdir, config.stages[index + 1].name)
        result = finished_result(workdir, stage.name, passes_on=passes_on)
        if result is None:
            console.print(_stage_line(index, config.stages), markup=False, highlight=False, soft_wrap=True)
            result = _finish_stage(StageContext(config, index, model, dataset, workdir, mesh, console))
            write_json(workdir / stage.name / EVALUATION_FILE, result.to_dict())
        feature_cache.remove(workdir, stage.name)
        stages[stage.name] = result

    last = config.stages[-1].name
    if dataset.validation is None:
        final = stages[last]
        predictions = read_predictions(workdir / last / PREDICTIONS_FILE, TRAIN_AGAIN)
        if predictions is not None:  # an earlier version may have trained the last stage
            write_predictions(workdir / PREDICTIONS_FILE, predictions)
    else:
        final = evaluate_once(config, workdir, dataset, console)
        with activity(console, 'predicting the validation images'):
            predict_validation(config, workdir, dataset)
    console.print(evaluation_count_line(workdir), highlight=False)
    results = RunResults(
        accuracy=final.accuracy,
        examples=final.examples,
        unreadable=final.unreadable,
        heads=final.heads,
        stages=stages,
        seed=config.seed,
        wall_seconds=sum(stage.wall_seconds for stage in stages.values()),
        dataset=dataset.name,
        backbone=config.model.backbone,
        pretrained=config.model.pretrained,
        image_size=config.data.image_size,
        device=sharding.device_kind(),
        versions={'ssanet_jax': ssanet_jax.__version__, 'jax': jax.__version__},
    )
    write_json(workdir / RESULTS_FILE, results.to_dict())
    with activity(console, f'drawing the parts on {EXAMPLES} test images'):
        _draw_examples(workdir, dataset)
    return results


def _stage_line(index: int, stages: Sequence[ConfigDict]) -> str:
    """The first line of a stage, such as 'stage 1 of 3: scale_mining, 6 epochs'."""
    stage = stages[index]
    work = f'{stage.epochs} epoch{"" if stage.epochs == 1 else "s"}'
    if stage.get('fit'):
        work = f'a fit by L-BFGS to {stage.epochs} view{"" if stage.epochs == 1 else "s"} of each image'
    return f'stage {index + 1} of {len(stages)}: {stage.name}, {work}'


def _finish_stage(context: StageContext) -> StageResult:
    """Trains one stage, from its beginning if the network that it had selected is damaged."""
    run = fit_stage if context.stage.get('fit') else train_stage
    try:
        return run(context)
    except DamagedCheckpoints as error:
        restart_stage(context.workdir, context.stage.name, str(error))
    return run(context)


def _draw_examples(workdir: Path, dataset: Dataset) -> None:
    """Draws the parts on test images at even distances, so that nobody selects them."""
    run = load_run(workdir)
    examples: list[dict[str, Any]] = []
    for index in evenly(EXAMPLES, len(dataset.test)):
        with contextlib.suppress(UnreadableImage):  # reported by the evaluation
            examples.append(dataset.test[index])
    if not examples:
        return
    predictions = list(Predictor.from_run(run).predict([example['image'] for example in examples]))
    sheet = parts_sheet(predictions, [int(example['label']) for example in examples])
    if processes.is_primary_process():
        save_picture(workdir / 'parts.png', sheet)


def _training_mesh(config: ConfigDict) -> Mesh:
    """Arranges the devices for training; refuses batch sizes that do not suit them, for evaluation too."""
    evaluation_mesh(config)
    mesh = sharding.make_mesh(shape=config.mesh.shape, images=config.data.batch_size)
    sharding.check_batch(config.data.batch_size, mesh, 'config.data.batch_size')
    return mesh
