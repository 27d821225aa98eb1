"""Key points that count as one, and their groups."""

import pytest

from ssanet_jax.data import cub, toy_birds
from ssanet_jax.evaluation.keypoint_layout import keypoint_layout, merge_left_right


def test_left_and_right_are_merged_by_name():
    names = ('beak', 'left eye', 'tail', 'right eye', 'right leg', 'leftover')
    assert merge_left_right(names) == (('beak', 'eye', 'tail', 'right leg', 'leftover'), (0, 1, 2, 1, 3, 4))
    assert merge_left_right(()) == ((), ())
    merged = merge_left_right(names)[0]
    assert merge_left_right(merged) == (merged, (0, 1, 2, 3, 4)), 'merging again changes nothing'


def test_names_of_birds():
    layout = keypoint_layout(cub._PARTS, cub.KEYPOINT_GROUPS)
    birds = 'back beak belly breast crown forehead eye leg wing nape tail throat'.split()
    assert list(layout.names) == birds and list(layout.targets) == [*birds, 'head', 'body']
    for name, index in zip(cub._PARTS, layout.merged):
        assert birds[index] == name.split()[-1]
    for group, members in layout.groups.items():
        assert [cub._PARTS[index] for index in members] == list(cub.KEYPOINT_GROUPS[group])
    drawn = keypoint_layout(toy_birds.KEYPOINT_NAMES, toy_birds.KEYPOINT_GROUPS)
    assert drawn.names == toy_birds.KEYPOINT_NAMES and drawn.merged == (0, 1, 2, 3)


def test_a_group_of_unknown_key_points():
    with pytest.raises(ValueError, match='not in'):
        keypoint_layout(('beak',), {'head': ('beak', 'crown')})
