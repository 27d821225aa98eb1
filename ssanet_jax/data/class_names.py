"""Names of classes that look alike: the same letters in another Unicode form, or in another case.

A Mac may store 'ä' as 'a' and a combining mark, other systems as one character. Such names are one class. Names that
differ in case are matched between the splits; within a split, they are reported.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from ssanet_jax.data.layout import Files
from ssanet_jax.printable import printable

_SEPARATORS = re.compile(r'[\s_\-\u200b-\u200d\ufeff]+')  # and characters without width
_SHOWN = 3  # pairs of names listed in a note


def match_class_names(
    splits: Mapping[str, Files], class_names: Sequence[str] = ()
) -> tuple[dict[str, Files], list[str]]:
    """Gives classes that are the same one name in all splits.

    Args:
      splits: the images of each class of each split.
      class_names: the classes of a trained network, if there is one: its spelling of a name is used.

    Returns:
      The splits in the spelling of `class_names`, else in that of the training split; and a note on each kind of name
      that was matched or may be a mistake.
    """
    known = {_composed(name): name for name in reversed(class_names)}
    for files in sorted(splits.items(), key=lambda item: item[0] != 'train'):  # its spelling comes first
        for name in sorted(files[1]):
            known.setdefault(_composed(name), name)
    reference = [_composed(name) for name in class_names or splits.get('train', ())]
    by_case: dict[str, set[str]] = {}
    for name in reference:
        by_case.setdefault(name.casefold(), set()).add(name)
    matched: dict[str, str] = {}

    def canonical(name: str) -> str:
        if name in class_names:
            return name
        composed = _composed(name)
        alike = by_case.get(composed.casefold(), set())
        if composed not in reference and len(alike) == 1:
            matched[name] = known[next(iter(alike))]
            return matched[name]
        return known[composed]

    result: dict[str, Files] = {}
    for split, files in splits.items():
        merged: Files = {}
        for name in sorted(files):
            merged.setdefault(canonical(name), []).extend(files[name])
        result[split] = {name: sorted(paths) for name, paths in merged.items()}
    notes = []
    if matched:
        pairs = [f'{printable(name)} for {printable(other)}' for name, other in matched.items()]
        notes.append(f'names of classes that differ only in case are taken for the same: {_listed(pairs)}')
    final = {name for files in result.values() for name in files}
    if alike := _look_alikes(final):
        notes.append(
            f'names of classes that look alike: {_listed(" = ".join(map(printable, group)) for group in alike)}; '
            'merge their folders if they are one class'
        )
    return result, notes


def _composed(name: str) -> str:
    return unicodedata.normalize('NFC', name)


def _look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Groups of names that are the same but for case, width, blanks, hyphens and underscores."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        plain = unicodedata.normalize('NFKC', unicodedata.normalize('NFKC', name).casefold())
        groups.setdefault(_SEPARATORS.sub('', plain), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ', '.join(names[:_SHOWN]) + (', ...' if len(names) > _SHOWN else '')
