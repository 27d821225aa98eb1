"""Standardized features have mean 0 and deviation 1; the linear classifier equals NumPy's arithmetic."""

import chex
import numpy as np
from flax import nnx

from ssanet_jax.models.standardize import Standardize, StandardizedLinear, standardized


def test_features_get_mean_zero_and_deviation_one():
    features = np.random.default_rng(0).normal(3, 5, size=(200, 2, 4)).astype(np.float32)
    module = Standardize((2, 4))
    chex.assert_trees_all_close(module(features), features)  # the identity before it is fitted
    module.fit(features)
    result = np.asarray(module(features))
    chex.assert_trees_all_close(result.mean(0), np.zeros((2, 4)), atol=1e-5)
    chex.assert_trees_all_close(result.std(0), np.ones((2, 4)), atol=1e-3)
    chex.assert_trees_all_close(standardized(features), result, atol=1e-6)  # what classifiers are fitted to


def test_a_constant_feature_stays_finite():
    module = Standardize(1)
    module.fit(np.full((10, 1), 7.0))
    chex.assert_trees_all_close(module(np.full((1, 1), 7.0)), np.zeros((1, 1)))


def test_linear_classifier_equals_numpy():
    features = np.random.default_rng(1).normal(2, 3, size=(50, 4)).astype(np.float32)
    module = StandardizedLinear(4, 3, rngs=nnx.Rngs(0))
    module.standardize.fit(features)
    expected = (features - features.mean(0)) / features.std(0) @ np.asarray(module.kernel[...]) + np.asarray(
        module.bias[...]
    )
    chex.assert_trees_all_close(module(features), expected, atol=1e-4)


def test_statistics_are_no_parameters():
    _, params, stats = nnx.split(StandardizedLinear(4, 3, rngs=nnx.Rngs(0)), nnx.Param, nnx.BatchStat)
    assert set(params) == {'kernel', 'bias'}
    assert set(stats) == {'standardize'}
