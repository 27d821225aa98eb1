"""The weights that a run starts from: `config.model.pretrained`."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from ssanet_jax.pretrained.checkpoint_info import default_checkpoint
from ssanet_jax.pretrained.load import check_source
from ssanet_jax.runs.locations import pretrained_workdir


def resolve_pretrained(config: ConfigDict, run: Mapping[str, Any] | None = None) -> ConfigDict:
    """Fills in `config.model.pretrained` where a configuration leaves it open.

    Args:
      config: the whole configuration.
      run: `read_run(...)['config']` of the run that this one continues. It keeps its own value: runs of version 0.1.0
        started from random weights unless told otherwise.

    Returns:
      A copy in which the field has a value: the recorded one, or the public checkpoint of the backbone.
    """
    config = config.copy_and_resolve_references()
    if not config.model.pretrained:
        recorded = run and run['model'].get('pretrained')
        config.model.pretrained = recorded or default_checkpoint(config.model.backbone)
    return config


def check_initial_weights(config: ConfigDict) -> None:
    """Raises `UserError` if the weights cannot be loaded, as far as this shows without the network.

    Args:
      config: the result of `resolve_pretrained`.
    """
    if pretrained_workdir(config.model.pretrained) is None:
        check_source(config.model.backbone, config.model.pretrained)


def initial_weights(config: ConfigDict) -> str:
    """Names the weights that a run starts from, for its first line.

    Args:
      config: the result of `resolve_pretrained`.
    """
    source = config.model.pretrained
    return 'random weights (config.model.pretrained=none)' if source == 'none' else f'weights of {source}'
