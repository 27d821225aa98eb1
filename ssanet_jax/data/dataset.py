"""What every data set looks like to the rest of the project, and which reader makes it."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any, Protocol, runtime_checkable

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


@runtime_checkable
class Source(Protocol):
    """Random access to examples; reading one decodes one image.

    An example is a dict with

    * ``'image'``: uint8 [H, W, 3], RGB, any size;
    * ``'label'``: np.int32, an index into the set's ``class_names``;
    * ``'file'``: str, the name to print when something is wrong with the image;

    and, where the set has them,

    * ``'box'``: float32 [4], (y0, x0, y1, x1) in pixels of the image, as annotated (a few
      published boxes overrun their image);
    * ``'keypoints'``: float32 [P, 3], (y, x, visible) with visible 0 or 1; y and x mean nothing
      where visible is 0.

    Reading is safe from several threads at once.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A named pair of training and test examples over one list of classes."""

    name: str
    """As a report should call it, such as 'CUB-200-2011'."""
    class_names: tuple[str, ...]
    """Name of each label, in label order."""
    train: Source
    test: Source


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


def load(config: Any) -> Dataset:
    """Reads the data set that a config asks for, after preparing it if this is the first time.

    Args:
      config: the ``data`` section of a config; see `read_listing`.

    Returns:
      The data set. Images are read and decoded only as examples are asked for.

    Raises:
      UserError: unknown name, or whatever is wrong with the files.
    """
    if config.name == 'toy_birds':
        from ssanet_jax.data import toy_birds

        return toy_birds.load(config)
    from ssanet_jax.data import builder

    return builder.prepare(read_listing(config), config)
