"""Training of a run: all its stages, one after the other."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict
from rich.console import Console

import ssanet_jax
from ssanet_jax import terminal
from ssanet_jax.activity import activity
from ssanet_jax.data.dataset import Dataset
from ssanet_jax.data.pipeline import check_batch_fits, list_unreadable, train_batches
from ssanet_jax.data.registry import find_data_dir, load_dataset
from ssanet_jax.distributed import processes, sharding
from ssanet_jax.errors import UnreadableImage
from ssanet_jax.evaluation.drawing import save_picture
from ssanet_jax.evaluation.sheets import evenly, parts_sheet
from ssanet_jax.models.groups import active_groups
from ssanet_jax.models.ssanet import SSANet, split_model
from ssanet_jax.predictor import Predictor
from ssanet_jax.runs.best_checkpoint import BestCheckpoint, restore_network
from ssanet_jax.runs.checkpoints import Checkpoints, DamagedCheckpoints, checkpoint_dir, restore_stage, stage_steps
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
from ssanet_jax.training.early_stopping import EarlyStopping
from ssanet_jax.training.evaluate import Evaluator, evaluate_once, evaluation_mesh, print_dataset
from ssanet_jax.training.fitting import fit_groups
from ssanet_jax.training.held_out import predict_validation
from ssanet_jax.training.nonfinite import FILE as NONFINITE_FILE
from ssanet_jax.training.nonfinite import STOP, NonfiniteSteps
from ssanet_jax.training.settings import check_settings
from ssanet_jax.training.stage_logger import StageLogger
from ssanet_jax.training.stages import scale_epochs
from ssanet_jax.training.step import Metrics, TrainState, make_train_step
from ssanet_jax.training.time_left import TRAINING, views_after
from ssanet_jax.training.triggers import Triggers

EXAMPLES = 10  # test images in the picture of the parts


class Position(NamedTuple):
    """What a checkpoint knows of its stage, beside the state."""

    seconds: float = 0.0  # spent so far
    evaluation_pending: bool = False  # whether the evaluation that is due at this step was interrupted


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
        work = f'a fit in closed form to {stage.epochs} view{"" if stage.epochs == 1 else "s"} of each image'
    return f'stage {index + 1} of {len(stages)}: {stage.name}, {work}'


def _finish_stage(context: StageContext) -> StageResult:
    """Trains one stage, from its beginning if the network that it had selected is damaged."""
    run = fit_stage if context.stage.get('fit') else train_stage
    try:
        return run(context)
    except DamagedCheckpoints as error:
        restart_stage(context.workdir, context.stage.name, str(error))
    return run(context)


def train_stage(context: StageContext) -> StageResult:
    """Trains one stage, from its newest checkpoint if there is one, and evaluates the network after it.

    Raises:
      UserError: the loss is no longer finite.
    """
    config, stage, workdir = context.config, context.stage, context.workdir
    evaluator = Evaluator(context.model, context.active, config, workdir, f'training of {stage.name}')
    optimizer, train_step = make_train_step(
        context.model, stage, context.active, config, context.steps_per_epoch, context.mesh
    )
    state, position = _initial_state(context, optimizer)
    triggers = Triggers(
        len(context.dataset.train),
        config.data.batch_size,
        stage.epochs,
        first_step=int(state.step),
        eval_epochs=config.eval_epochs,
        checkpoint_steps=config.checkpoint_steps,
    )
    if 0 < triggers.first_step < triggers.num_steps:
        context.print(f'going on from step {triggers.first_step} of {triggers.num_steps}')

    started = time.monotonic()
    seconds = lambda: position.seconds + time.monotonic() - started
    checkpoints = Checkpoints(
        checkpoint_dir(workdir, stage.name), writes=True, asynchronous=context.saves_asynchronously
    )
    best = BestCheckpoint(workdir, stage.name, selects=context.dataset.validation is not None)
    best.repair(triggers.first_step, state.params, state.stats)
    early_stopping = EarlyStopping(config.get('early_stopping_patience', 0), triggers)
    stopped = '' if position.evaluation_pending else early_stopping.reason(triggers.first_step, best.found)
    ended = triggers.first_step  # the last step so far
    batches = iter(()) if stopped else _stage_batches(context, state, triggers)
    nonfinite = NonfiniteSteps(
        context.directory, stage.name, context.dataset.train, config.get('on_nonfinite', STOP), triggers.first_step
    )
    pending: list[tuple[int, Metrics, np.ndarray]] = []  # metrics that are still on the devices, and images read
    skipped: set[int] = set()  # unreadable images of this epoch
    interrupts = terminal.interrupts()

    later = views_after(config, context.index, TRAINING, len(context.dataset.train)) / config.data.batch_size
    with StageLogger(
        context.console,
        context.directory,
        stage.name,
        triggers,
        context.split,
        later_steps=later,
        stops_early=early_stopping.patience > 0,
    ) as logger:

        def evaluate(step: int) -> None:
            checkpoints.wait()  # a killed run repeats at most this evaluation
            with logger.doing(context.evaluation):
                result, predictions = evaluator(state.params, state.stats, context.dataset, context.split)
            logger.log_evaluation(step, result)
            best.update(step, result, predictions, state.params, state.stats)

        def save(step: int, evaluation_pending: bool = False) -> None:
            position = Position(seconds(), evaluation_pending)._asdict()
            items = {'params': state.params, 'stats': state.stats, 'opt': state.opt, 'position': position}
            checkpoints.save(step, items)

        # SIGTERM and Ctrl-C end the run between two steps, and after the save in progress.
        with interrupts.deferred(), contextlib.closing(checkpoints):
            if position.evaluation_pending and triggers.evaluate(triggers.first_step):
                evaluate(triggers.first_step)
                stopped = early_stopping.reason(triggers.first_step, best.found)
            steps = () if stopped else enumerate(batches, triggers.first_step + 1)
            for step, (batch, on_device) in steps:
                with logger.doing('compiling') if triggers.is_first(step) else contextlib.nullcontext():
                    if triggers.is_first(step):
                        processes.compile_together(train_step, state, on_device)
                    with jax.transfer_guard('disallow'):  # no step may talk to the host by accident
                        state, metrics = train_step(state, on_device)
                checkpoints.raise_failure()
                pending.append((step, metrics, batch['index']))
                skipped.update(batch['skipped'][batch['skipped'] >= 0].tolist())
                stop = _requested_stop(step, triggers)

                if triggers.fetch_metrics(step) or stop:
                    for number, values, indices in jax.device_get(pending):
                        skips = nonfinite.check(number, values, indices, lambda: checkpoints.steps)
                        logger.log_metrics(number, values, skipped=skips)
                    pending.clear()
                if triggers.evaluate(step):
                    # Before the save: a run that is killed in between evaluates again.
                    try:
                        with interrupts.deferred(processes.current().count > 1):  # others would wait for this process
                            evaluate(step)
                    except KeyboardInterrupt:
                        save(step, evaluation_pending=True)
                        raise
                    stopped = early_stopping.reason(step, best.found)
                if triggers.save(step) or stop or stopped:
                    save(step)
                if triggers.epoch_ends(step):
                    logger.log_unreadable(list_unreadable(context.dataset.train, processes.gather_distinct(skipped)))
                    skipped.clear()
                if triggers.restart_clock(step):
                    logger.restart_clock(step)
                if stop:
                    raise stop
                ended = step
                if stopped:
                    break
        interrupts.raise_pending()
        if not stopped:
            evaluate(triggers.num_steps)
    if stopped:
        context.print(stopped)
    if nonfinite.count:
        context.print(
            f'{nonfinite.count} of {triggers.num_steps} updates were skipped, since the loss or the gradients were not '
            f'finite; images of these batches: {context.directory / NONFINITE_FILE}'
        )
    return StageResult(
        **best.result.to_dict(),
        split=context.split,
        epochs=triggers.whole_epochs(ended) if stopped else stage.epochs,
        steps=ended,
        wall_seconds=seconds(),
        stopped_early=stopped,
    )


def _requested_stop(step: int, triggers: Triggers) -> type[KeyboardInterrupt] | None:
    """The exception to end with after this step, if this process or, every few steps, another one got a signal."""
    kinds = (None, KeyboardInterrupt, terminal.Terminated)
    mine = terminal.interrupts().pending
    if processes.current().count == 1:
        return mine
    if not triggers.fetch_metrics(step):  # all must save at the same step, and asking takes time
        return None
    return kinds[max(processes.gather_distinct([kinds.index(mine)]))]


def fit_stage(context: StageContext) -> StageResult:
    """Fits the groups of one stage in closed form (`fitting.py`), and evaluates the network after it."""
    config, stage, workdir = context.config, context.stage, context.workdir
    evaluator = Evaluator(context.model, context.active, config, workdir, f'training of {stage.name}')
    state, position = _initial_state(context, optax.identity())
    started = time.monotonic()
    seconds = lambda: position.seconds + time.monotonic() - started
    triggers = Triggers(len(context.dataset.train), config.data.batch_size, stage.epochs)
    if int(state.step) < triggers.num_steps:
        fitted = fit_groups(context, state.params, state.stats)
        params, stats = (sharding.shard_state(tree, context.mesh, config.mesh.shard_heads) for tree in fitted)
        state = TrainState(params, stats, state.opt, sharding.replicate(np.int32(triggers.num_steps), context.mesh))
        checkpoints = Checkpoints(checkpoint_dir(workdir, stage.name), writes=True)
        items = {'params': params, 'stats': stats, 'opt': state.opt, 'position': Position(seconds())._asdict()}
        checkpoints.save(triggers.num_steps, items)
        checkpoints.close()
    best = BestCheckpoint(workdir, stage.name, selects=context.dataset.validation is not None)
    with StageLogger(context.console, context.directory, stage.name, triggers, context.split) as logger:
        with logger.doing(context.evaluation):
            result, predictions = evaluator(state.params, state.stats, context.dataset, context.split)
        logger.log_evaluation(triggers.num_steps, result)
        best.update(triggers.num_steps, result, predictions, state.params, state.stats)
    return StageResult(
        **best.result.to_dict(),
        split=context.split,
        epochs=stage.epochs,
        steps=triggers.num_steps,
        wall_seconds=seconds(),
    )


def _stage_batches(
    context: StageContext, state: TrainState, triggers: Triggers
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, jax.Array]]]:
    """The batches from `state.step` on: on the host, and what the step reads of them on the devices."""
    stage, data, done = context.stage, context.config.data, triggers.first_step
    if stage.cache and done < triggers.num_steps:
        inputs = 'features'
        batches = feature_cache.cached_batches(context, state)
    else:
        feature_cache.remove(context.workdir, stage.name)  # an earlier start may have had a cache and filled the disk
        inputs = 'image'
        batches = train_batches(
            context.dataset.train,
            data,
            seed=context.seed,
            epochs=stage.epochs,
            start=done * data.batch_size,
            process=processes.current(),
        )
    return sharding.prefetch_to_device(batches, context.mesh, (inputs, 'label'))


def _initial_state(context: StageContext, optimizer: optax.GradientTransformation) -> tuple[TrainState, Position]:
    """The state that a stage starts from, and where the stage was interrupted.

    The state is the stage's newest checkpoint if an earlier start left one; else the network of the previous stage;
    else the network as it was built.
    """
    config, workdir, stage, mesh = context.config, context.workdir, context.stage, context.mesh
    _, params, stats = split_model(context.model)
    params, stats = (sharding.shard_state(tree, mesh, config.mesh.shard_heads) for tree in (params, stats))
    shardings = sharding.state_shardings(jax.eval_shape(optimizer.init, params), mesh, config.mesh.shard_heads)
    opt = jax.jit(optimizer.init, out_shardings=shardings)(params)
    if saved := stage_steps(workdir, stage.name):
        like = {'params': params, 'stats': stats, 'opt': opt, 'position': None}
        try:
            step, items = restore_stage(workdir, stage.name, like)
            position = Position(**items['position'])
            return TrainState(
                items['params'], items['stats'], items['opt'], sharding.replicate(np.int32(step), mesh)
            ), position
        except DamagedCheckpoints:  # they are reported, and set aside
            context.print(f'starting again, since no checkpoint is whole: {saved[-1]} steps are lost')
    if context.index:
        # The backbone may have been frozen so far. Heads that no stage has trained yet start as they were built: a
        # stage taken over from another run of an ablation may have other heads, or heads of another shape.
        groups = {'backbone'} | active_groups(config.stages, context.index - 1)
        previous = config.stages[context.index - 1].name
        params, stats = restore_network(workdir, previous, params, stats, groups=groups, writes=True)
    return TrainState(params, stats, opt, sharding.replicate(np.int32(0), mesh)), Position()


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
