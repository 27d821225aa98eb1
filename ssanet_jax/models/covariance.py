"""Covariance pooling: a vector that says how the channels of a feature map vary together, beside their averages.

Averages alone forget which features occur in the same cell: a red head on a black bird and a black head on a red bird
have the same ones. The covariance of the cells keeps that. Its matrix square root tames the few largest eigenvalues,
which would drown the others (Li, Xie, Wang, Zuo: Is second-order information helpful for large-scale visual
recognition?, ICCV 2017). It is computed by Newton-Schulz iteration, which needs products of matrices alone (Li, Xie,
Wang, Gao: Towards faster training of global covariance pooling networks by iterative matrix square root normalization,
CVPR 2018).
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

NUM_COMPONENTS = 64  # principal components of the cells whose covariance is taken
_ITERATIONS = 5  # as in Li et al., 2018
_EPSILON = 1e-6  # keeps the map of a uniform image finite


class CovariancePooling(nnx.Module):
    """Describes maps by the average of their cells and the square root of the covariance of their cells.

    The channels are first reduced to the principal components of the cells of training images, which are set once
    (`fit`), not trained: a `BatchStat`, so that checkpoints hold them. Until then the covariance is 0.

    Args:
      channels: C.
    """

    def __init__(self, channels: int):
        self.channels = channels
        self.num_components = min(NUM_COMPONENTS, channels)  # P
        self.projection = nnx.BatchStat(jnp.zeros((channels, self.num_components)))

    @property
    def num_features(self) -> int:
        """Length of the vector that describes a map: C + P (P + 1) / 2."""
        return self.channels + self.num_components * (self.num_components + 1) // 2

    @property
    def is_fitted(self) -> bool:
        """Whether the principal components have been set."""
        return bool(self.projection[...].any())

    def fit(self, cells: np.ndarray) -> None:
        """Sets the principal components to those of cells `[n, C]`."""
        cells = np.asarray(cells, np.float32)
        centered = cells - cells.mean(0)
        _, vectors = np.linalg.eigh(centered.T @ centered / len(cells))  # in ascending order
        self.projection.set_value(jnp.asarray(vectors[:, ::-1][:, : self.num_components]))

    def __call__(self, maps: jax.Array) -> jax.Array:
        """Feature maps `[..., h, w, C]` -> float32 `[..., C + P (P + 1) / 2]`."""
        cells = maps.reshape(*maps.shape[:-3], -1, self.channels).astype(jnp.float32)  # [..., h w, C]
        average = cells.mean(-2)  # [..., C]
        components = (cells - average[..., None, :]) @ self.projection[...]  # [..., h w, P]
        covariance = jnp.einsum('...np,...nq->...pq', components, components) / cells.shape[-2]
        root = square_root(covariance).reshape(*covariance.shape[:-2], -1)  # [..., P * P]
        upper = np.ravel_multi_index(np.triu_indices(self.num_components), (self.num_components,) * 2)
        return jnp.concatenate([average, root[..., upper]], -1)


def square_root(matrices: jax.Array, iterations: int = _ITERATIONS) -> jax.Array:
    """Approximates the square roots of symmetric positive semidefinite matrices from below (Newton-Schulz).

    Eigenvalues below about 2.25 ** -iterations of the trace come out smaller than their roots.

    Args:
      matrices: `[..., P, P]`.
      iterations: steps; the error of an eigenvalue falls quadratically once it is small.

    Returns:
      `[..., P, P]`, symmetric. They are 0 where the matrices are.
    """
    identity = jnp.eye(matrices.shape[-1])
    trace = jnp.trace(matrices, axis1=-2, axis2=-1)[..., None, None] + _EPSILON
    multiply = lambda a, b: jnp.matmul(a, b, precision='highest')  # it diverges in bfloat16
    root, inverse = matrices / trace, jnp.broadcast_to(identity, matrices.shape)
    for _ in range(iterations):
        step = 1.5 * identity - 0.5 * multiply(inverse, root)
        root, inverse = multiply(root, step), multiply(step, inverse)
    return root * jnp.sqrt(trace)
