"""Oriented pooling: Eq. 9-13 against slow loops, the paper's 2 x 2 example, and invariance to rotations."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from ssanet_jax.models import oriented_pooling

pool = jax.jit(oriented_pooling.oriented_features, static_argnames=('patch', 'grid', 'orientation'))
SHAPES = ((7, 3, 3), (7, 1, 7), (5, 2, 4))  # side, patch, grid


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def patches(x, patch, grid):
    """x[i][j]: the vector of patch (i, j), read row by row as (h, w, C)."""
    step = (x.shape[0] - patch) // (grid - 1)
    table = []
    for i in range(grid):
        row = []
        for j in range(grid):
            vector = []
            for h in range(patch):
                for w in range(patch):
                    for c in range(x.shape[2]):
                        vector.append(x[i * step + h, j * step + w, c])
            row.append(np.array(vector))
        table.append(row)
    return table


def horizontal(x, patch, grid):
    table = patches(x, patch, grid)
    return [np.max([table[i][j] for j in range(grid)], axis=0) for i in range(grid)]  # p_1 ... p_NH


def vertical(x, patch, grid):
    table = patches(x, patch, grid)
    return [np.max([table[i][j] for i in range(grid)], axis=0) for j in range(grid)]  # q_1 ... q_NW


def literal(x, patch, grid):
    p, q = horizontal(x, patch, grid), vertical(x, patch, grid)
    return np.stack([np.concatenate(v) for v in (p, q, p[::-1], q[::-1])])  # Eq. 9, 10, 11, 12


def exact(x, patch, grid):
    return np.stack([np.concatenate(horizontal(np.rot90(x, turn), patch, grid)) for turn in range(4)])


ORACLES = {'literal': literal, 'exact': exact}


@settings(deadline=None, max_examples=12)
@given(st.sampled_from(SHAPES), st.sampled_from(sorted(ORACLES)), st.integers(0, 2**32 - 1))
def test_features_against_slow_loops(shape, orientation, seed):
    (side, patch, grid), channels = shape, 2
    x = normal(seed, side, side, channels)
    out = pool(x, patch, grid, orientation=orientation)
    chex.assert_shape(out, (4, grid * patch * patch * channels))
    np.testing.assert_array_equal(out, ORACLES[orientation](x, patch, grid))


class FeatureVariants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.product(shape=SHAPES[:2], orientation=('literal', 'exact'))
    def test_features(self, shape, orientation):
        side, patch, grid = shape
        x = normal(0, side, side, 4)
        out = self.variant(lambda x: oriented_pooling.oriented_features(x, patch, grid, orientation=orientation))(x)
        np.testing.assert_array_equal(out, ORACLES[orientation](x, patch, grid))


def test_the_papers_two_by_two_example():
    a, b, c, d = 1.0, 4.0, 3.0, 2.0
    image = np.float32([[a, b], [c, d]])[..., None]
    turned = np.float32([[c, a], [d, b]])[..., None]
    np.testing.assert_array_equal(turned, np.rot90(image, -1))
    gamma = pool(image, 1, 2, orientation='literal')
    gamma_turned = pool(turned, 1, 2, orientation='literal')
    np.testing.assert_array_equal(gamma[1], [max(a, c), max(b, d)])  # Gamma_v of the image
    np.testing.assert_array_equal(gamma_turned[0], [max(a, c), max(b, d)])  # Gamma_h of the turned one
    # The four of them, in the order Gamma_h, Gamma_v, Gamma'_h, Gamma'_v.
    np.testing.assert_array_equal(gamma, [[4, 3], [3, 4], [3, 4], [4, 3]])


def test_all_four_orders_differ():
    image = np.arange(4, dtype=np.float32).reshape(2, 2, 1) ** 2  # 0 1 / 4 9
    gamma = pool(image, 1, 2, orientation='literal')
    np.testing.assert_array_equal(gamma, [[1, 9], [4, 9], [9, 1], [9, 4]])
    gamma = pool(image, 1, 2, orientation='exact')
    np.testing.assert_array_equal(gamma, [[1, 9], [9, 4], [9, 1], [4, 9]])


def test_exact_is_the_paper_for_patches_of_one_pixel():
    """The same four vectors; counter-clockwise quarter turns give Gamma'_v, then Gamma'_h, then Gamma_v."""
    x = normal(1, 7, 7, 3)
    paper = pool(x, 1, 7, orientation='literal')
    turned = pool(x, 1, 7, orientation='exact')
    chex.assert_trees_all_equal(turned, paper[jnp.array([0, 3, 2, 1])])


@pytest.mark.parametrize('patch, grid', [(1, 7), (3, 3), (3, 5)])
@pytest.mark.parametrize('turn', [1, 2, 3])
def test_exact_features_of_a_rotated_map_are_the_same_four(patch, grid, turn):
    x = normal(2, 7, 7, 3)
    before = pool(x, patch, grid, orientation='exact')
    after = pool(np.rot90(x, turn), patch, grid, orientation='exact')
    np.testing.assert_array_equal(after, np.roll(before, -turn, axis=0))


def strongest(x, w, patch, grid, orientation):
    return np.max(np.float64(pool(x, patch, grid, orientation=orientation)) @ w)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_exact_response_is_invariant_to_rotations(turn, seed):
    x, w = normal(seed, 7, 7, 2), np.float64(normal(seed + 1, 3 * 9 * 2))
    response = strongest(x, w, 3, 3, 'exact')
    np.testing.assert_allclose(strongest(np.rot90(x, turn), w, 3, 3, 'exact'), response, rtol=1e-12)


@pytest.mark.parametrize('turn', [1, 2, 3])
def test_literal_response_is_invariant_for_patches_of_one_pixel_only(turn):
    """The reason for 'exact': Eq. 9-13 rotate the order of the patches, but not their content."""
    x, w = normal(3, 7, 7, 2), np.float64(normal(4, 7 * 2))
    np.testing.assert_allclose(
        strongest(np.rot90(x, turn), w, 1, 7, 'literal'), strongest(x, w, 1, 7, 'literal'), rtol=1e-12
    )
    w = np.float64(normal(5, 3 * 9 * 2))
    difference = strongest(np.rot90(x, turn), w, 3, 3, 'literal') - strongest(x, w, 3, 3, 'literal')
    assert abs(difference) > 0.1


def test_an_unknown_orientation_raises():
    with pytest.raises(ValueError, match='orientation'):
        oriented_pooling.oriented_features(normal(6, 7, 7, 1), 3, 3, orientation='diagonal')


def test_a_grid_that_does_not_tile_the_map_raises():
    with pytest.raises(ValueError, match='4 x 4 patches of 3 x 3 do not tile'):
        oriented_pooling.oriented_features(normal(7, 7, 7, 1), 3, 4, orientation='literal')  # steps of 4/3


CHANNELS, CLASSES, PATCH, GRID = 4, 5, 3, 3
LENGTH = GRID * PATCH * PATCH * CHANNELS


def module_with_weights(orientation, seed=0):
    module = oriented_pooling.OrientedPooling(CHANNELS, CLASSES, PATCH, GRID, orientation=orientation, rngs=nnx.Rngs(0))
    weights, bias = normal(seed, LENGTH, CLASSES), normal(seed + 1, CLASSES)
    known = {(LENGTH, CLASSES): weights, (CLASSES, LENGTH): weights.T, (CLASSES,): bias}
    state = nnx.state(module, nnx.Param)
    assert sorted(leaf.size for leaf in jax.tree.leaves(state)) == [CLASSES, LENGTH * CLASSES]  # w is shared over parts
    nnx.update(module, jax.tree.map(lambda leaf: jnp.asarray(known[leaf.shape]), state))
    return module, np.float64(weights), np.float64(bias)


def logits_by_loops(maps, weights, bias, orientation):
    logits = np.zeros((len(maps), CLASSES)) + bias
    chosen = np.zeros(maps.shape[:2], int)
    for b in range(len(maps)):
        responses = [ORACLES[orientation](np.float64(x), PATCH, GRID) @ weights for x in maps[b]]  # each [4, N]
        for response in responses:
            logits[b] += response.max(0)
        for k, response in enumerate(responses):
            chosen[b, k] = response[:, logits[b].argmax()].argmax()
    return logits, chosen


class ModuleVariants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters('literal', 'exact')
    def test_logits_and_orientations(self, orientation):
        module, weights, bias = module_with_weights(orientation)
        graph, state = nnx.split(module)
        maps = normal(10, 6, 3, 7, 7, CHANNELS)
        logits, chosen, *_ = self.variant(lambda s, x: tuple(nnx.merge(graph, s)(x)))(state, maps)
        expected_logits, expected_chosen = logits_by_loops(maps, weights, bias, orientation)
        chex.assert_shape((logits, chosen), ((6, CLASSES), (6, 3)))
        chex.assert_type(chosen, jnp.int32)
        np.testing.assert_allclose(logits, expected_logits, atol=2e-4)
        np.testing.assert_array_equal(chosen, expected_chosen)
        assert set(expected_chosen.ravel()) == {0, 1, 2, 3}


def test_rotated_parts_keep_the_exact_logits_and_rotate_the_orientation():
    module, _, _ = module_with_weights('exact')
    maps = normal(11, 4, 3, 7, 7, CHANNELS)
    turns = (1, 2, 3)  # a different rotation for each part
    turned = np.stack([np.rot90(maps[:, k], turn, axes=(1, 2)) for k, turn in enumerate(turns)], axis=1)
    logits, chosen, *_ = module(maps)
    turned_logits, turned_chosen, *_ = module(turned)
    np.testing.assert_allclose(turned_logits, logits, atol=1e-4)
    np.testing.assert_array_equal(turned_chosen, (np.array(chosen) - turns) % 4)


def test_gradient_goes_through_the_chosen_orientation():
    """Eq. 13 is a max: dL/dw is the selected pooled vector of each part."""
    module, weights, _bias = module_with_weights('literal')
    maps, label = normal(12, 1, 3, 7, 7, CHANNELS), 2
    graph, state = nnx.split(module)
    gradient = jax.jit(jax.grad(lambda s: nnx.merge(graph, s)(maps)[0][0, label]))(state)
    expected = np.zeros((LENGTH, CLASSES))
    for x in maps[0]:
        gamma = literal(np.float64(x), PATCH, GRID)
        expected[:, label] += gamma[(gamma @ weights[:, label]).argmax()]
    for leaf in jax.tree.leaves(gradient):
        if leaf.size == CLASSES:
            np.testing.assert_allclose(leaf, np.eye(CLASSES)[label], atol=1e-6)
        else:
            leaf = leaf if leaf.shape == expected.shape else leaf.T
            np.testing.assert_allclose(leaf, expected, atol=1e-5)
