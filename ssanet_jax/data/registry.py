"""Data sets by name: which reader reads `config.data.name`."""

import importlib
from typing import Any

from ssanet_jax.data import builder, toy_birds
from ssanet_jax.data.dataset import Dataset, hold_out_validation
from ssanet_jax.data.listing import Listing
from ssanet_jax.errors import UserError

# Readers of published folders: each has `read(config) -> Listing`. They are imported by name on demand,
# so that a run on one set never needs another set's dependencies (SciPy's .mat reader for Cars, for one).
READERS = {
    'cub': 'ssanet_jax.data.cub',
    'cars': 'ssanet_jax.data.cars',
    'aircraft': 'ssanet_jax.data.aircraft',
    'folder': 'ssanet_jax.data.folder',
}


def read_listing(config: Any) -> Listing:
    """Lists the images of a real data set, without reading one.

    Args:
      config: the ``data`` section of a config. ``config.name`` picks the reader; the reader's
        module says which other fields it takes (all take ``dir``).

    Raises:
      UserError: unknown name, or whatever the reader finds wrong with the files.
    """
    if config.name not in READERS:
        known = ', '.join(['toy_birds', *READERS])
        raise UserError(f'unknown data set {config.name!r}: set config.data.name to one of {known}')
    return importlib.import_module(READERS[config.name]).read(config)


def load_dataset(config: Any) -> Dataset:
    """Reads the data set that a config asks for, after preparing it if this is the first time.

    Args:
      config: the ``data`` section of a config; see `read_listing`.

    Returns:
      The data set. Images are read and decoded only as examples are asked for.

    Raises:
      UserError: unknown name, or whatever is wrong with the files.
    """
    dataset = (
        toy_birds.load(config) if config.name == 'toy_birds' else builder.build_dataset(read_listing(config), config)
    )
    share = config.get('validation', 0)
    return hold_out_validation(dataset, share, config.get('split_seed', 0)) if share else dataset
