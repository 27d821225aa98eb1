"""Absolute paths in the settings of a run, so that its commands can be started from any folder."""

from pathlib import Path

from ml_collections import ConfigDict

from ssanet_jax.filesystem.paths import user_path
from ssanet_jax.pretrained.checkpoint_info import HUB, PACKAGE

WORKDIR = 'workdir:'  # of config.model.pretrained
_FIELD = 'config.model.pretrained'


def absolute_locations(config: ConfigDict) -> ConfigDict:
    """Replaces the paths of a configuration by absolute ones; returns a copy.

    Paths below a home folder stay as they are in `config.data.prepared_dir`, which another user would have elsewhere.

    Raises:
      UserError: `user_path` refuses a path.
    """
    config = config.copy_and_resolve_references()
    with config.unlocked():
        if config.data.get('dir'):
            config.data.dir = str(user_path(config.data.dir, 'config.data.dir').absolute())
        prepared = config.data.get('prepared_dir')
        if prepared and not prepared.startswith('~'):
            config.data.prepared_dir = str(user_path(prepared, 'config.data.prepared_dir').absolute())
        config.model.pretrained = absolute_source(config.model.pretrained)
    return config


def without_locations(config: ConfigDict) -> ConfigDict:
    """A copy of a run's configuration for files that are given to others: of paths, only the last name."""
    config = config.copy_and_resolve_references()
    source = config.model.get('pretrained') or ''
    with config.unlocked():
        config.data.update({name: Path(config.data[name]).name for name in ('dir', 'csv') if config.data.get(name)})
        if config.data.get('prepared_dir'):
            config.data.prepared_dir = ''
        if source not in ('', 'none') and not source.startswith((PACKAGE, HUB)):
            prefix = WORKDIR if source.startswith(WORKDIR) else ''
            config.model.pretrained = prefix + Path(source.removeprefix(WORKDIR)).name
    return config


def absolute_source(source: str) -> str:
    """`config.model.pretrained` with an absolute path, if it names a file or a work directory."""
    if source in ('', 'none') or source.startswith((PACKAGE, HUB)):
        return source
    prefix = WORKDIR if source.startswith(WORKDIR) else ''
    return f'{prefix}{user_path(source.removeprefix(WORKDIR), _FIELD).absolute()}'


def pretrained_workdir(source: str) -> Path | None:
    """The work directory that `config.model.pretrained` names ('workdir:DIR' or a folder), None for other sources."""
    location = absolute_source(source)
    if location.startswith(WORKDIR):
        return Path(location.removeprefix(WORKDIR))
    return Path(location) if location.startswith('/') and Path(location).is_dir() else None
