"""Names for the pictures of image files."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import PurePath

_LONGEST_NAME = 200  # bytes; file systems take 255


class PictureNames:
    """Gives the picture of each file a name, such as `birds_wren.jpg.png` for `birds/wren.jpg`.

    Two files never share one: where the names would be the same, or too long, a hash of the path goes in front.

    Args:
      files: all files. Only names that occur more than once are kept in memory.
      suffix: of the pictures.
    """

    def __init__(self, files: Iterable[str], suffix: str = '.png'):
        self._suffix = suffix
        once: set[int] = set()
        self._repeated: set[int] = set()
        for file in dict.fromkeys(files):
            key = _key(_plain_name(file))
            (self._repeated if key in once else once).add(key)

    def __call__(self, file: str) -> str:
        """The name of the picture of a file."""
        name = _plain_name(file)
        is_too_long = len(os.fsencode(name)) > _LONGEST_NAME
        return f'{_unique(file, name) if is_too_long or _key(name) in self._repeated else name}{self._suffix}'


def _plain_name(file: str) -> str:
    return '_'.join(part for part in PurePath(file).parts if part not in ('/', '..', '.'))


def _key(name: str) -> int:
    return hash(name.lower())  # some file systems ignore case


def _unique(file: str, name: str) -> str:
    digest = hashlib.sha256(os.fsencode(file)).hexdigest()[:12]
    # The end of a path says more than its beginning. A character that is cut in two is dropped.
    return f'{digest}_{os.fsencode(name)[-_LONGEST_NAME:].decode(errors="ignore")}'
