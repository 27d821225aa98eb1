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
from ssanet_jax.distributed.candidate_map import candidate_map
from ssanet_jax.errors import UserError
from ssanet_jax.models.groups import PART_HEAD
from ssanet_jax.models.losses import cross_entropy, mac_loss, ranking_loss
from ssanet_jax.models.outputs import Outputs
from ssanet_jax.models.ssanet import SSANet, merge_model, split_model
from ssanet_jax.training.nonfinite import SKIP
from ssanet_jax.training.stages import (
    decay_layers,
    learning_rate,
    make_optimizer,
    make_trains,
    merge_params,
    split_params,
)


class Loss(NamedTuple):
    """The groups that a loss requires and those that it trains."""

    needs: frozenset[str]  # groups that must have been trained, or be in training
    trains: frozenset[str]  # groups that get a gradient


def _loss(*needs: str, trains: tuple[str, ...]) -> Loss:
    return Loss(frozenset(needs), frozenset(trains))


LOSSES = {
    'image': _loss('image_classifier', trains=('backbone', 'image_classifier')),
    'parts': _loss('proposals', 'part_classifier', trains=('backbone', 'part_classifier')),
    'mac': _loss('proposals', trains=('backbone',)),
    'ranking': _loss('proposals', 'part_classifier', trains=('proposals',)),
    'scale_mining': _loss('proposals', 'scale_mining', trains=('backbone', 'scale_mining')),
    'oriented_pooling': _loss('proposals', 'oriented_pooling', trains=('backbone', 'oriented_pooling')),
    PART_HEAD: _loss('proposals', PART_HEAD, trains=('backbone', PART_HEAD)),
    'fusion': _loss(trains=('backbone', 'image_classifier', 'scale_mining', 'oriented_pooling', PART_HEAD)),
}
_READ_PROPOSAL_FEATURES = {'parts', 'mac', 'ranking'}  # losses that read `Outputs.part_features`


class TrainState(NamedTuple):
    """The state that a step updates."""

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

    A loss is used if its weight is not 0, all groups that it needs are active, and it trains at least one of the
    stage's groups.

    Args:
      active: groups trained by the end of the stage.
      trained: groups that the stage trains.
      weights: the `config.loss.weights` section.

    Returns:
      `{name: weight}`.
    """
    return {
        name: weights[name]
        for name, loss in LOSSES.items()
        if weights.get(name) and loss.needs <= set(active) and loss.trains & set(trained)
    }


def needs_proposal_features(losses: Collection[str]) -> bool:
    """Whether any of these losses reads the features of all M proposals, not only of the K parts."""
    return bool(_READ_PROPOSAL_FEATURES & set(losses))


def compute_losses(
    outputs: Outputs, labels: jax.Array, names: Collection[str], loss: ConfigDict
) -> dict[str, jax.Array]:
    """The named losses of a batch, unweighted (Eq. 1, and NTS-Net's ranking loss).

    Args:
      outputs: the network's outputs, with `training=True`.
      labels: int `[B]`.
      names: keys of `LOSSES`.
      loss: the `config.loss` section.

    Returns:
      `{name: scalar}`.
    """
    image_loss = lambda logits: cross_entropy(logits, labels, loss.label_smoothing).mean()
    values = {}
    if 'image' in names:
        values['image'] = image_loss(outputs.image_logits)
    if 'parts' in names or 'ranking' in names:
        assert outputs.scores is not None and outputs.part_logits is not None
        repeated = jnp.broadcast_to(labels[:, None], outputs.scores.shape)  # [B, M]
        if 'parts' in names:
            values['parts'] = cross_entropy(outputs.part_logits, repeated, loss.label_smoothing).sum(1).mean()
        if 'ranking' in names:
            values['ranking'] = ranking_loss(outputs.scores, cross_entropy(outputs.part_logits, repeated))
    if 'mac' in names:
        assert outputs.aligned_boxes is not None and outputs.part_features is not None
        count = outputs.aligned_boxes.shape[1]
        values['mac'] = mac_loss(outputs.part_features[:, :count], loss.mac_temperature, loss.mac_reduction)
    if 'scale_mining' in names:
        values['scale_mining'] = image_loss(outputs.scale_logits)
    if 'oriented_pooling' in names:
        values['oriented_pooling'] = image_loss(outputs.oriented_logits)
    if PART_HEAD in names:
        values[PART_HEAD] = image_loss(outputs.head_logits)
    if 'fusion' in names:
        values['fusion'] = image_loss(outputs.logits)  # of the sum of all heads, which is the prediction
    return values


def make_train_step(
    model: SSANet, stage: ConfigDict, active: Collection[str], config: ConfigDict, steps_per_epoch: float, mesh: Mesh
) -> tuple[optax.GradientTransformation, Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, Metrics]]]:
    """The optimizer of a stage and its compiled step.

    The gradient is taken with respect to what trains, so the program has no backward pass through a frozen backbone, or
    through its frozen layers. What is frozen also keeps its BatchNorm statistics.

    Args:
      model: gives the structure; its arrays and its mode are neither read nor changed.
      stage: the stage. With a `cache`, batches hold `features` in place of `image`.
      active: groups trained by the end of this stage.
      config: the whole configuration (`loss`, `optimizer`, `mesh`).
      steps_per_epoch: converts epochs to steps in the learning rate schedule.
      mesh: the devices that hold the state and the batches.

    Returns:
      The optimizer, and `(state, batch) -> (state, metrics)`, which donates its state. Metrics are scalars by name.
      With `config.on_nonfinite='skip'`, a step whose metrics are not all finite changes nothing but the step count
      and that of the learning rate's schedule.

    Raises:
      UserError: the stage has no loss.
    """
    _, params, _ = split_model(model)
    trains = make_trains(stage, model.backbone, params)
    graph, _, _ = split_model(_in_training_mode(model, (lambda _: False) if stage.freeze_batch_norm else trains))
    weights = stage_losses(active, stage.train, config.loss.weights)
    if not weights:
        raise UserError(f'stage {stage.name!r} has no loss: raise one of config.loss.weights, or train another group')
    rate = learning_rate(stage, steps_per_epoch)
    factor = decay_layers(stage, model.backbone, params) if stage.get('layer_decay') else None
    optimizer = make_optimizer(stage, config.optimizer, steps_per_epoch, trains, factor)
    extract_features = partial(
        SSANet.extract_features,
        active=active,
        training=needs_proposal_features(weights),
        map_candidates=partial(candidate_map, mesh=mesh),
    )

    def loss(trained, frozen, stats, batch, step):
        network = merge_model(graph, merge_params(trained, frozen), stats)
        features = batch['features'] if 'features' in batch else extract_features(network, batch['image'])
        dropout = jax.random.fold_in(jax.random.key(np.uint32(config.seed)), step)
        outputs = network.classify(features, active=active, dropout=dropout)
        losses = compute_losses(outputs, batch['label'], weights, config.loss)
        total = sum(weights[name] * value for name, value in losses.items())
        stats = nnx.to_pure_dict(nnx.state(network, nnx.BatchStat))
        correct = outputs.logits.argmax(-1) == batch['label']
        metrics = {'loss/total': total, 'accuracy': correct.mean()} | {f'loss/{k}': v for k, v in losses.items()}
        return total, (stats, metrics)

    def train_step(state, batch):
        batch = sharding.constrain_batch(batch, mesh)
        trained, frozen = split_params(state.params, trains)
        gradients, (stats, metrics) = jax.grad(loss, has_aux=True)(trained, frozen, state.stats, batch, state.step)
        # The optimizer expects every parameter. The update of a frozen one is zero and unused: the compiler drops it.
        whole = merge_params(gradients, jax.tree.map(jnp.zeros_like, frozen))
        every_update: Any
        every_update, opt = optimizer.update(whole, state.opt, state.params)
        updates, _ = split_params(every_update, trains)
        for group in trained:
            metrics[f'gradient_norm/{group}'] = optax.tree.norm(gradients[group])
            metrics[f'update_norm/{group}'] = optax.tree.norm(updates[group])
            metrics[f'parameter_norm/{group}'] = optax.tree.norm(trained[group])
            metrics[f'learning_rate/{group}'] = stage.train[group] * rate(state.step)
        changed: Any = optax.apply_updates(trained, updates)
        if config.get('on_nonfinite') == SKIP:
            # The norms are of whole trees over all devices, so every process decides alike.
            finite = jnp.isfinite(jnp.stack(list(metrics.values()))).all()
            after, before = (changed, stats, opt), (trained, state.stats, state.opt)
            changed, stats, opt = _update_if(finite, after, before)
        params = merge_params(changed, frozen)
        state = TrainState(params, stats, opt, state.step + 1)
        # With the shardings of the input, or the next step would compile again.
        shardings = sharding.state_shardings(state, mesh, config.mesh.shard_heads)
        return jax.lax.with_sharding_constraint(state, shardings), metrics

    return optimizer, jax.jit(train_step, donate_argnums=0)


def _update_if(finite: jax.Array, after: Any, before: Any) -> Any:
    """`after` if `finite`, otherwise `before` with the schedules' counts of `after`, which follow the steps."""
    is_schedule = lambda node: isinstance(node, optax.ScaleByScheduleState)
    choose = lambda new, old: new if is_schedule(new) else jnp.where(finite, new, old)
    return jax.tree.map(choose, after, before, is_leaf=is_schedule)


def _in_training_mode(model: SSANet, trains: Callable[[tuple[Any, ...]], bool]) -> SSANet:
    """A view of a model whose BatchNorm uses batch statistics where it trains and running statistics elsewhere."""
    model = nnx.view(model, use_running_average=True, raise_if_not_found=False)
    only = lambda path, _: bool(path) and trains(path)
    return nnx.view(model, only=only, use_running_average=False, raise_if_not_found=False)
