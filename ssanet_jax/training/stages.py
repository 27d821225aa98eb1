"""Stages of training: a table of who trains at which rate (paper, 3.4)."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import optax
from ml_collections import ConfigDict

from ssanet_jax.errors import UserError
from ssanet_jax.models.ssanet import BASELINE, GROUPS
from ssanet_jax.runs.aliases import STAGE_FIELDS, upgrade_fields
from ssanet_jax.runs.run import active_groups

FROZEN = 'frozen'
OPTIMIZERS = ('sgd', 'adamw')
SCHEDULES = ('step', 'cosine', 'constant')


def stage(
    name: str,
    *,
    epochs: int,
    learning_rate: float | None = None,
    train: Mapping[str, float],
    schedule: str = 'step',
    milestones: Sequence[int] = (60,),
    warmup_epochs: float = 0.0,
    freeze_batch_norm: bool = False,
    cache: int = 0,
    **old_names: Any,
) -> ConfigDict:
    """One row of `config.stages`.

    Args:
      name: of the stage; also its folder in the work directory.
      epochs: passes over the training set.
      learning_rate: base learning rate.
      train: {group: factor of the learning rate}. A group that is not named is frozen: its weights, its BatchNorm
        statistics, and no backward pass goes through it unless something below it trains.
      schedule: 'step' multiplies the learning rate by 0.1 after each epoch of `milestones`; 'cosine' lowers it to
        zero; 'constant' leaves it.
      milestones: epochs, for 'step'.
      warmup_epochs: epochs of linear warm-up from zero.
      freeze_batch_norm: BatchNorm normalises by its running statistics and does not update them, in groups that train
        too. This spares a pretrained backbone the noise of small batches.
      cache: for a stage that trains heads alone: number of augmented views per image whose features are computed once
        and kept on disk (`training/feature_cache.py`); 0 computes them anew in each epoch.
      **old_names: fields under their names in earlier versions (`runs/aliases.py`), such as `rate`.

    Raises:
      TypeError: an argument is missing or unknown.
    """
    given = dict(old_names) if learning_rate is None else {'learning_rate': learning_rate, **old_names}
    fields = {'freeze_batch_norm': freeze_batch_norm} | upgrade_fields(given, STAGE_FIELDS, {}, f'stage({name!r})')
    if wrong := fields.keys() - {'learning_rate', 'freeze_batch_norm'}:
        raise TypeError(f'stage({name!r}): unknown arguments {", ".join(sorted(wrong))}')
    if 'learning_rate' not in fields:
        raise TypeError(f'stage({name!r}): learning_rate is missing')
    return ConfigDict(
        dict(
            name=name,
            epochs=epochs,
            learning_rate=float(fields['learning_rate']),
            train={group: float(factor) for group, factor in train.items()},
            schedule=schedule,
            milestones=tuple(milestones),
            warmup_epochs=float(warmup_epochs),
            freeze_batch_norm=fields['freeze_batch_norm'],
            cache=cache,
        )
    )


def check_stages(stages: Sequence[ConfigDict], optimizer: ConfigDict) -> None:
    """Raises `UserError` for a table or an optimiser that cannot train."""
    if optimizer.name not in OPTIMIZERS:
        raise UserError(f'config.optimizer.name is {optimizer.name!r}: choose from {", ".join(OPTIMIZERS)}')
    if not 0 <= optimizer.momentum < 1:
        raise UserError(f'config.optimizer.momentum={optimizer.momentum} must lie in [0, 1)')
    if optimizer.weight_decay < 0:
        raise UserError(f'config.optimizer.weight_decay={optimizer.weight_decay} must be 0 or more')
    if not stages:
        raise UserError('config.stages is empty: give at least one stage(...)')
    names = [row.name for row in stages]
    if len(set(names)) < len(names):
        raise UserError(f'config.stages has two stages of one name: {", ".join(names)}')
    for row in stages:
        unknown = [group for group in row.train if group not in (*GROUPS, BASELINE)]
        if unknown or not row.train:
            problem = f'trains {unknown[0]!r}, which is no group' if unknown else 'trains nothing'
            raise UserError(f'stage {row.name!r} {problem}: choose from {", ".join((*GROUPS, BASELINE))}')
        if row.epochs < 1:
            raise UserError(f'stage {row.name!r} has {row.epochs} epochs: it needs at least 1, or leave the row out')
        if not re.fullmatch(r'\w+', row.name):
            raise UserError(f'a stage is named {row.name!r}: use letters, digits and _, for it names a folder too')
        for group, factor in row.train.items():
            if not factor > 0:
                raise UserError(
                    f'stage {row.name!r} trains {group} at {factor} times its rate: leave out what is frozen'
                )
        if not row.learning_rate > 0:
            raise UserError(f'stage {row.name!r} has learning_rate {row.learning_rate}: it must be above 0')
        if not 0 <= row.warmup_epochs <= row.epochs:
            raise UserError(f'stage {row.name!r} warms up for {row.warmup_epochs} of its {row.epochs} epochs')
        if any(epoch < 1 for epoch in row.milestones):
            raise UserError(f'stage {row.name!r} has a milestone before epoch 1')
        _check_cache(row, active_groups(stages, names.index(row.name)))
        if row.schedule not in SCHEDULES:
            raise UserError(f'stage {row.name!r} has schedule {row.schedule!r}: choose from {", ".join(SCHEDULES)}')


def _check_cache(row: ConfigDict, active: Collection[str]) -> None:
    """Raises `UserError` where what a stage would keep of its images changes while it trains."""
    moving = [group for group in ('backbone', 'proposals') if group in row.train]
    if 'scale_mining' in row.train and 'oriented_pooling' in active:
        moving.append('scale_mining')  # which chooses the scale of the maps that oriented pooling reads
    if row.cache and moving:
        raise UserError(
            f'stage {row.name!r} has cache={row.cache}, but trains {moving[0]}, so that its features change: '
            f'set its cache to 0'
        )
    if not 0 <= row.cache <= row.epochs:
        raise UserError(
            f'stage {row.name!r} has cache={row.cache}: of its {row.epochs} epochs each reads one view, so give at '
            f'most as many, or 0'
        )


def learning_rate(row: ConfigDict, steps_per_epoch: float) -> optax.Schedule:
    """The base learning rate of a stage as a function of its step."""
    warmup = round(row.warmup_epochs * steps_per_epoch)
    total = math.ceil(row.epochs * steps_per_epoch)
    if row.schedule == 'cosine':
        main = optax.cosine_decay_schedule(row.learning_rate, max(total - warmup, 1))
    elif row.schedule == 'step':
        boundaries = {math.ceil(epoch * steps_per_epoch) - warmup: 0.1 for epoch in row.milestones}
        main = optax.piecewise_constant_schedule(row.learning_rate, boundaries)
    else:
        main = optax.constant_schedule(row.learning_rate)
    if not warmup:
        return main
    return optax.join_schedules([optax.linear_schedule(0.0, row.learning_rate, warmup), main], [warmup])


def make_optimizer(row: ConfigDict, optimizer: ConfigDict, steps_per_epoch: float) -> optax.GradientTransformation:
    """The optimiser of a stage: its groups at their rates, nothing for the others.

    Works on parameters `{group: tree}`. A frozen leaf gets a zero update and holds no
    optimiser state.

    Args:
      row: the stage.
      optimizer: the `config.optimizer` section. 'sgd' has momentum, and adds the weight decay to
        the gradient (paper, 4.1); 'adamw' is Loshchilov and Hutter, ICLR 2019.
      steps_per_epoch: for the schedule.
    """
    base = learning_rate(row, steps_per_epoch)

    def transform(factor: float) -> optax.GradientTransformation:
        rate = lambda step: factor * base(step)
        if optimizer.name == 'adamw':
            return optax.adamw(rate, b1=optimizer.momentum, weight_decay=optimizer.weight_decay)
        return optax.chain(
            optax.add_decayed_weights(optimizer.weight_decay), optax.sgd(rate, momentum=optimizer.momentum)
        )

    transforms = {group: transform(factor) for group, factor in row.train.items()}
    labels = lambda params: {group: group if group in row.train else FROZEN for group in params}
    return optax.multi_transform({**transforms, FROZEN: optax.set_to_zero()}, labels)


def split_groups(params: Mapping[str, Any], row: ConfigDict) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters by group -> (those the stage trains, those it leaves alone)."""
    trained = {group: tree for group, tree in params.items() if group in row.train}
    frozen = {group: tree for group, tree in params.items() if group not in row.train}
    return trained, frozen
