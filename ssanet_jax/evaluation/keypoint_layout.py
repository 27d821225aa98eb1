"""Which annotated key points count as one, and which of them form a group such as the head."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

SIDES = ('left ', 'right ')


class KeypointLayout(NamedTuple):
    """How the P annotated key points of a data set are counted.

    Attributes:
      names: the Q names after merging left and right.
      merged: `[P]`, the index in `names` of each annotated key point.
      groups: name of a group -> indices of its annotated key points.
    """

    names: tuple[str, ...]
    merged: tuple[int, ...]
    groups: Mapping[str, tuple[int, ...]]

    @property
    def targets(self) -> tuple[str, ...]:
        """The merged key points, then the groups."""
        return self.names + tuple(self.groups)


def merge_left_right(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Merges each pair of key points 'left X' and 'right X' into 'X'.

    Which of the two is visible depends on the side that the object shows to the camera, not on the part.

    Args:
      names: the P annotated key points.

    Returns:
      The names after merging, in the order of their first key point; and `[P]`, the index in them of each annotated
      key point. A name without a counterpart is kept.
    """
    merged_names = []
    for name in names:
        side = next((side for side in SIDES if name.startswith(side)), '')
        bare = name.removeprefix(side)
        merged_names.append(bare if side and all(side + bare in names for side in SIDES) else name)
    unique = tuple(dict.fromkeys(merged_names))
    return unique, tuple(map(unique.index, merged_names))


def keypoint_layout(names: Sequence[str], groups: Mapping[str, Sequence[str]] | None = None) -> KeypointLayout:
    """Merges left and right, and looks up the members of the groups.

    Args:
      names: the P annotated key points.
      groups: name of a group -> names of its annotated key points.

    Raises:
      ValueError: a group has a member that is not among `names`.
    """
    merged_names, merged = merge_left_right(names)
    members = {
        group: tuple(names.index(member) for member in group_names) for group, group_names in (groups or {}).items()
    }
    return KeypointLayout(merged_names, merged, members)
