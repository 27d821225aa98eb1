"""The images and annotations of a data set before any image is read."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssanet_jax.data.left_out import LeftOut, first_names, left_out_line
from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.paths import user_path
from ssanet_jax.filesystem.regular_files import read_regular_file

SPLITS = ('train', 'test')
MAX_COORDINATE = 1e6  # pixels; larger than any image
MAX_ANNOTATIONS = 16 << 20  # bytes of an annotation file; the largest, of CUB-200-2011, has a quarter
_ADJECTIVES = {'train': 'training'}


@dataclasses.dataclass(frozen=True)
class Record:
    """One image and its annotations."""

    path: str
    """Relative to the data set's root, with forward slashes."""
    label: int
    split: str
    """'train' or 'test'."""
    box: np.ndarray | None = None
    """float32 [4], (y0, x0, y1, x1) in pixels."""
    keypoints: np.ndarray | None = None
    """float32 [P, 3], (y, x, visible) in pixels."""


@dataclasses.dataclass(frozen=True)
class Listing:
    """The images of a data set, and what its publisher states about it."""

    slug: str
    """Short name for folders, such as 'cub'."""
    name: str
    """For reports, such as 'CUB-200-2011'."""
    root: pathlib.Path
    """Absolute folder that the records' paths are relative to."""
    class_names: tuple[str, ...]
    records: list[Record]
    """Train and test records, each split in its own order."""
    crop_bottom: int = 0
    """Rows of pixels to crop from the bottom of every decoded image."""
    keypoint_names: tuple[str, ...] = ()
    """The name of each key point of the records."""
    keypoint_groups: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Named groups of key points: their names, as in ``keypoint_names``."""
    published: dict[str, int] = dataclasses.field(default_factory=dict)
    """Number of 'train' images, 'test' images and 'classes' in the published set; empty for other folders."""
    origin: str = ''
    """Where to download the data set, for messages."""
    left_out: tuple[LeftOut, ...] = ()
    """Files in the image folders that are not used, relative to the root."""
    notes: tuple[str, ...] = ()
    """What a user may not expect of the data set, such as guesses, a sentence each."""
    variant: str = ''
    """The settings that chose these records among those of the root, such as the CSV file: a newer copy of the same
    variant replaces an older one."""

    @property
    def counts(self) -> dict[str, int]:
        """Number of images of each split, 'train' first."""
        return {split: sum(record.split == split for record in self.records) for split in SPLITS}

    @property
    def summary(self) -> str:
        """What was understood, such as '2 classes: robin, wren; 24 training, 8 test images'."""
        return summarize(self.class_names, self.counts)

    @property
    def messages(self) -> tuple[str, ...]:
        """One line each on what is left out and what a user may not expect."""
        left_out = left_out_line(self.left_out, len(self.records))
        return (*self.notes, *([left_out] if left_out else []))


def summarize(class_names: Sequence[str], counts: Mapping[str, int], of_classes: int | None = None) -> str:
    """One line on the classes and images of a data set.

    Args:
      class_names: the classes of these images; long lists are cut.
      counts: number of images by split; empty splits are not mentioned.
      of_classes: the number of classes that there are, if these may be fewer.

    Returns:
      Such as '2 classes: robin, wren; 24 training, 8 test images'.
    """
    total = len(class_names) if of_classes is None else of_classes
    count = f'{len(class_names)} of {total}' if total > len(class_names) else str(total)
    classes = f'{count} class{"es" * (total != 1)}: {first_names(class_names, 6)}'
    images = ', '.join(f'{count} {_ADJECTIVES.get(split, split)}' for split, count in counts.items() if count)
    return f'{classes}; {images} images' if images else classes


def require_dir(config: Any, expected: str) -> pathlib.Path:
    """Returns the absolute ``config.dir``.

    Args:
      config: the ``data`` section of a configuration.
      expected: the contents of the folder, for the message, such as 'the extracted CUB_200_2011 folder'.

    Raises:
      UserError: the field is empty, or does not name a folder.
    """
    if not config.get('dir'):
        raise UserError(f'config.data.dir is not set: set it to {expected}')
    root = user_path(config.dir, 'config.data.dir')
    if not root.is_dir():
        raise UserError(f'config.data.dir={config.dir} is not a folder: set it to {expected}')
    return root.resolve()


def find_dataset_root(folder: pathlib.Path, markers: Sequence[str], expected: str) -> pathlib.Path:
    """Finds the root of a data set in a folder or up to two levels below it, since archives nest differently.

    Args:
      folder: where to search; the level nearest to it wins.
      markers: paths relative to the root, at least one of which exists in a data set.
      expected: the contents of the root, for the message.

    Raises:
      UserError: there is no root, or several on the same level.
    """
    for depth in range(3):
        above = ['*'] * depth
        roots = {
            # Resolved, so that a link and its target count once.
            path.parents[len(pathlib.PurePath(marker).parts) - 1].resolve()
            for marker in markers
            for path in folder.glob('/'.join([*above, marker]))
            if not any(part.startswith('.') for part in path.relative_to(folder).parts)
        }
        if len(roots) > 1:
            first, second, *_ = sorted(map(str, roots))
            raise UserError(
                f'{folder} holds several copies of the data set ({first} and {second}): '
                'set config.data.dir to one of them'
            )
        if roots:
            return roots.pop()
    searched = ' or '.join(str(pathlib.PurePath(marker)) for marker in markers)
    raise UserError(f'{searched} is missing in {folder} and its subfolders: set config.data.dir to {expected}')


def inside(path: str, file: pathlib.Path) -> str:
    """Returns the path of an image that an annotation file lists.

    Args:
      path: relative to a folder.
      file: the annotation file, for the message.

    Raises:
      UserError: the path leaves its folder, or no file can have it.
    """
    inner = pathlib.PurePosixPath(path)
    if inner.is_absolute() or '..' in inner.parts or '\0' in path:
        raise UserError(f'{file} lists {path[:80]!r}, which is not inside its folder: extract the archive again')
    return path


def distinct(names: Sequence[str], path: pathlib.Path) -> tuple[str, ...]:
    """The class names of a data set.

    Args:
      names: the names, as listed.
      path: the file that lists them, for the message.

    Raises:
      UserError: a name is there twice, so that labels would depend on which of them counts.
    """
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        raise UserError(f'{path} lists the class {twice[0][:80]!r} twice: extract the archive again')
    return tuple(names)


def coordinate(value: Any) -> float:
    """A number of pixels in an annotation file.

    Raises:
      TypeError, ValueError: it is not a number, or no image is that large.
    """
    number = float(value)
    if not abs(number) < MAX_COORDINATE:  # nan too
        raise ValueError(f'not a coordinate: {number}')
    return number


def read_text(path: pathlib.Path, expected: str) -> str:
    """Reads an annotation file.

    Args:
      path: a file of the data set.
      expected: the contents of the data set's root, for the message.

    Returns:
      The text; bytes that are not UTF-8 are replaced.

    Raises:
      UserError: there is no such file, or it is not one of annotations.
    """
    try:
        return read_regular_file(path, MAX_ANNOTATIONS).decode(errors='replace')
    except FileNotFoundError as error:
        raise UserError(f'{path} is missing: set config.data.dir to {expected}') from error
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error.strerror}): extract the archive again') from error


def require_file(path: pathlib.Path, expected: str) -> pathlib.Path:
    """Returns ``path`` if it is a file.

    Args:
      path: a file of the data set.
      expected: the contents of the data set's root, for the message.

    Raises:
      UserError: there is no such file.
    """
    if not path.is_file():
        raise UserError(f'{path} is missing: set config.data.dir to {expected}')
    return path
