"""Scale candidates: the fixed corner, the sizes, ties, and the direction in which boxes move."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from hypothesis import given, settings
from hypothesis import strategies as st

from ssanet_jax.models import candidates
from ssanet_jax.models.sharing import largest_candidate

ALPHA = 2 ** (1 / 3)
scale = jax.jit(candidates.scale_candidates, static_argnames=('scales', 'alpha'))
CORNERS = ((0, 1), (0, 3), (2, 1), (2, 3))  # top-left, top-right, bottom-left, bottom-right, as (y, x) columns


def corners(box):
    return [(box[y], box[x]) for y, x in CORNERS]


def squared(point, center):
    return (point[0] - center[0]) ** 2 + (point[1] - center[1]) ** 2


def by_loops(boxes, scales, alpha):
    center = (np.mean([(b[0] + b[2]) / 2 for b in boxes]), np.mean([(b[1] + b[3]) / 2 for b in boxes]))
    out = np.zeros((len(boxes), scales, 4))
    for k, box in enumerate(boxes):
        distances = [squared(corner, center) for corner in corners(box)]
        psi, eta = distances.index(max(distances)), distances.index(min(distances))  # index: the first on a tie
        for n in range(scales):
            exponent = n - (scales - 1) / 2
            fixed = psi if exponent > 0 else eta
            height, width = (box[2] - box[0]) * alpha**exponent, (box[3] - box[1]) * alpha**exponent
            y, x = corners(box)[fixed]
            top = y if fixed in (0, 1) else y - height
            left = x if fixed in (0, 2) else x - width
            out[k, n] = (top, left, top + height, left + width)
    return out


def random_boxes(seed, count):
    """Integer corners: distances and ties are then exact in float32."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(-20, 100, (count, 2))
    return np.concatenate([corner, corner + rng.integers(1, 60, (count, 2)) * 2], axis=1).astype(np.float32)


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([1, 4]), st.sampled_from([1, 5]), st.sampled_from([1.1, 2.0]), st.integers(0, 2**32 - 1))
def test_against_loops(count, scales, alpha, seed):
    boxes = random_boxes(seed, count)
    out = scale(boxes, scales, alpha)
    chex.assert_shape(out, (count, scales, 4))
    np.testing.assert_allclose(out, by_loops(np.float64(boxes), scales, alpha), rtol=1e-5, atol=1e-3)


class CandidateVariants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(5, 9)
    def test_against_loops(self, scales):
        boxes = random_boxes(1, 4)
        out = self.variant(lambda b: candidates.scale_candidates(b, scales, ALPHA))(boxes)
        chex.assert_type(out, jnp.float32)
        np.testing.assert_allclose(out, by_loops(np.float64(boxes), scales, ALPHA), rtol=1e-5, atol=1e-3)

    @chex.variants(with_jit=True, without_jit=True)
    def test_under_vmap_each_image_has_its_own_center(self):
        images = np.stack([random_boxes(seed, 4) for seed in range(3)])
        out = self.variant(jax.vmap(lambda b: candidates.scale_candidates(b, 5, ALPHA)))(images)
        expected = np.stack([by_loops(np.float64(boxes), 5, ALPHA) for boxes in images])
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-3)


def test_by_hand():
    """A box above and left of the center expands from its top-left corner and shrinks to its bottom-right corner."""
    boxes = np.float32([[0, 0, 8, 16], [100, 100, 108, 116]])
    out = scale(boxes, 3, 2.0)
    np.testing.assert_allclose(out[0], [[4, 8, 8, 16], [0, 0, 8, 16], [0, 0, 16, 32]], atol=1e-5)
    np.testing.assert_allclose(out[1], [[100, 100, 104, 108], [100, 100, 108, 116], [92, 84, 108, 116]], atol=1e-4)


def test_the_middle_candidate_is_the_box_itself():
    boxes = random_boxes(2, 4)
    chex.assert_trees_all_close(scale(boxes, 5, ALPHA)[:, 2], boxes, atol=1e-4)


def test_sizes_are_powers_of_alpha():
    boxes = random_boxes(3, 4)
    out = np.float64(scale(boxes, 5, ALPHA))
    for exponent, n in zip((-2, -1, 0, 1, 2), range(5)):
        sides = (out[:, n, 2:] - out[:, n, :2]) / (boxes[:, 2:] - boxes[:, :2])
        np.testing.assert_allclose(sides, ALPHA**exponent, rtol=1e-4)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_the_farthest_corner_is_fixed_when_expanding_and_the_nearest_when_shrinking(seed):
    boxes = random_boxes(seed, 4)
    center = ((boxes[:, :2] + boxes[:, 2:]) / 2).mean(0)
    out = np.array(scale(boxes, 5, ALPHA))
    for box, row in zip(boxes, out):
        distances = [squared(corner, center) for corner in corners(box)]
        for n, wanted in ((0, min(distances)), (1, min(distances)), (3, max(distances)), (4, max(distances))):
            kept = [i for i in range(4) if np.allclose(corners(row[n])[i], corners(box)[i], atol=1e-3)]
            assert len(kept) == 1 and distances[kept[0]] == wanted


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_boxes_move_towards_the_object(seed):
    boxes = random_boxes(seed, 4)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    towards = middle.mean(0) - middle
    out = np.array(scale(boxes, 5, ALPHA))
    for n in (0, 1, 3, 4):
        move = (out[:, n, :2] + out[:, n, 2:]) / 2 - middle
        off_center = towards != 0
        assert (np.sign(move) == np.sign(towards))[off_center].all()  # along y and along x


@pytest.mark.parametrize(
    'boxes, psi, eta',
    [
        # One box: all four corners tie.
        ([[0, 0, 8, 8]], [0], [0]),
        # Side by side: top and bottom tie, the top wins.
        ([[0, 0, 8, 8], [0, 20, 8, 28]], [0, 1], [1, 0]),
        # One above the other: left and right tie, the left wins.
        ([[0, 0, 8, 8], [20, 0, 28, 8]], [0, 2], [2, 0]),
    ],
)
def test_ties_go_to_the_first_corner(boxes, psi, eta):
    boxes = np.float32(boxes)
    out = np.array(scale(boxes, 3, 2.0))
    for k, box in enumerate(boxes):
        np.testing.assert_allclose(corners(out[k, 2])[psi[k]], corners(box)[psi[k]], atol=1e-4)
        np.testing.assert_allclose(corners(out[k, 0])[eta[k]], corners(box)[eta[k]], atol=1e-4)
        np.testing.assert_allclose(out[k, 2, 2:] - out[k, 2, :2], [16, 16], atol=1e-4)
        np.testing.assert_allclose(out[k, 0, 2:] - out[k, 0, :2], [4, 4], atol=1e-4)


@pytest.mark.parametrize('scales', [0, 2, 4])
def test_an_even_number_of_scales_raises(scales):
    with pytest.raises(ValueError, match='odd'):
        candidates.scale_candidates(random_boxes(4, 2), scales, ALPHA)


@settings(deadline=None, max_examples=50)
@given(
    boxes=st.lists(
        st.tuples(*[st.floats(0, 400, width=32)] * 2, *[st.floats(8, 200, width=32)] * 2), min_size=1, max_size=5
    ),
    scales=st.sampled_from([1, 3, 5, 7]),
)
def test_the_largest_candidate_contains_all_others(boxes, scales):
    """So one crop contains all scales of a part."""
    boxes = np.array([(y, x, y + h, x + w) for y, x, h, w in boxes], np.float32)
    found = np.array(scale(boxes, scales=scales, alpha=1.26))
    assert (found[..., :2] >= largest_candidate(found)[:, None, :2] - 1e-2).all()
    assert (found[..., 2:] <= largest_candidate(found)[:, None, 2:] + 1e-2).all()


def test_centered_candidates_keep_the_center():
    boxes = np.float32([[[10, 20, 30, 60], [0, 0, 8, 8]]])  # [1, 2, 4]
    found = np.asarray(candidates.centered_candidates(boxes, 3, 2.0))
    expected = [
        [[15, 30, 25, 50], [10, 20, 30, 60], [0, 0, 40, 80]],
        [[2, 2, 6, 6], [0, 0, 8, 8], [-4, -4, 12, 12]],
    ]
    chex.assert_trees_all_close(found, np.float32([expected]), rtol=1e-6)


def test_centered_candidates_refuse_an_even_number():
    with pytest.raises(ValueError, match='odd'):
        candidates.centered_candidates(np.zeros((1, 4), np.float32), 2, 2.0)
