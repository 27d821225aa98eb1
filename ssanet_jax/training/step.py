"""One step of training as one compiled program."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssanet_jax.distributed import sharding
from ssanet_jax.errors import UserError
from ssanet_jax.models.losses import cross_entropy, mac_loss, ranking_loss
from ssanet_jax.models.outputs import Outputs
from ssanet_jax.models.ssanet import SSANet, merge_model, split_model
from ssanet_jax.training.stages import learning_rate, make_optimizer, split_groups

# Each loss: the groups it needs, and the groups its gradient can teach.
LOSSES = {
    'image': (('image_classifier',), ('backbone', 'image_classifier')),
    'parts': (('proposals', 'part_classifier'), ('backbone', 'part_classifier')),
    'mac': (('proposals',), ('backbone',)),
    'ranking': (('proposals', 'part_classifier'), ('proposals',)),
    'scale_mining': (('proposals', 'scale_mining'), ('backbone', 'scale_mining')),
    'oriented_pooling': (('proposals', 'oriented_pooling'), ('backbone', 'oriented_pooling')),
    'part_head': (('proposals', 'part_head'), ('backbone', 'part_head')),
}


class TrainState(NamedTuple):
    """All that a step changes."""

    params: dict[str, Any]  # {group: tree}
    stats: dict[str, Any]  # BatchNorm statistics, {group: tree}
    opt: optax.OptState
    step: jax.Array  # int32, within the stage


Metrics = dict[str, jax.Array]


def check_loss(loss: ConfigDict) -> None:
    """Raises `UserError` for a `config.loss` section that cannot be used."""
    if loss.mac_reduction not in ('mean', 'sum'):
        raise UserError(f'config.loss.mac_reduction={loss.mac_reduction}: set it to mean or sum')
    if loss.mac_temperature <= 0:
        raise UserError(f'config.loss.mac_temperature={loss.mac_temperature} must be above 0')
    for name, weight in loss.weights.items():
        if not weight >= 0:
            raise UserError(f'config.loss.weights.{name}={weight} must be 0 or more')
    if not 0 <= loss.label_smoothing < 1:
        raise UserError(f'config.loss.label_smoothing={loss.label_smoothing} must lie in [0, 1); 0 is off')


def stage_losses(active: Collection[str], trained: Collection[str], weights: ConfigDict) -> dict[str, float]:
    """The losses of a stage and their weights.

    A loss takes part if the groups it needs have been trained by now or train in this stage,
    and if it can teach one of those that train.
    """
    return {
        name: weights[name]
        for name, (needs, teaches) in LOSSES.items()
        if weights[name] and set(needs) <= set(active) and set(teaches) & set(trained)
    }


def ranks_proposals(losses: Collection[str]) -> bool:
    """Whether any of these losses needs the M proposals described, not the K parts alone."""
    return bool({'parts', 'mac', 'ranking'} & set(losses))


def compute_losses(
    outputs: Outputs, labels: jax.Array, names: Collection[str], loss: ConfigDict
) -> dict[str, jax.Array]:
    """The named losses of a batch (Eq. 1, and NTS-Net's ranking loss), unweighted scalars.

    Args:
      outputs: of the network, with `training=True`.
      labels: int `[B]`.
      names: keys of `LOSSES`.
      loss: the `config.loss` section.
    """
    smooth = lambda logits: cross_entropy(logits, labels, loss.label_smoothing).mean()
    values = {}
    if 'image' in names:
        values['image'] = smooth(outputs.image_logits)
    if 'parts' in names or 'ranking' in names:
        repeated = jnp.broadcast_to(labels[:, None], outputs.scores.shape)  # [B, M]
        if 'parts' in names:
            values['parts'] = cross_entropy(outputs.part_logits, repeated, loss.label_smoothing).sum(1).mean()
        if 'ranking' in names:
            values['ranking'] = ranking_loss(outputs.scores, cross_entropy(outputs.part_logits, repeated))
    if 'mac' in names:
        count = outputs.aligned_boxes.shape[1]
        values['mac'] = mac_loss(outputs.part_features[:, :count], loss.mac_temperature, loss.mac_reduction)
    if 'scale_mining' in names:
        values['scale_mining'] = smooth(outputs.scale_logits)
    if 'oriented_pooling' in names:
        values['oriented_pooling'] = smooth(outputs.oriented_logits)
    if 'part_head' in names:
        values['part_head'] = smooth(outputs.head_logits)
    return values


def make_train_step(
    model: SSANet, row: ConfigDict, active: Collection[str], config: ConfigDict, steps_per_epoch: float, mesh: Mesh
) -> tuple[optax.GradientTransformation, Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, Metrics]]]:
    """The optimiser of a stage and its compiled step.

    The gradient is taken for the groups that train, so the program holds no backward pass
    through a frozen backbone. A frozen group also keeps its BatchNorm statistics.

    Args:
      model: gives the structure; its arrays are not used.
      row: the stage. Where it has a `cache`, batches bring a `features` in place of the `image`.
      active: groups trained by the end of this stage.
      config: the whole configuration (`loss`, `optimizer`, `mesh`).
      steps_per_epoch: for the schedule.
      mesh: the devices, on which the state and the batches are.
    """
    model.eval()  # BatchNorm at its running statistics, which then stay
    if not row.freeze_batch_norm:
        for group in row.train:
            getattr(model, group).train()
    graph, _, _ = split_model(model)
    weights = stage_losses(active, row.train, config.loss.weights)
    if not weights:
        raise UserError(f'stage {row.name!r} has no loss: raise one of config.loss.weights, or train another group')
    rate = learning_rate(row, steps_per_epoch)
    optimizer = make_optimizer(row, config.optimizer, steps_per_epoch)
    describe = partial(
        SSANet.extract_features,
        active=active,
        training=ranks_proposals(weights),
        map_candidates=partial(sharding.candidate_map, mesh=mesh),
    )

    def loss(trained, frozen, stats, batch, step):
        network = merge_model(graph, {**trained, **frozen}, stats)
        features = batch['features'] if 'features' in batch else describe(network, batch['image'])
        dropout = jax.random.fold_in(jax.random.key(np.uint32(config.seed)), step)
        outputs = network.classify(features, active=active, dropout=dropout)
        losses = compute_losses(outputs, batch['label'], weights, config.loss)
        total = sum(weights[name] * value for name, value in losses.items())
        stats = nnx.to_pure_dict(nnx.state(network, nnx.BatchStat))
        correct = outputs.logits.argmax(-1) == batch['label']
        return total, (
            stats,
            {'loss/total': total, 'accuracy': correct.mean(), **{f'loss/{k}': v for k, v in losses.items()}},
        )

    def train_step(state, batch):
        batch = sharding.split_batch(batch, mesh)
        trained, frozen = split_groups(state.params, row)
        gradients, (stats, metrics) = jax.grad(loss, has_aux=True)(trained, frozen, state.stats, batch, state.step)
        # The frozen part of the update is zero and unused: the compiler drops it.
        whole = {**gradients, **jax.tree.map(jnp.zeros_like, frozen)}
        updates, opt = optimizer.update(whole, state.opt, state.params)
        updates, _ = split_groups(updates, row)
        for group in trained:
            metrics[f'gradient_norm/{group}'] = optax.tree.norm(gradients[group])
            metrics[f'update_norm/{group}'] = optax.tree.norm(updates[group])
            metrics[f'parameter_norm/{group}'] = optax.tree.norm(trained[group])
            metrics[f'learning_rate/{group}'] = row.train[group] * rate(state.step)
        params = {**frozen, **optax.apply_updates(trained, updates)}
        state = TrainState(params, stats, opt, state.step + 1)
        # The same places as before, so that the next step finds the program and its buffers as they are.
        return jax.lax.with_sharding_constraint(
            state, sharding.shardings(state, mesh, config.mesh.shard_heads)
        ), metrics

    return optimizer, jax.jit(train_step, donate_argnums=0)
