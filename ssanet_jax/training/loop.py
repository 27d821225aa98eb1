"""The training loop of a stage."""

import contextlib
import time
from collections.abc import Iterator

import jax
import numpy as np

from ssanet_jax import terminal
from ssanet_jax.data.pipeline import list_unreadable, train_batches
from ssanet_jax.distributed import processes, sharding
from ssanet_jax.runs.best_checkpoint import BestCheckpoint
from ssanet_jax.runs.checkpoints import Checkpoints, checkpoint_dir
from ssanet_jax.runs.results import StageResult
from ssanet_jax.training import feature_cache
from ssanet_jax.training.context import StageContext
from ssanet_jax.training.early_stopping import EarlyStopping
from ssanet_jax.training.evaluate import Evaluator
from ssanet_jax.training.nonfinite import FILE as NONFINITE_FILE
from ssanet_jax.training.nonfinite import STOP, NonfiniteSteps
from ssanet_jax.training.stage_logger import StageLogger
from ssanet_jax.training.stage_start import Position, initial_state
from ssanet_jax.training.step import Metrics, TrainState, make_train_step
from ssanet_jax.training.time_left import TRAINING
from ssanet_jax.training.triggers import Triggers


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
    state, position = initial_state(context, optimizer)
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
    batches = iter(()) if stopped else _batches(context, state, triggers)
    nonfinite = NonfiniteSteps(
        context.directory, stage.name, context.dataset.train, config.get('on_nonfinite', STOP), triggers.first_step
    )
    pending: list[tuple[int, Metrics, np.ndarray]] = []  # metrics that are still on the devices, and images read
    skipped: set[int] = set()  # unreadable images of this epoch
    interrupts = terminal.interrupts()

    later = context.views_after(TRAINING) / config.data.batch_size
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
            checkpoints.wait()  # a run that is killed in the evaluation after the last step repeats nothing else
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
                    # Before the save: a run that is killed in between evaluates again, after it has repeated the steps
                    # since its newest checkpoint. A signal that can be caught saves first.
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


def _batches(
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
