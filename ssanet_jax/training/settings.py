"""Whether settings make sense, and which of a run's may be others when it goes on or is evaluated."""

from ml_collections import ConfigDict

from ssanet_jax.data.pipeline import check_data_settings
from ssanet_jax.errors import UserError
from ssanet_jax.models.ssanet import BASELINE
from ssanet_jax.training.stages import check_stages
from ssanet_jax.training.step import check_loss


def check_settings(config: ConfigDict) -> None:
    """Raises `UserError` for settings that make no sense, as far as that shows without data and network."""
    check_stages(config.stages, config.optimizer)
    check_loss(config.loss)
    check_data_settings(config.data)
    if not 0 <= config.seed < 2**32:
        raise UserError(f'config.seed={config.seed} must lie between 0 and 2**32 - 1')
    for name in ('eval_epochs', 'checkpoint_steps'):
        if config[name] < 0:
            raise UserError(f'config.{name}={config[name]} must be 0 or more')
    if config.model.part_head == 'none' and any(BASELINE in row.train for row in config.stages):
        raise UserError(f'a stage trains {BASELINE}, but config.model.part_head is none: name one of models/heads.py')
    if config.model.part_head == 'fpn' and any(row.cache for row in config.stages):
        raise UserError(
            'config.model.part_head=fpn reads whole maps, which no cache keeps: set the cache of stages to 0'
        )
