"""A data set before its images are read: what a reader makes of a published folder."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssanet_jax.errors import UserError

SPLITS = ('train', 'test')


@dataclasses.dataclass(frozen=True)
class Record:
    """One image of a data set before it is read."""

    path: str
    """Relative to the set's folder, with forward slashes."""
    label: int
    split: str
    """'train' or 'test'."""
    box: np.ndarray | None = None
    """float32 [4], (y0, x0, y1, x1) in pixels."""
    keypoints: np.ndarray | None = None
    """float32 [P, 3], (y, x, visible)."""
    mtime_ns: int = 0
    """Changes when the file does, for sets whose files have no published identity."""


@dataclasses.dataclass(frozen=True)
class Listing:
    """The images of a data set by name, and what is known of the set as it was published."""

    slug: str
    """Short name for folders, such as 'cub'."""
    name: str
    """As a report should call it, such as 'CUB-200-2011'."""
    root: pathlib.Path
    """Absolute folder that the records' paths start from."""
    class_names: tuple[str, ...]
    records: list[Record]
    """Each split in the order in which it should be listed."""
    crop_bottom: int = 0
    """Rows to leave out at the bottom of every decoded image."""
    keypoint_names: tuple[str, ...] = ()
    """Name of each of the records' key points."""
    published: dict[str, int] = dataclasses.field(default_factory=dict)
    """Images a split and 'classes' of the whole published set; empty for a set of the user's own."""
    origin: str = ''
    """Where people get the set, for messages."""
    skipped_files: tuple[str, ...] = ()
    """Files among the images that the reader took for none of the set's; paths as those of the records."""


def require_dir(config: Any, what: str) -> pathlib.Path:
    """Returns the absolute ``config.dir``.

    Args:
      config: the ``data`` section of a config.
      what: what the folder should hold, for the message: 'the extracted CUB_200_2011 folder'.

    Raises:
      UserError: the field is empty or names no folder, or nobody whose home it starts from.
    """
    if not config.get('dir'):
        raise UserError(f'config.data.dir is not set: set it to {what}')
    root = expand_home(config.dir, 'config.data.dir')
    if not root.is_dir():
        raise UserError(f'config.data.dir={config.dir} is not a folder: set it to {what}')
    return root.resolve()


def expand_home(path: str, field: str) -> pathlib.Path:
    """Returns a path whose ``~`` or ``~NAME`` is replaced by the home folder that it stands for.

    Args:
      path: as the user wrote it.
      field: where, for the message: 'config.data.dir'.

    Raises:
      UserError: there is no such user, or no home.
    """
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError as error:
        start = pathlib.Path(path).parts[0]
        raise UserError(
            f"{field}={path} starts with {start}, which is nobody's home here: give the full path"
        ) from error


def find_dataset_root(folder: pathlib.Path, markers: Sequence[str], what: str) -> pathlib.Path:
    """Finds a set in ``folder`` itself, or up to two folders below: archives and mirrors nest differently.

    Args:
      folder: where to look; the nearest place wins.
      markers: paths relative to the set's root, of which it has at least one.
      what: the root in words, for the message.

    Raises:
      UserError: no such folder, or several equally near.
    """
    for depth in range(3):
        above = ['*'] * depth
        roots = {
            # Resolved, since a link beside its target is no second set.
            path.parents[len(pathlib.PurePath(marker).parts) - 1].resolve()
            for marker in markers
            for path in folder.glob('/'.join([*above, marker]))
            if not any(part.startswith('.') for part in path.relative_to(folder).parts)
        }
        if len(roots) > 1:
            first, second, *_ = sorted(map(str, roots))
            raise UserError(
                f'{folder} holds more than one such set, {first} and {second}: set config.data.dir to one of them'
            )
        if roots:
            return roots.pop()
    sought = ' or '.join(str(pathlib.PurePath(marker)) for marker in markers)
    raise UserError(f'{sought} is missing in {folder} and the folders in it: set config.data.dir to {what}')


def require_file(path: pathlib.Path, what: str) -> pathlib.Path:
    """Returns ``path`` if it is a file.

    Raises:
      UserError: it is not; the message says that its folder is not ``what``.
    """
    if not path.is_file():
        raise UserError(f'{path} is missing: set config.data.dir to {what}')
    return path
