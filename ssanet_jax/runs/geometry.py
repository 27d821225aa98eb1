"""The geometry of a run's network: `config.model.geometry`."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

DEFAULT_GEOMETRY = 'standard'


def resolve_geometry(config: ConfigDict, run: Mapping[str, Any] | None = None) -> ConfigDict:
    """Fills in `config.model.geometry` where a configuration leaves it open.

    Args:
      config: the whole configuration.
      run: `read_run(...)['config']` of the run that this one continues. Runs of version 0.1.0 keep its geometry.

    Returns:
      A copy in which the field has a value.
    """
    config = config.copy_and_resolve_references()
    if not config.model.get('geometry'):
        with config.unlocked():
            config.model.geometry = (run and run['model'].get('geometry')) or DEFAULT_GEOMETRY
    return config
