"""Where a stage of training starts, or goes on after an interruption."""

from typing import NamedTuple

import jax
import numpy as np
import optax

from ssanet_jax.distributed import sharding
from ssanet_jax.models.groups import active_groups
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.runs.best_checkpoint import restore_network
from ssanet_jax.runs.checkpoints import DamagedCheckpoints, restore_stage, stage_steps
from ssanet_jax.training.context import StageContext
from ssanet_jax.training.step import TrainState


class Position(NamedTuple):
    """The progress of a stage that its checkpoints keep beside the state."""

    seconds: float = 0.0  # spent so far
    evaluation_pending: bool = False  # whether the evaluation that is due at this step was interrupted


def initial_state(context: StageContext, optimizer: optax.GradientTransformation) -> tuple[TrainState, Position]:
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
