"""Non-maximum suppression against a greedy loop; the proposal network against slow convolutions."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from ssanet_jax.models import anchors as anchor_module
from ssanet_jax.models import proposals


def iou(a, b):
    height = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    width = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = height * width
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def greedy(scores, boxes, count, threshold):
    """Takes the best box, drops those that overlap it, repeats; with none left, takes the best not yet taken."""
    chosen, alive = [], set(range(len(scores)))
    while len(chosen) < count:
        pool = alive or set(range(len(scores))) - set(chosen)
        best = min(pool, key=lambda i: (-scores[i], i))
        chosen.append(best)
        # Many anchors of NTS-Net have an IoU of exactly 1/4; rounding must not decide about them.
        alive = {i for i in alive if i != best and iou(boxes[i], boxes[best]) < threshold - 1e-5}
    return chosen


def random_boxes(rng, count, spread):
    corner = rng.integers(0, spread, (count, 2))
    return np.concatenate([corner, corner + rng.integers(3, 12, (count, 2))], axis=1).astype(np.float32)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 6), st.sampled_from([3, 10, 40]), st.sampled_from([0.11, 0.251, 0.6, 1.1]), st.integers(0, 2**32 - 1)
)
def test_top_boxes_against_the_greedy_loop(count, spread, threshold, seed):
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng, 12, spread)  # spread 3: nearly all overlap, so the fallback is used
    scores = rng.permutation(12).astype(np.float32) - 6
    indices, chosen = proposals.top_boxes(scores, boxes, count, threshold)
    expected = greedy(scores, np.float64(boxes), count, threshold)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(chosen, boxes[expected])


class TopBoxesVariants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_real_anchors(self):
        boxes = anchor_module.anchor_boxes(448)
        take = self.variant(lambda scores: proposals.top_boxes(scores, boxes, 6, 0.25))
        for seed in range(5):
            scores = np.random.default_rng(seed).normal(size=1614).astype(np.float32)
            indices, chosen = take(scores)
            chex.assert_shape((indices, chosen), ((6,), (6, 4)))
            chex.assert_type((indices, chosen), (jnp.int32, jnp.float32))
            expected = greedy(scores, np.float64(boxes), 6, 0.25)
            np.testing.assert_array_equal(indices, expected)
            np.testing.assert_array_equal(chosen, boxes[expected])

    @chex.variants(with_jit=True, without_jit=True)
    def test_under_vmap(self):
        boxes = anchor_module.anchor_boxes(128)
        scores = np.random.default_rng(9).normal(size=(7, len(boxes))).astype(np.float32)
        indices, chosen = self.variant(jax.vmap(lambda s: proposals.top_boxes(s, boxes, 6, 0.25)))(scores)
        expected = np.array([greedy(s, np.float64(boxes), 6, 0.25) for s in scores])
        np.testing.assert_array_equal(indices, expected)
        np.testing.assert_array_equal(chosen, boxes[expected])

    @chex.variants(with_jit=True, without_jit=True)
    def test_if_all_are_suppressed_the_best_remaining_is_taken(self):
        boxes = np.float32([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [0, 0, 9, 10], [20, 20, 30, 29]])
        scores = np.float32([5, 4, 1, 3, 2])
        take = self.variant(lambda s: proposals.top_boxes(s, boxes, 5, 0.25)[0])
        np.testing.assert_array_equal(take(scores), [0, 4, 1, 3, 2])

    @chex.variants(with_jit=True, without_jit=True)
    def test_very_low_scores_are_still_scores(self):
        """The value that marks suppressed boxes must be below any score."""
        boxes = np.float32([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
        scores = np.float32([-1e30, -2e30, -3e30])
        take = self.variant(lambda s: proposals.top_boxes(s, boxes, 3, 0.25)[0])
        np.testing.assert_array_equal(take(scores), [0, 2, 1])


def test_top_boxes_drops_an_overlap_equal_to_the_threshold():
    """NTS-Net keeps IoU < 0.25: exactly 1/4 is dropped."""
    boxes = np.float32([[0, 0, 4, 4], [0, 0, 2, 2], [10, 10, 12, 12]])
    indices, _ = proposals.top_boxes(np.float32([3, 2, 1]), boxes, 2, 0.25)
    np.testing.assert_array_equal(indices, [0, 2])


def network(num_features=5, seed=0):
    return proposals.ProposalNetwork(num_features, rngs=nnx.Rngs(seed))


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize('side, image_size', [(14, 448), (9, 288)])
def test_one_score_per_anchor(side, image_size):
    graph, state = nnx.split(network())
    scores = jax.eval_shape(lambda s, x: nnx.merge(graph, s)(x), state, jnp.zeros((2, side, side, 5)))
    chex.assert_shape(scores, (2, len(anchor_module.anchor_boxes(image_size))))
    chex.assert_type(scores, jnp.float32)


def slow_convolution(x, kernel, bias, stride):
    """[h, w, C] with a padding of k // 2 on each side, as torch does it."""
    k = kernel.shape[0]
    x = np.pad(x, ((k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    rows, columns = ((n - k) // stride + 1 for n in x.shape[:2])
    out = np.zeros((rows, columns, kernel.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            window = x[i * stride : i * stride + k, j * stride : j * stride + k]
            out[i, j] = np.tensordot(window, kernel, 3) + bias
    return out


def convolutions(module):
    """Sets random biases; returns the (kernel, bias) of each convolution."""
    state = nnx.to_pure_dict(nnx.state(module, nnx.Param))
    found = []

    def visit(node, seed):
        if 'kernel' in node:
            node['bias'] = normal(seed, *node['bias'].shape) * 0.1
            found.append((np.float64(node['kernel']), np.float64(node['bias'])))
            return
        for n, key in enumerate(sorted(node, key=str)):
            visit(node[key], 10 * seed + n + 1)

    visit(state, 0)
    nnx.update(module, state)
    return found


def test_forward_pass_against_slow_convolutions():
    module = network()
    found = convolutions(module)
    by_shape = lambda *shape: [c for c in found if c[0].shape == shape]
    assert sorted(c[0].shape for c in found) == sorted(
        [(3, 3, 5, 128), (3, 3, 128, 128), (3, 3, 128, 128), (1, 1, 128, 6), (1, 1, 128, 6), (1, 1, 128, 9)]
    )
    x = normal(1, 1, 7, 7, 5)
    scores = np.array(module(x))[0]
    # The order of layers of the same shape is not known: one of the assignments must give the scores.
    relu = lambda z: np.maximum(z, 0)
    errors = []
    for second, third in itertools.permutations(by_shape(3, 3, 128, 128)):
        one = relu(slow_convolution(np.float64(x[0]), *by_shape(3, 3, 5, 128)[0], 1))
        two = relu(slow_convolution(one, *second, 2))
        three = relu(slow_convolution(two, *third, 2))
        for heads in itertools.permutations(by_shape(1, 1, 128, 6)):
            heads = (*heads, by_shape(1, 1, 128, 9)[0])
            expected = np.concatenate(
                [slow_convolution(m, *head, 1).reshape(-1) for m, head in zip((one, two, three), heads)]
            )
            assert expected.shape == scores.shape
            errors.append(np.abs(expected - scores).max())
    assert min(errors) < 1e-4, errors
    assert np.abs(scores).max() > 0.1


@pytest.mark.parametrize('row, column', [(2, 11), (5, 0), (13, 8)])
def test_a_cell_changes_the_scores_of_the_anchors_around_it(row, column):
    """Links scores to anchors: a cell of the map changes exactly the scores whose receptive field contains it."""
    module = network()
    x = normal(2, 1, 14, 14, 5)
    moved = x.copy()
    moved[0, row, column] += 10
    changed = np.array(module(x) != module(moved))[0]
    boxes = np.float64(anchor_module.anchor_boxes(448))
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    level = np.repeat([0, 1, 2], [1176, 294, 144])
    place = np.round(centers / (32 * 2.0**level)[:, None] - 0.5)  # row and column in the level's own grid
    # Conv 3x3 at stride 1 sees 1 cell around; each stride-2 layer sees 2 o - 1 ... 2 o + 1 of the map below.
    distance = np.abs(place * (2.0**level)[:, None] - (row, column)).max(-1)
    reach = np.array([1, 2, 4])[level]
    np.testing.assert_array_equal(changed, distance <= reach)


def test_no_gradient_reaches_the_map():
    graph, params = nnx.split(network())

    def total(params, x):
        return jnp.sum(jnp.square(nnx.merge(graph, params)(x)))

    towards_params, towards_map = jax.jit(jax.grad(total, argnums=(0, 1)))(params, normal(3, 1, 7, 7, 5))
    chex.assert_trees_all_equal(towards_map, jnp.zeros((1, 7, 7, 5)))
    for leaf in jax.tree.leaves(towards_params):
        assert np.abs(leaf).max() > 0  # every layer learns


def test_images_of_a_batch_are_independent():
    module, x = network(), normal(4, 3, 7, 7, 5)
    together = module(x)
    for i in range(3):
        chex.assert_trees_all_close(together[i], module(x[i : i + 1])[0], atol=1e-5)
