"""Checks of a configuration before a run starts."""

from ml_collections import ConfigDict

from ssanet_jax.data.pipeline import check_data_settings
from ssanet_jax.errors import UserError
from ssanet_jax.models.groups import PART_HEAD
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
    for name in ('eval_epochs', 'checkpoint_steps'):
        if config[name] < 0:
            raise UserError(f'config.{name}={config[name]}: give 0 or more')
    if config.model.part_head == 'none' and any(PART_HEAD in stage.train for stage in config.stages):
        raise UserError(f'a stage trains {PART_HEAD}, but config.model.part_head is none: name one of models/heads.py')
    if config.model.part_head == 'fpn' and any(stage.cache for stage in config.stages):
        raise UserError(
            'config.model.part_head=fpn reads whole feature maps, which no cache keeps: set the cache of stages to 0'
        )
