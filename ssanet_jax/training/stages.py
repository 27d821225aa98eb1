"""Stages of training: which groups train, at which learning rate (paper, 3.4), and the optimizer of each stage."""

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import optax
from flax.traverse_util import flatten_dict, path_aware_map, unflatten_dict
from ml_collections import ConfigDict

from ssanet_jax.errors import UserError
from ssanet_jax.models.backbones.base import Backbone
from ssanet_jax.models.groups import GROUPS, PART_HEAD, UPRIGHT, active_groups
from ssanet_jax.runs.aliases import STAGE_FIELDS, upgrade_fields

Path = tuple[Any, ...]  # the keys of an array in a tree, the group first

FROZEN = 'frozen'
OPTIMIZERS = ('sgd', 'adamw')
SCHEDULES = ('step', 'cosine', 'constant')
FIELDS = (
    'name',
    'epochs',
    'learning_rate',
    'train',
    'schedule',
    'milestones',
    'warmup_epochs',
    'freeze_batch_norm',
    'trainable_backbone_layers',
    'layer_decay',
    'cache',
    'fit',
)
PART_GROUPS = ('part_classifier', 'scale_mining', 'oriented_pooling', PART_HEAD)  # the groups that read the parts
FITTED_GROUPS = ('proposals', 'part_classifier', 'image_classifier', 'scale_mining', UPRIGHT)


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
    trainable_backbone_layers: int = 0,
    layer_decay: float = 0.0,
    cache: int = 0,
    fit: bool = False,
    **old_names: Any,
) -> ConfigDict:
    """A stage of `config.stages`.

    Args:
      name: the stage's name, and that of its folder in the work directory.
      epochs: passes over the training set.
      learning_rate: base learning rate.
      train: {group: factor of the learning rate}. All other groups are frozen, weights and BatchNorm statistics; no
        backward pass goes through a frozen group unless a group below it trains.
      schedule: 'step' multiplies the learning rate by 0.1 after each epoch of `milestones`; 'cosine' lowers it to
        zero; 'constant' leaves it.
      milestones: epochs, for 'step'.
      warmup_epochs: epochs of linear warm-up from zero.
      freeze_batch_norm: BatchNorm uses its running statistics and does not update them, also in groups that train.
        This protects a pretrained backbone from the noise of small batches.
      trainable_backbone_layers: number of layers of the backbone that train if it does, counted from the last; 0 trains
        all. A layer is all blocks of one resolution (`Backbone.layer_index`). The others are frozen like a group.
      layer_decay: factor of the learning rate from each layer of the backbone to the one before it, in (0, 1), as in
        BEiT (Bao et al., ICLR 2022). The last layer has the group's rate. 0 is off: all layers have that rate.
      cache: number of augmented views per image whose features are computed once and kept on disk, for a stage that
        trains only heads (`training/feature_cache.py`); 0 computes features in every epoch.
      fit: fit the groups to `epochs` augmented views of each image, prototypes by k-means and classifiers by L-BFGS
        (`training/fitting.py`), instead of training them by gradient descent. There is then no learning rate.
      **old_names: fields under their names in earlier versions (`runs/aliases.py`), such as `rate`.

    Raises:
      TypeError: an argument is missing or unknown.
    """
    given = dict(old_names) if learning_rate is None else {'learning_rate': learning_rate, **old_names}
    fields = {'freeze_batch_norm': freeze_batch_norm} | upgrade_fields(given, STAGE_FIELDS, {}, f'stage({name!r})')
    if wrong := fields.keys() - {'learning_rate', 'freeze_batch_norm'}:
        raise TypeError(f'stage({name!r}): unknown arguments {", ".join(sorted(wrong))}')
    if fit:
        fields.setdefault('learning_rate', 0.0)
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
            trainable_backbone_layers=trainable_backbone_layers,
            layer_decay=float(layer_decay),
            cache=cache,
            fit=fit,
        )
    )


def scale_epochs(stages: Sequence[ConfigDict], total: int) -> tuple[ConfigDict, ...]:
    """Changes the number of epochs of all stages together to `total`; each keeps its share, and has at least one.

    Milestones and warm-up change with the epochs of their stage, and no stage caches more views than it has epochs.

    Args:
      stages: the `config.stages` section, for which `check_stages` has passed; it is not changed.
      total: the number of epochs of all stages; 0 leaves the stages as they are.

    Raises:
      UserError: there are fewer epochs than stages.
    """
    scaled = tuple(stage.copy_and_resolve_references() for stage in stages)
    if not total:
        return scaled
    if total < len(stages):
        raise UserError(f'config.epochs={total}: give 0, or at least one epoch for each of the {len(stages)} stages')
    before = [stage.epochs for stage in stages]
    # One for each, and the others in proportion, by the method of the largest remainder.
    rest, spare = total - len(stages), sum(before) - len(stages)
    exact = [1 + rest * ((epochs - 1) / spare if spare else 1 / len(stages)) for epochs in before]
    whole = [math.floor(share + 1e-9) for share in exact]
    for index in sorted(range(len(stages)), key=lambda index: whole[index] - exact[index])[: total - sum(whole)]:
        whole[index] += 1
    for stage, epochs, old in zip(scaled, whole, before, strict=True):
        with stage.unlocked():
            stage.epochs = epochs
            stage.warmup_epochs = stage.warmup_epochs * epochs / old
            stage.milestones = tuple(max(round(milestone * epochs / old), 1) for milestone in stage.milestones)
            if 'cache' in stage:
                stage.cache = min(stage.cache, epochs)
    return scaled


def check_stages(stages: Sequence[ConfigDict], optimizer: ConfigDict) -> None:
    """Raises `UserError` for stages or an optimizer that cannot train.

    Args:
      stages: the `config.stages` section.
      optimizer: the `config.optimizer` section.
    """
    if optimizer.name not in OPTIMIZERS:
        raise UserError(f'config.optimizer.name is {optimizer.name!r}: choose from {", ".join(OPTIMIZERS)}')
    if not 0 <= optimizer.momentum < 1:
        raise UserError(f'config.optimizer.momentum={optimizer.momentum} must lie in [0, 1)')
    if optimizer.weight_decay < 0:
        raise UserError(f'config.optimizer.weight_decay={optimizer.weight_decay} must be 0 or more')
    if not stages:
        raise UserError('config.stages is empty: give at least one stage(...)')
    names = [stage.name for stage in stages]
    if len(set(names)) < len(names):
        raise UserError(f'config.stages has two stages of one name ({", ".join(names)}): rename one')
    for index, stage in enumerate(stages):
        for problem in _stage_problems(stage, active_groups(stages, index)):
            raise UserError(f'stage {stage.name!r} {problem}')


def _stage_problems(stage: ConfigDict, active: Collection[str]) -> Iterator[str]:
    """Yields each problem of a stage with its cure, worded to follow 'stage NAME ...'."""
    if unknown := [field for field in stage if field not in FIELDS]:
        yield f'has an unknown field {unknown[0]!r}: choose from {", ".join(FIELDS)}'
    groups = *GROUPS, PART_HEAD, UPRIGHT
    if unknown := [group for group in stage.train if group not in groups]:
        yield f'trains {unknown[0]!r}, which is not a group: choose from {", ".join(groups)}'
    if not stage.train:
        yield f'trains nothing: choose from {", ".join(groups)}'
    if stage.epochs < 1:
        yield f'has {stage.epochs} epochs: give it at least 1, or remove it'
    if not re.fullmatch(r'\w+', stage.name):
        yield 'has a name that cannot be a folder: use letters, digits and _'
    parts = [group for group in stage.train if group in PART_GROUPS]
    if parts and 'proposals' not in active:
        yield (
            f'trains {parts[0]}, which reads the parts, but neither this stage nor one before it trains proposals, '
            'which find them: add proposals to its train'
        )
    for group, factor in stage.train.items():
        if not factor > 0:
            yield f'trains {group} at {factor} times its learning_rate: remove the group to freeze it'
    fit = stage.get('fit', False)  # stages of earlier versions have no such field
    if fit and (unfit := [group for group in stage.train if group not in FITTED_GROUPS]):
        yield f'has fit=True, but {unfit[0]} cannot be fitted: choose from {", ".join(FITTED_GROUPS)}'
    if not fit and UPRIGHT in stage.train:
        yield f'trains {UPRIGHT}, which no loss trains: fit it in a stage with fit=True'
    if fit and stage.cache:
        yield f'has cache={stage.cache} and fit=True, which reads each view once: set its cache to 0'
    layers = stage.get('trainable_backbone_layers', 0)
    if layers < 0:
        yield f'has trainable_backbone_layers {layers}: give a number from 1, or 0 to train all'
    if layers and 'backbone' not in stage.train:
        yield f'has trainable_backbone_layers {layers}, but does not train the backbone: add it to train, or set 0'
    decay = stage.get('layer_decay', 0)
    if not 0 <= decay < 1:
        yield f'has layer_decay {decay}: give a factor below 1, or 0 for the same rate in all layers'
    if decay and 'backbone' not in stage.train:
        yield f'has layer_decay {decay}, but does not train the backbone: add it to train, or set 0'
    if not fit and not stage.learning_rate > 0:
        yield f'has learning_rate {stage.learning_rate}: set it above 0'
    if not 0 <= stage.warmup_epochs <= stage.epochs:
        yield f'has warmup_epochs {stage.warmup_epochs}: set it between 0 and its {stage.epochs} epochs'
    if any(epoch < 1 for epoch in stage.milestones):
        yield 'has a milestone before epoch 1: give epochs from 1'
    if stage.schedule not in SCHEDULES:
        yield f'has schedule {stage.schedule!r}: choose from {", ".join(SCHEDULES)}'
    changing = [group for group in ('backbone', 'proposals') if group in stage.train]
    if 'scale_mining' in stage.train and 'oriented_pooling' in active:
        changing.append('scale_mining')  # it selects the scale of the maps that oriented pooling reads
    if stage.cache and changing:
        yield f'has cache={stage.cache}, but trains {changing[0]}, so that its features change: set its cache to 0'
    if not 0 <= stage.cache <= stage.epochs:
        yield (
            f'has cache={stage.cache}: each of its {stage.epochs} epochs reads one view, so give at most as many, or 0'
        )


def learning_rate(stage: ConfigDict, steps_per_epoch: float) -> optax.Schedule:
    """The base learning rate of a stage as a function of its step.

    Args:
      stage: the stage.
      steps_per_epoch: number of images over the batch size, which need not be whole.
    """
    warmup = round(stage.warmup_epochs * steps_per_epoch)
    total = math.ceil(stage.epochs * steps_per_epoch)
    if stage.schedule == 'cosine':
        main = optax.cosine_decay_schedule(stage.learning_rate, max(total - warmup, 1))
    elif stage.schedule == 'step':
        boundaries: dict[int, float] = {}
        for epoch in stage.milestones:  # `scale_epochs` may round two of them to one epoch
            step = math.ceil(epoch * steps_per_epoch) - warmup
            boundaries[step] = 0.1 * boundaries.get(step, 1.0)
        main = optax.piecewise_constant_schedule(stage.learning_rate, boundaries)
    else:
        main = optax.constant_schedule(stage.learning_rate)
    if not warmup:
        return main
    return optax.join_schedules([optax.linear_schedule(0.0, stage.learning_rate, warmup), main], [warmup])


def make_trains(stage: ConfigDict, backbone: Backbone, params: Mapping[str, Any]) -> Callable[[Path], bool]:
    """Which parameters and BatchNorm statistics a stage trains.

    Args:
      stage: the stage.
      backbone: the network's.
      params: parameters by group.

    Returns:
      The path of an array, group first -> whether the stage trains it.

    Raises:
      UserError: the backbone has fewer layers than the stage trains.
    """
    count = stage.get('trainable_backbone_layers', 0)
    if not count:
        return lambda path: path[0] in stage.train
    num_layers = 1 + max(map(backbone.layer_index, flatten_dict(params['backbone'])))
    if count > num_layers:
        raise UserError(
            f'stage {stage.name!r} has trainable_backbone_layers {count}, and the backbone has {num_layers} layers: '
            f'give at most {num_layers}, or 0 to train all'
        )
    first = num_layers - count
    return lambda path: path[0] in stage.train and (path[0] != 'backbone' or backbone.layer_index(path[1:]) >= first)


def decay_layers(stage: ConfigDict, backbone: Backbone, params: Mapping[str, Any]) -> Callable[[Path], float]:
    """The factor of each parameter's learning rate by its layer: `layer_decay` to the number of layers behind it.

    Args:
      stage, backbone, params: see `make_trains`.

    Returns:
      The path of a parameter, group first -> factor; 1 outside the backbone.
    """
    decay = stage.get('layer_decay', 0) or 1.0
    last = max(map(backbone.layer_index, flatten_dict(params['backbone'])))
    return lambda path: decay ** (last - backbone.layer_index(path[1:])) if path[0] == 'backbone' else 1.0


def make_optimizer(
    stage: ConfigDict,
    optimizer: ConfigDict,
    steps_per_epoch: float,
    trains: Callable[[Path], bool],
    rate_factor: Callable[[Path], float] | None = None,
) -> optax.GradientTransformation:
    """The optimizer of a stage, for parameters `{group: tree}`.

    Parameters that the stage does not train get zero updates and have no optimizer state.

    Args:
      stage: the stage.
      optimizer: the `config.optimizer` section. 'sgd' has momentum and adds the weight decay to
        the gradient (paper, 4.1); 'adamw' is Loshchilov and Hutter, ICLR 2019.
      steps_per_epoch: converts epochs to steps in the learning rate schedule.
      trains: see `make_trains`.
      rate_factor: see `decay_layers`; None leaves all rates, and has the state of earlier versions.
    """
    base = learning_rate(stage, steps_per_epoch)

    def transform(factor: float) -> optax.GradientTransformation:
        rate = lambda step: factor * base(step)
        if optimizer.name == 'adamw':
            return optax.adamw(rate, b1=optimizer.momentum, weight_decay=optimizer.weight_decay)
        return optax.chain(
            optax.add_decayed_weights(optimizer.weight_decay), optax.sgd(rate, momentum=optimizer.momentum)
        )

    transforms = {group: transform(factor) for group, factor in stage.train.items()}

    def labels(params: Mapping[str, Any]) -> dict[str, Any]:
        found = path_aware_map(lambda path, _: path[0] if trains(path) else FROZEN, params)
        # One label for a group that trains or is frozen as a whole, so that its state is that of earlier versions.
        return {
            group: tree if len(set(jax.tree.leaves(tree))) > 1 else jax.tree.leaves(tree)[0]
            for group, tree in found.items()
        }

    by_group = optax.multi_transform({**transforms, FROZEN: optax.set_to_zero()}, labels)
    if rate_factor is None:
        return by_group

    # Updates are proportional to the rate, the weight decay of AdamW included.
    def scale(updates: Any, _: Any) -> Any:
        return path_aware_map(lambda path, update: rate_factor(path) * update, updates)

    return optax.chain(by_group, optax.stateless(scale))


def split_params(params: Mapping[str, Any], trains: Callable[[Path], bool]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits parameters by group into `(trained, frozen)`, trees of the same kind with other leaves."""
    flat = flatten_dict(params)
    trained = {path: leaf for path, leaf in flat.items() if trains(path)}
    frozen = {path: leaf for path, leaf in flat.items() if not trains(path)}
    return unflatten_dict(trained), unflatten_dict(frozen)


def merge_params(trained: Mapping[str, Any], frozen: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `split_params`."""
    return unflatten_dict(flatten_dict(frozen) | flatten_dict(trained))
