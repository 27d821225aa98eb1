"""Files that are left out, and the line that says so."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from ssanet_jax.printable import printable

NOT_AN_IMAGE = 'not an image'  # a reason of `LeftOut`
_NUM_NAMES = 3  # that a message lists


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A file or folder that is not used."""

    path: str
    reason: str
    """Such as 'not an image'; completes 'left out: '."""


def left_out_line(left_out: Iterable[LeftOut], used: int) -> str:
    """One line about the files that are left out: how many, why, and the first three names of each reason.

    Args:
      left_out: the files.
      used: the number of images that are used.

    Returns:
      Such as 'left out 2 of 6 files: HEIC, which needs the package pillow-heif (2): a/1.heic, a/2.heic'; '' for none.
    """
    by_reason: dict[str, list[str]] = {}
    for item in left_out:
        by_reason.setdefault(item.reason, []).append(item.path)
    if not by_reason:
        return ''
    total = sum(map(len, by_reason.values()))
    listed = '; '.join(
        f'{reason} ({len(paths)}): {first_names(paths)}'
        for reason, paths in sorted(by_reason.items(), key=lambda item: -len(item[1]))
    )
    return f'left out {total} of {total + used} files: {listed}'


def counted(count: int, noun: str) -> str:
    """Such as '1 image' or '2 images'."""
    return f'{count} {noun}' + ('' if count == 1 else 's')


def first_names(names: Iterable[str], count: int = _NUM_NAMES) -> str:
    """The first names of a list, and '...' if there are more; without control characters."""
    names = list(names)
    return ', '.join(map(printable, names[:count])) + (', ...' if len(names) > count else '')
