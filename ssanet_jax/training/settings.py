"""Checks of a configuration before a run starts."""

from ml_collections import ConfigDict

from ssanet_jax.data.pipeline import check_data_settings
from ssanet_jax.distributed import processes
from ssanet_jax.errors import UserError
from ssanet_jax.models.groups import PART_HEAD, UPRIGHT, active_groups, summed_classifiers
from ssanet_jax.training.context import AUTO, OFF, ON
from ssanet_jax.training.nonfinite import SKIP, STOP
from ssanet_jax.training.stages import check_stages
from ssanet_jax.training.step import check_loss


def check_settings(config: ConfigDict) -> None:
    """Raises `UserError` for settings that cannot work, as far as this shows without the data and the network.

    Args:
      config: the whole configuration.
    """
    check_stages(config.stages, config.optimizer)
    check_loss(config.loss)
    check_data_settings(config.data)
    if not 0 <= config.seed < 2**32:
        raise UserError(f'config.seed={config.seed}: give a number between 0 and 2**32 - 1')
    if config.get('on_nonfinite', STOP) not in (STOP, SKIP):
        raise UserError(f'config.on_nonfinite={config.on_nonfinite}: set it to {STOP} or {SKIP}')
    if config.get('async_checkpointing', AUTO) not in (AUTO, ON, OFF):
        raise UserError(f'config.async_checkpointing={config.async_checkpointing}: set it to {AUTO}, {ON} or {OFF}')
    if config.get('async_checkpointing') == ON and processes.current().count > 1:
        raise UserError(f'config.async_checkpointing={ON}: several processes save at the same time; set it to {AUTO}')
    for name in ('eval_epochs', 'early_stopping_patience', 'checkpoint_steps', 'epochs'):
        if config.get(name, 0) < 0:
            raise UserError(f'config.{name}={config[name]}: give 0 or more')
    _check_early_stopping(config)
    if config.model.part_head == 'none' and any(PART_HEAD in stage.train for stage in config.stages):
        raise UserError(f'a stage trains {PART_HEAD}, but config.model.part_head is none: name one of models/heads.py')
    _check_fits(config)
    if config.model.part_head == 'fpn' and any(stage.cache for stage in config.stages):
        raise UserError(
            'config.model.part_head=fpn reads whole feature maps, which no cache keeps: set the cache of stages to 0'
        )


def _check_early_stopping(config: ConfigDict) -> None:
    """Raises `UserError` if stages should stop early, but cannot."""
    patience = config.get('early_stopping_patience', 0)
    if patience and all(stage.get('fit') for stage in config.stages):
        raise UserError(
            f'config.early_stopping_patience={patience}: stages with fit=True are not trained by gradient descent, '
            'so there is nothing to stop early: leave it out'
        )
    missing = [
        f'config.{name}'
        for name, is_set in (('data.validation=0.1', config.data.validation), ('eval_epochs=1', config.eval_epochs))
        if not is_set
    ]
    if patience and missing:
        raise UserError(
            f'config.early_stopping_patience={patience} needs evaluations on validation images: set '
            f'{" and ".join(missing)} too'
        )


def _check_fits(config: ConfigDict) -> None:
    """Raises `UserError` for stages that fit what this network cannot have fitted."""
    model = config.model
    for index, stage in enumerate(config.stages):
        groups = set(stage.train) if stage.get('fit') else set()
        if UPRIGHT in groups and not model.get('upright'):
            raise UserError(f'stage {stage.name!r} fits {UPRIGHT}: set config.model.upright=4')
        if groups - {'proposals', UPRIGHT} and not model.standardize:
            raise UserError(f'stage {stage.name!r} fits classifiers: set config.model.standardize=True')
        if 'proposals' in groups and model.proposal == 'ranking':
            raise UserError(f"stage {stage.name!r} fits the proposals: set config.model.proposal='prototypes'")
        if 'scale_mining' in groups and (model.num_scales > 1 or model.features == 'flat'):
            raise UserError(
                f'stage {stage.name!r} fits scale_mining, which needs config.model.num_scales=1 and features=pooled: '
                'change them, or train scale_mining in another stage'
            )
        # Their weights in the sum are fitted together: one alone would get a weight as if the other were not there.
        summed = {'image_classifier', 'scale_mining'} & summed_classifiers(
            model.fusion, active_groups(config.stages, index)
        )
        for beside in sorted(summed - groups) if summed & groups else ():
            raise UserError(
                f'stage {stage.name!r} fits {min(summed & groups)}, whose weight depends on {beside}, which an earlier '
                f'stage has trained and the prediction adds: add {beside} to its train'
            )
    readers = [stage for stage in config.stages if {'image_classifier', 'scale_mining'} & set(stage.train)]
    if model.features == 'covariance' and readers and not readers[0].get('fit'):
        raise UserError(
            f'stage {readers[0].name!r} trains classifiers of covariances, which a stage with fit=True prepares: add '
            'such a stage before it, or set config.model.features=pooled'
        )
    if model.proposal != 'ranking' and config.loss.weights.ranking:
        raise UserError(f'config.model.proposal={model.proposal} ranks no boxes: set config.loss.weights.ranking=0')
