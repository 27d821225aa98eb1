"""Covariance pooling against eigenvalues and loops in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssanet_jax.models.covariance import CovariancePooling, square_root

RNG = np.random.default_rng(0)


def root_by_eigenvalues(matrix):
    values, vectors = np.linalg.eigh(matrix.astype(np.float64))
    return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T


@given(seed=st.integers(0, 10**6), side=st.integers(1, 8), scale=st.floats(1e-3, 1e3))
@settings(max_examples=20, deadline=None)
def test_iteration_converges_to_the_square_root(seed, side, scale):
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(side, 2 * side))
    matrix = scale * (factor @ factor.T + 0.1 * np.eye(side))
    root = np.asarray(square_root(jnp.asarray(matrix[None], jnp.float32), iterations=15))[0]
    np.testing.assert_allclose(root, root_by_eigenvalues(matrix), atol=2e-3 * np.sqrt(scale * side))


def test_few_iterations_approach_it_from_below():
    """An eigenvalue far below the trace comes out smaller than its root, and none larger."""
    values = np.array([1.0, 0.1, 1e-3, 1e-6], np.float32)
    found = np.diag(square_root(jnp.diag(jnp.asarray(values)), iterations=5))
    assert (found <= np.sqrt(values) * 1.0001).all()
    np.testing.assert_allclose(found[:2], np.sqrt(values[:2]), rtol=0.02)
    assert found[3] < 0.1 * np.sqrt(values[3])


def fitted_pooling(cells):
    pooling = CovariancePooling(cells.shape[-1])
    pooling.fit(cells)
    return pooling


def test_vector_is_the_average_and_the_root_of_the_covariance():
    cells = RNG.normal(size=(500, 6)) * [3, 2, 1, 1, 0.5, 0.5] + 1
    pooling = fitted_pooling(cells)
    maps = RNG.normal(size=(2, 3, 4, 5, 6)).astype(np.float32)
    found = np.asarray(pooling(jnp.asarray(maps)))
    assert found.shape == (2, 3, pooling.num_features) == (2, 3, 6 + 21)
    values, vectors = np.linalg.eigh(np.cov(cells.T, bias=True))
    order = np.argsort(-values)
    for index in np.ndindex(2, 3):
        np.testing.assert_allclose(found[index][:6], maps[index].mean((0, 1)), atol=1e-5)
        moments = np.zeros((6, 6))
        for cell in maps[index].reshape(-1, 6):
            centered = vectors[:, order].T @ (cell - maps[index].mean((0, 1)))
            moments += np.outer(centered, centered) / 20
        root = np.zeros((6, 6))
        root[np.triu_indices(6)] = found[index][6:]
        root = np.triu(root) + np.triu(root, 1).T
        # The signs of principal components are arbitrary.
        np.testing.assert_allclose(np.abs(root), np.abs(root_by_eigenvalues(moments)), atol=0.05)


def test_order_of_the_cells_does_not_matter():
    """A mirrored or turned map has the same vector."""
    pooling = fitted_pooling(RNG.normal(size=(100, 5)))
    maps = jnp.asarray(RNG.normal(size=(1, 4, 4, 5)), jnp.float32)
    for turned in (maps[:, ::-1], maps[:, :, ::-1], maps.transpose(0, 2, 1, 3)):
        np.testing.assert_allclose(pooling(turned), pooling(maps), atol=1e-5)


def test_features_that_occur_in_the_same_cell_are_told_from_those_that_do_not():
    """Two maps with the same averages: in one, two features share their cells, in the other they exclude each other."""
    together = np.zeros((2, 2, 2), np.float32)
    together[0] = 1
    apart = np.zeros((2, 2, 2), np.float32)
    apart[0, :, 0] = apart[1, :, 1] = 1
    pooling = fitted_pooling(np.concatenate([together, apart]).reshape(-1, 2))
    vectors = np.asarray(pooling(jnp.stack([together, apart])))
    np.testing.assert_allclose(vectors[0][:2], vectors[1][:2], atol=1e-6)
    assert np.abs(vectors[0][2:] - vectors[1][2:]).max() > 0.3


def test_without_a_fit_the_covariance_is_zero():
    pooling = CovariancePooling(3)
    assert not pooling.is_fitted
    vector = np.asarray(pooling(jnp.ones((1, 2, 2, 3))))
    assert np.isfinite(vector).all() and not vector[0, 3:].any()
    pooling.fit(RNG.normal(size=(10, 3)))
    assert pooling.is_fitted


@pytest.mark.parametrize('maps', [np.zeros((1, 2, 2, 4)), np.ones((1, 2, 2, 4)), RNG.normal(size=(1, 2, 2, 4))])
def test_gradient_is_finite(maps):
    pooling = fitted_pooling(RNG.normal(size=(50, 4)))
    gradient = jax.grad(lambda x: pooling(x).sum())(jnp.asarray(maps, jnp.float32))
    assert np.isfinite(np.asarray(gradient)).all()
