"""A stage whose groups are fitted instead of trained by gradient descent."""

import time

import numpy as np
import optax

from ssanet_jax.distributed import sharding
from ssanet_jax.runs.best_checkpoint import BestCheckpoint
from ssanet_jax.runs.checkpoints import Checkpoints, checkpoint_dir
from ssanet_jax.runs.results import StageResult
from ssanet_jax.training.context import StageContext
from ssanet_jax.training.evaluate import Evaluator
from ssanet_jax.training.fitting import fit_groups
from ssanet_jax.training.stage_logger import StageLogger
from ssanet_jax.training.stage_start import Position, initial_state
from ssanet_jax.training.step import TrainState
from ssanet_jax.training.triggers import Triggers


def fit_stage(context: StageContext) -> StageResult:
    """Fits the groups of one stage (`fitting.py`), and evaluates the network after it."""
    config, stage, workdir = context.config, context.stage, context.workdir
    evaluator = Evaluator(context.model, context.active, config, workdir, f'training of {stage.name}')
    state, position = initial_state(context, optax.identity())
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
