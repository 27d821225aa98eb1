"""Standardization of features before a linear classifier."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssanet_jax.models.initializers import LECUN_NORMAL

_EPSILON = 1e-6  # a feature that never changes stays finite


def statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the standard deviation by which features `[n, *shape]` are standardized: float32 `[*shape]` each."""
    features = np.asarray(features, np.float32)
    return features.mean(0), features.std(0) + _EPSILON


def standardized(features: np.ndarray) -> np.ndarray:
    """Features `[n, *shape]` as `Standardize` gives them after `fit` on the same features: the same shape, float32."""
    mean, std = statistics(features)
    return (np.asarray(features, np.float32) - mean) / std


class Standardize(nnx.Module):
    """`(x - mean) / std` per feature, with statistics of the training images.

    Averaged features of a network with ReLU differ in scale by orders of magnitude; a penalty on the weights then
    weighs on the small ones most. The statistics are set once (`fit`), not updated by training: they are `BatchStat`s
    so that checkpoints hold them beside those of BatchNorm.
    """

    def __init__(self, shape: int | Sequence[int]):
        """Starts as the identity, for features `[..., *shape]`."""
        self.mean = nnx.BatchStat(jnp.zeros(shape))
        self.std = nnx.BatchStat(jnp.ones(shape))

    def fit(self, features: np.ndarray) -> None:
        """Takes the statistics of features `[n, *shape]`."""
        mean, std = statistics(features)
        self.mean.set_value(jnp.asarray(mean))
        self.std.set_value(jnp.asarray(std))

    def __call__(self, features: jax.Array) -> jax.Array:
        """`[..., *shape]` -> the same shape, float32."""
        return (features.astype(jnp.float32) - self.mean[...]) / self.std[...]


class StandardizedLinear(nnx.Module):
    """A linear classifier of standardized features; its parameters have the names of `nnx.Linear`."""

    def __init__(self, num_features: int, num_classes: int, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(LECUN_NORMAL(rngs.params(), (num_features, num_classes)))
        self.bias = nnx.Param(jnp.zeros(num_classes))
        self.standardize = Standardize(num_features)

    def __call__(self, features: jax.Array) -> jax.Array:
        """`[..., D]` -> `[..., N]`."""
        return self.standardize(features) @ self.kernel[...] + self.bias[...]
