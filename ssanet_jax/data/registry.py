"""Data sets by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from ml_collections import ConfigDict

from ssanet_jax.data import aircraft, builder, cars, cub, folder, locations, toy_birds
from ssanet_jax.data.dataset import Dataset
from ssanet_jax.data.image_files import links_outside_line
from ssanet_jax.data.listing import Listing
from ssanet_jax.data.listing_checks import require_testable, require_trainable
from ssanet_jax.data.splits import hold_out_validation
from ssanet_jax.errors import UserError

# `config.data.name` -> reader of a folder of images, from the `data` section of a configuration.
READERS: dict[str, Callable[[Any], Listing]] = {
    'cub': cub.read,
    'cars': cars.read,
    'aircraft': aircraft.read,
    'folder': folder.read,
}


def find_data_dir(config: Any) -> str:
    """The folder of a data set: ``config.dir``, or where `locations.find` finds it if that is not set.

    Args:
      config: the ``data`` section of a configuration.

    Returns:
      '' for generated data sets and for images of the user's own, which have no usual place.

    Raises:
      UserError: it is not set, and the data set is in none of the usual places.
    """
    if config.get('dir') or config.name not in READERS or config.name == 'folder':
        return config.get('dir') or ''
    return str(locations.find(config.name))


def read_listing(config: Any, class_names: Sequence[str] = ()) -> Listing:
    """Lists the images and annotations of a folder without reading an image.

    Args:
      config: the ``data`` section of a configuration. ``config.name`` selects the reader; each reader's module
        documents the fields that it takes. All take ``dir``; `find_data_dir` supplies it if it is not set.
      class_names: the classes of a trained network that is to be evaluated: a folder of the user's own then needs no
        training split, nor test images of every class.

    Raises:
      UserError: the name is unknown, or the reader found a problem with the files.
    """
    if config.name not in READERS:
        known = ', '.join(['toy_birds', *READERS])
        raise UserError(f'unknown data set {config.name!r}: set config.data.name to one of {known}')
    if config.name == 'folder':
        found = folder.read(config, class_names)
    else:
        found = READERS[config.name](ConfigDict({**config, 'dir': find_data_dir(config)}))
    line = links_outside_line((found.root / record.path for record in found.records), found.root)
    return dataclasses.replace(found, notes=(*found.notes, line)) if line else found


def load_dataset(config: Any, class_names: Sequence[str] = ()) -> Dataset:
    """Opens a data set. The first call for a folder writes the copy that is read from then on (see `builder`).

    Args:
      config: the ``data`` section of a configuration; see `read_listing`.
      class_names: the classes of a trained network that is to be evaluated; see `read_listing`. The training split is
        empty if the folder has none, or has other classes.

    Returns:
      The data set; images are read and decoded when examples are accessed.

    Raises:
      UserError: the name is unknown, or there is a problem with the files, one that the doctor reports as an error.
    """
    if config.name == 'toy_birds':
        dataset = toy_birds.load(config)
    else:
        listing = read_listing(config, class_names)
        (require_testable if class_names else require_trainable)(listing)
        dataset = builder.build_dataset(listing, config)
    fraction = config.get('validation', 0)
    if not fraction or not len(dataset.train):
        return dataset
    return hold_out_validation(dataset, fraction, config.get('split_seed', 0))


def published_num_classes(config: Any) -> int | None:
    """Number of classes of a complete data set, without reading it; None if the name is unknown or has no such number.

    Args:
      config: the ``data`` section of a configuration.
    """
    if config.name == 'aircraft':
        return aircraft.NUM_CLASSES.get(config.get('level') or 'variant')
    counts = {'toy_birds': len(toy_birds.CLASS_NAMES), 'cub': cub.NUM_CLASSES, 'cars': cars.NUM_CLASSES}
    return counts.get(config.name)
