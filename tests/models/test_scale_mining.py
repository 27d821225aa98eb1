"""Discriminative scale mining: Eq. 6, 7, 8 against explicit circulant matrices and loops."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from ssanet_jax.models import scale_mining

SOLVERS = ('fourier', 'circulant')
respond = jax.jit(scale_mining.circular_response, static_argnames='solver')


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def circulant(column_values):
    """Eq. 6: the first row is phi^0 ... phi^(S-1), and each row is the one above, rotated right by one place."""
    size = len(column_values)
    matrix = np.zeros((size, size))
    matrix[0] = column_values
    for row in range(1, size):
        matrix[row, 0] = matrix[row - 1, -1]
        matrix[row, 1:] = matrix[row - 1, :-1]
    return matrix


def response_by_matrices(features, weights):
    """Eq. 7 before its max: sum_k C_k w^k for each class, on features [..., S, D]."""
    features, weights = np.float64(features), np.float64(weights)
    *batch, scales, length = features.shape
    out = np.zeros((*batch, len(weights), scales))
    for index in np.ndindex(*batch):
        for c in range(len(weights)):
            for k in range(length):
                out[index][c] += circulant(features[index][:, k]) @ weights[c, :, k]
    return out


@settings(deadline=None, max_examples=14)
@given(
    st.sampled_from([1, 3, 5, 7, 9]),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from(SOLVERS),
    st.integers(0, 2**32 - 1),
)
def test_solvers_against_the_circulant_matrix(scales, length, classes, batch, solver, seed):
    features, weights = normal(seed, batch, scales, length), normal(seed + 1, classes, scales, length)
    out = respond(features, weights, solver=solver)
    chex.assert_shape(out, (batch, classes, scales))
    np.testing.assert_allclose(out, response_by_matrices(features, weights), atol=1e-4)


class ResponseVariants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.product(solver=SOLVERS, batch=((), (2, 3)))
    def test_leading_axes(self, solver, batch):
        features, weights = normal(0, *batch, 5, 6), normal(1, 4, 5, 6)
        out = self.variant(lambda f, w: scale_mining.circular_response(f, w, solver=solver))(features, weights)
        chex.assert_shape(out, (*batch, 4, 5))
        chex.assert_type(out, jnp.float32)
        np.testing.assert_allclose(out, response_by_matrices(features, weights), atol=1e-4)

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(1, 5)
    def test_solvers_have_equal_gradients(self, scales):
        features, weights, cotangent = normal(2, 2, scales, 6), normal(3, 4, scales, 6), normal(4, 2, 4, scales)

        def gradients(solver):
            def total(f, w):
                return jnp.sum(cotangent * scale_mining.circular_response(f, w, solver=solver))

            return self.variant(jax.grad(total, argnums=(0, 1)))(features, weights)

        chex.assert_trees_all_close(gradients('fourier'), gradients('circulant'), atol=1e-4)
        # Both equal the loop: y_r contains phi^n w^(n+r).
        towards_features, towards_weights = np.zeros(features.shape), np.zeros(weights.shape)
        for b, c, r, n in np.ndindex(2, 4, scales, scales):
            towards_features[b, n] += cotangent[b, c, r] * weights[c, (n + r) % scales]
            towards_weights[c, (n + r) % scales] += cotangent[b, c, r] * features[b, n]
        chex.assert_trees_all_close(
            gradients('fourier'), (np.float32(towards_features), np.float32(towards_weights)), atol=1e-4
        )


@pytest.mark.parametrize('solver', SOLVERS)
def test_response_is_the_sum_of_the_contract(solver):
    features, weights = normal(5, 5, 3), normal(6, 2, 5, 3)
    expected = np.zeros((2, 5))
    for c, r, n, k in np.ndindex(2, 5, 5, 3):
        expected[c, r] += features[n, k] * weights[c, (n + r) % 5, k]
    np.testing.assert_allclose(scale_mining.circular_response(features, weights, solver=solver), expected, atol=1e-5)


@pytest.mark.parametrize('solver', SOLVERS)
def test_one_hot_features_read_the_weights_in_order(solver):
    weights = np.arange(5, dtype=np.float32).reshape(1, 5, 1)
    features = np.zeros((5, 1), np.float32)
    features[1] = 1
    out = scale_mining.circular_response(features, weights, solver=solver)
    np.testing.assert_allclose(out, [[1, 2, 3, 4, 0]], atol=1e-5)


@settings(deadline=None, max_examples=12)
@given(st.sampled_from([1, 5]), st.integers(-9, 9), st.sampled_from(SOLVERS), st.integers(0, 2**32 - 1))
def test_rolling_the_scales_rolls_the_response(scales, turn, solver, seed):
    features, weights = normal(seed, scales, 4), normal(seed + 1, 3, scales, 4)
    before = respond(features, weights, solver=solver)
    after = respond(np.roll(features, turn, axis=0), weights, solver=solver)
    np.testing.assert_allclose(after, np.roll(before, -turn, axis=-1), atol=1e-4)
    np.testing.assert_allclose(after.max(-1), before.max(-1), atol=1e-4)


def test_an_unknown_solver_raises():
    with pytest.raises(ValueError, match='solver'):
        scale_mining.circular_response(normal(7, 3, 2), normal(8, 1, 3, 2), solver='laplace')


@pytest.mark.parametrize('solver', SOLVERS)
def test_gradient_is_equation_8(solver):
    """dL/dw = delta phi*, dL/dphi* = delta w, through the selected shift and no other."""
    scales, classes = 5, 4
    features, weights, delta = normal(9, scales, 6), normal(10, classes, scales, 6), normal(11, classes)

    def loss(f, w):
        return jnp.sum(delta * scale_mining.circular_response(f, w, solver=solver).max(-1))

    towards_features, towards_weights = jax.jit(jax.grad(loss, argnums=(0, 1)))(features, weights)
    selected = response_by_matrices(features, weights).argmax(-1)
    assert len(set(selected)) > 1  # the classes choose different shifts here
    expected_features, expected_weights = np.zeros(features.shape), np.zeros(weights.shape)
    for c, r in enumerate(selected):
        permuted = np.stack([circulant(features[:, k])[r] for k in range(6)], axis=-1)  # row r of every C_k
        expected_weights[c] = delta[c] * permuted
        for n in range(scales):
            expected_features[n] += delta[c] * weights[c, (n + r) % scales]
    np.testing.assert_allclose(towards_weights, expected_weights, atol=1e-4)
    np.testing.assert_allclose(towards_features, expected_features, atol=1e-4)


@pytest.mark.parametrize('scales', [1, 3, 5, 9])
def test_aligned_scale_pairs_the_central_filter(scales):
    shifts = np.arange(scales, dtype=np.int32)
    aligned = scale_mining.aligned_scale(shifts, scales)
    chex.assert_shape(aligned, (scales,))
    chex.assert_type(aligned, jnp.int32)
    for r, n in zip(shifts, np.array(aligned)):
        assert 0 <= n < scales
        assert (n + r) % scales == (scales - 1) // 2  # candidate n meets the filter c at shift r
    assert aligned[0] == (scales - 1) // 2  # no shift: the original box


def test_aligned_scale_by_hand_and_in_any_shape():
    shifts = np.int32([[0, 1, 2], [3, 4, 0]])
    aligned = jax.jit(lambda r: scale_mining.aligned_scale(r, 5))(shifts)
    np.testing.assert_array_equal(aligned, [[2, 1, 0], [4, 3, 2]])


PARTS, SCALES, LENGTH, CLASSES = 3, 5, 6, 4


def module_with_weights(solver='fourier', seed=0):
    """A module, with its weights [K, N, S, D] and its bias [N] set to known values."""
    module = scale_mining.ScaleMining(PARTS, SCALES, LENGTH, CLASSES, solver=solver, rngs=nnx.Rngs(0))
    known = {
        (PARTS, CLASSES, SCALES, LENGTH): normal(seed, PARTS, CLASSES, SCALES, LENGTH),
        (CLASSES,): normal(seed + 1, CLASSES),
    }
    state = nnx.state(module, nnx.Param)
    assert sorted(leaf.shape for leaf in jax.tree.leaves(state)) == sorted(known)
    nnx.update(module, jax.tree.map(lambda leaf: jnp.asarray(known[leaf.shape]), state))
    return module, known[PARTS, CLASSES, SCALES, LENGTH], known[CLASSES,]


def logits_by_loops(phi, weights, bias):
    logits = np.zeros((len(phi), CLASSES)) + bias
    shift = np.zeros((len(phi), PARTS), int)
    for b in range(len(phi)):
        y = [response_by_matrices(phi[b, k], weights[k]) for k in range(PARTS)]
        for k in range(PARTS):
            logits[b] += y[k].max(-1)
        for k in range(PARTS):
            shift[b, k] = y[k][logits[b].argmax()].argmax()
    return logits, shift


class ModuleVariants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(*SOLVERS)
    def test_logits_and_shifts(self, solver):
        module, weights, bias = module_with_weights(solver)
        graph, state = nnx.split(module)
        phi = normal(20, 8, PARTS, SCALES, LENGTH)
        logits, shift, *_ = self.variant(lambda s, x: tuple(nnx.merge(graph, s)(x)))(state, phi)
        expected_logits, expected_shift = logits_by_loops(phi, weights, bias)
        chex.assert_shape((logits, shift), ((8, CLASSES), (8, PARTS)))
        chex.assert_type(shift, jnp.int32)
        np.testing.assert_allclose(logits, expected_logits, atol=1e-4)
        np.testing.assert_array_equal(shift, expected_shift)
        assert len(np.unique(expected_shift)) > 2


def test_the_bias_is_added_once_and_changes_the_predicted_class():
    module, weights, bias = module_with_weights()
    phi = normal(21, 1, PARTS, SCALES, LENGTH)
    logits, _, *_ = module(phi)
    raised = bias.copy()
    loser = int(np.argmin(logits[0]))
    raised[loser] += 100
    state = nnx.state(module, nnx.Param)
    nnx.update(module, jax.tree.map(lambda leaf: jnp.asarray(raised) if leaf.shape == (CLASSES,) else leaf, state))
    moved, shift, *_ = module(phi)
    difference = np.zeros(CLASSES)
    difference[loser] = 100
    np.testing.assert_allclose(moved[0] - logits[0], difference, atol=1e-3)
    expected = [response_by_matrices(phi[0, k], weights[k])[loser].argmax() for k in range(PARTS)]
    np.testing.assert_array_equal(shift[0], expected)


def test_a_shift_of_scale_leaves_the_logits_and_the_aligned_candidate():
    """The purpose of the module: if a part appears at another scale, the same features are selected."""
    module, _, _ = module_with_weights()
    phi = normal(22, 6, PARTS, SCALES, LENGTH)
    turns = (1, 3, 4)
    rolled = np.stack([np.roll(phi[:, k], turn, axis=1) for k, turn in enumerate(turns)], axis=1)
    logits, shift, *_ = module(phi)
    rolled_logits, rolled_shift, *_ = module(rolled)
    np.testing.assert_allclose(rolled_logits, logits, atol=1e-4)
    np.testing.assert_array_equal(rolled_shift, (np.array(shift) - turns) % SCALES)
    before, after = (np.array(scale_mining.aligned_scale(r, SCALES)) for r in (shift, rolled_shift))
    for b, k in np.ndindex(6, PARTS):
        np.testing.assert_array_equal(phi[b, k, before[b, k]], rolled[b, k, after[b, k]])


def test_solvers_agree_in_the_module():
    phi = normal(23, 4, PARTS, SCALES, LENGTH)
    labels = np.array([0, 1, 2, 3])

    def value_and_gradient(solver):
        graph, state = nnx.split(module_with_weights(solver)[0])

        def loss(state, phi):
            logits = nnx.merge(graph, state)(phi)[0]
            return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(4), labels])

        value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(state, phi)
        return value, jax.tree.leaves(gradients)

    fourier, matrix = value_and_gradient('fourier'), value_and_gradient('circulant')
    assert max(np.abs(leaf).max() for leaf in fourier[1]) > 1e-3
    chex.assert_trees_all_close(fourier, matrix, atol=1e-4)
