"""How images are prepared for a network: the settings that a configuration may leave to its pretrained weights."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ssanet_jax.errors import UserError
from ssanet_jax.pretrained.checkpoint_info import architecture_info, checkpoint_info, default_checkpoint
from ssanet_jax.runs.files import read_run
from ssanet_jax.runs.locations import pretrained_workdir


class Preprocessing(NamedTuple):
    """Fields of `config.data`; empty ones are left to the pretrained weights."""

    interpolation: str
    mean: tuple[float, ...]  # per RGB channel, in 0..255
    std: tuple[float, ...]


def resolve_preprocessing(config: ConfigDict, recorded: Preprocessing | None = None) -> ConfigDict:
    """Fills in how images are prepared, where a configuration leaves it open.

    Args:
      config: the whole configuration.
      recorded: the values of the run that this one continues; by default `config.model.pretrained` decides.

    Returns:
      A copy in which no field of `Preprocessing` is empty.

    Raises:
      UserError: there is no such backbone, or `config.model.pretrained` cannot be read.
    """
    config = config.copy_and_resolve_references()
    missing = [name for name in Preprocessing._fields if not config.data.get(name)]
    if missing:
        if recorded is None:
            source = config.model.pretrained or default_checkpoint(config.model.backbone)
            recorded = _source_preprocessing(source, config.model.backbone)
        with config.unlocked():
            config.data.update({name: getattr(recorded, name) for name in missing})
    return config


def recorded_preprocessing(config: Mapping[str, Any]) -> Preprocessing:
    """The preprocessing of a run, from its configuration.

    Runs of earlier versions lack some of the fields: they used the defaults of their backbone.
    """
    default = architecture_info(config['model']['backbone'])
    recorded = {name: config['data'].get(name) or getattr(default, name) for name in Preprocessing._fields}
    return Preprocessing(recorded['interpolation'], tuple(recorded['mean']), tuple(recorded['std']))


def recorded_bit_depth(config: Mapping[str, Any]) -> int:
    """The `config.data.bit_depth` of a run; runs of earlier versions kept the highest 8 of all 16 bits."""
    return config['data'].get('bit_depth', 16)


def resolve_bit_depth(config: ConfigDict, bit_depth: int) -> None:
    """Sets `config.data.bit_depth`, where a configuration leaves it open, in place."""
    with config.unlocked():
        config.data.bit_depth = config.data.get('bit_depth') or bit_depth


def complete_preprocessing(config: Mapping[str, Any]) -> dict[str, Any]:
    """A run's configuration as a JSON tree, with the recorded preprocessing and bit depth."""
    recorded = json.loads(json.dumps(recorded_preprocessing(config)._asdict()))
    return {**config, 'data': {**config['data'], **recorded, 'bit_depth': recorded_bit_depth(config)}}


def _source_preprocessing(source: str, backbone: str) -> Preprocessing:
    workdir = pretrained_workdir(source)
    if workdir is not None:
        try:
            return recorded_preprocessing(read_run(workdir)['config'])
        except UserError as error:
            raise UserError(f'config.model.pretrained={source}: {error}') from error
    info = checkpoint_info(source, backbone)
    return Preprocessing(info.interpolation, info.mean, info.std)
