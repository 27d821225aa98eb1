"""Parts by prototypes: planted patches are found wherever they are, and follow the image when it is mirrored."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ssanet_jax.models import prototypes
from ssanet_jax.models.losses import mac_loss

SIDE, CHANNELS, IMAGE = 8, 16, 128
STRIDE, CENTER = 16.0, 8.0


def parts_module(directions, num_parts, **settings):
    """A module whose first prototypes are these directions, in the space of the channels themselves."""
    module = prototypes.PrototypeParts(CHANNELS, num_parts, 0.25, rngs=nnx.Rngs(0), **settings)
    projection = np.zeros((CHANNELS, prototypes.PROTOTYPE_LENGTH), np.float32)
    projection[:CHANNELS, :CHANNELS] = np.eye(CHANNELS)
    module.projection.set_value(jnp.asarray(projection))
    values = np.zeros(module.prototypes[...].shape, np.float32)
    values[:, CHANNELS] = 1  # those that are no parts are orthogonal to every cell
    values[: len(directions)] = 0
    values[: len(directions), :CHANNELS] = directions
    module.prototypes.set_value(jnp.asarray(values))
    return module


def scene(places, seed=0):
    """A map with an object of 6 x 6 cells, in which channel k marks the 3 x 3 cells around `places[k]`."""
    rng = np.random.default_rng(seed)
    cells = 0.05 * rng.random((SIDE, SIDE, CHANNELS))
    cells[1:7, 1:7, -1] += 2
    for channel, (row, column) in enumerate(places):
        cells[row - 1 : row + 2, column - 1 : column + 2, channel] += 6
    return cells.astype(np.float32)


PLACES = [(2, 2), (5, 4)]
DIRECTIONS = np.eye(CHANNELS)[:2]


def locate(module, maps):
    return module(jnp.asarray(maps), IMAGE, CENTER, STRIDE)


def centers(boxes):
    return (np.asarray(boxes)[..., :2] + np.asarray(boxes)[..., 2:]) / 2


def test_each_prototype_is_found_where_it_was_planted():
    located = locate(parts_module(DIRECTIONS, 3), scene(PLACES)[None])
    expected = CENTER + STRIDE * np.array(PLACES)
    chex.assert_trees_all_close(centers(located.boxes)[0, 1:], expected, atol=1e-3)
    chex.assert_trees_all_close(
        np.asarray(located.boxes[0, 1:, 2:] - located.boxes[0, 1:, :2]), np.full((2, 2), 0.25 * IMAGE), atol=1e-3
    )
    assert np.asarray(located.present).all()


def test_the_order_of_parts_is_that_of_prototypes_and_not_of_places():
    swapped = locate(parts_module(DIRECTIONS[::-1], 3), scene(PLACES)[None])
    chex.assert_trees_all_close(centers(swapped.boxes)[0, 1:], CENTER + STRIDE * np.array(PLACES[::-1]), atol=1e-3)


def test_parts_follow_a_mirrored_map():
    module, cells = parts_module(DIRECTIONS, 3), scene(PLACES)
    plain, mirrored = locate(module, cells[None]), locate(module, cells[None, :, ::-1])
    y0, x0, y1, x1 = np.moveaxis(np.asarray(plain.boxes), -1, 0)
    chex.assert_trees_all_close(mirrored.boxes, np.stack([y0, IMAGE - x1, y1, IMAGE - x0], -1), atol=1e-3)
    chex.assert_trees_all_close(mirrored.attention, plain.attention[:, :, ::-1], atol=1e-5)


def test_a_part_that_is_not_there_is_not_present():
    hidden = scene(PLACES[:1])  # the second prototype has no cells
    module = parts_module(DIRECTIONS, 3)
    assert np.asarray(locate(module, hidden[None]).present).all()  # without a threshold
    module.threshold.set_value(jnp.full(2, 0.5))
    assert np.asarray(locate(module, hidden[None]).present).tolist() == [[True, True, False]]
    assert np.asarray(locate(module, scene(PLACES)[None]).present).all()


def test_foreground_is_the_connected_region_with_most_activation():
    """Against scipy's labels of connected components."""
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(20, 9, 9, 3)).astype(np.float32)  # activations of either sign, as after a LayerNorm
    found = np.asarray(prototypes.foreground(jnp.asarray(maps)))
    for cells, mask in zip(maps, found):
        excess = cells.mean(-1) - cells.mean()
        labels, count = ndimage.label(excess >= 0)
        assert count > 2
        totals = ndimage.sum_labels(excess, labels, range(1, count + 1))
        np.testing.assert_array_equal(mask, labels == 1 + totals.argmax())


def test_a_small_strong_spot_is_no_object():
    maps = np.zeros((1, 9, 9, 3), np.float32)
    maps[0, 1, 1] = 5
    maps[0, 4:8, 3:8] = 2
    expected = np.zeros((9, 9), bool)
    expected[4:8, 3:8] = True
    np.testing.assert_array_equal(prototypes.foreground(jnp.asarray(maps))[0], expected)


@pytest.mark.parametrize('value', [0.0, 1.0])
def test_a_flat_map_is_all_foreground(value):
    mask = prototypes.foreground(jnp.full((1, 4, 4, 3), value))
    assert np.asarray(mask).all()


def test_the_object_is_a_square_around_its_cells():
    mask = np.zeros((1, SIDE, SIDE), bool)
    mask[0, 2:4, 1:7] = True  # 2 x 6 cells
    box = np.asarray(prototypes.object_boxes(jnp.asarray(mask), CENTER, STRIDE))[0]
    chex.assert_trees_all_close(centers(box), np.array([3 * STRIDE, 4 * STRIDE]))
    chex.assert_trees_all_close(box[2:] - box[:2], np.full(2, 6 * STRIDE * prototypes.OBJECT_SHARE), rtol=1e-5)


coordinate = st.floats(-100, 200, width=32)


@settings(deadline=None, max_examples=50)
@given(coordinate, coordinate, st.floats(1, 300, width=32))
def test_boxes_end_up_inside_with_their_size_if_they_fit(y, x, side):
    box = np.float32([[y, x, y + side, x + side]])
    low, high = np.split(np.asarray(prototypes.move_inside(jnp.asarray(box), IMAGE))[0], 2)
    assert (low >= -1e-3).all() and (high <= IMAGE + 1e-3).all()
    chex.assert_trees_all_close(high - low, np.full(2, min(side, IMAGE), np.float32), rtol=1e-3, atol=1e-2)
    if y >= 0 and x >= 0 and max(y, x) + side <= IMAGE:
        chex.assert_trees_all_close(np.concatenate([low, high]), box[0], atol=1e-2)


def test_recognition_and_alignment_reach_the_prototypes():
    """Eq. 1 alone gives the choice of boxes no gradient; through the attention both losses have one."""
    module, maps = parts_module(DIRECTIONS, 3), jnp.asarray(np.stack([scene(PLACES, seed) for seed in range(2)]))
    graph, state = nnx.split(module)

    def pooled(state):
        located = nnx.merge(graph, state)(maps, IMAGE, CENTER, STRIDE)
        return prototypes.attention_pool(maps, located.attention)

    for loss in (lambda s: mac_loss(pooled(s), temperature=0.1), lambda s: jnp.square(pooled(s)).mean()):
        gradient = jax.jit(jax.grad(loss))(state)
        assert float(jnp.abs(gradient['prototypes'][...][:2]).max()) > 1e-5


def test_attention_is_a_mean_over_cells():
    located = locate(parts_module(DIRECTIONS, 3), scene(PLACES)[None])
    chex.assert_trees_all_close(np.asarray(located.attention.sum((1, 2))), np.ones((1, 3)), atol=1e-3)
    pooled = prototypes.attention_pool(jnp.ones((1, SIDE, SIDE, CHANNELS)), located.attention)
    chex.assert_trees_all_close(np.asarray(pooled), np.ones((1, 3, CHANNELS)), atol=1e-3)


def test_random_boxes_depend_on_the_map_alone_and_lie_inside():
    module = parts_module(DIRECTIONS, 3, random=True)
    maps = np.stack([scene(PLACES, seed) for seed in range(3)])
    together, alone = np.asarray(locate(module, maps).boxes), np.asarray(locate(module, maps[1:2]).boxes)
    chex.assert_trees_all_close(together[1:2], alone)
    assert not np.allclose(together[0], together[1])
    assert (together >= 0).all() and (together <= IMAGE).all()
