"""Linear classifiers on fixed features, fitted to their optimum instead of by steps of gradient descent.

Multinomial logistic regression with an L2 penalty is convex: L-BFGS (Liu and Nocedal, 1989; scipy's) reaches its
minimum without a learning rate or a number of epochs to choose.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

ITERATIONS = 60  # by then the loss of standardized features changes in the fourth digit


class LinearClassifier(NamedTuple):
    """The weights of a linear classifier."""

    kernel: np.ndarray  # float32 [D, N]
    bias: np.ndarray  # float32 [N]

    def logits(self, features: np.ndarray) -> np.ndarray:
        """`[..., D]` -> `[..., N]`."""
        return features @ self.kernel + self.bias


def fit_softmax(
    features: np.ndarray, labels: np.ndarray, num_classes: int, *, l2: float, weights: np.ndarray | None = None
) -> LinearClassifier:
    """Minimizes the mean cross-entropy plus `l2 / 2` times the squared norm of the kernel.

    Args:
      features: float `[n, D]`, standardized.
      labels: int `[n]`.
      num_classes: N.
      l2: strength of the penalty, > 0.
      weights: `[n]`, >= 0, the weight of each example in the mean; all equal if None. A weight of 0 leaves an example
        out: folds of the same examples then share one compiled program.

    Raises:
      ValueError: the penalty is not positive, or no example has a weight.
    """
    if not l2 > 0:
        raise ValueError(f'l2 must be above 0; got {l2}')
    shares = np.ones(len(labels), np.float32) if weights is None else np.asarray(weights, np.float32)
    if not shares.sum() > 0:
        raise ValueError('no example has a weight above 0')
    arguments = jnp.asarray(features, jnp.float32), jnp.asarray(labels), jnp.asarray(shares / shares.sum())
    shape = features.shape[1] + 1, num_classes
    parameters = minimize(lambda parameters: _objective(parameters, *arguments, l2), shape)
    return LinearClassifier(parameters[:-1], parameters[-1])


def minimize(objective: Callable[[jax.Array], tuple[jax.Array, jax.Array]], shape: tuple[int, ...]) -> np.ndarray:
    """The minimum of a convex function by L-BFGS, from zero.

    Args:
      objective: float32 parameters -> value and gradient.
      shape: shape of the parameters.

    Returns:
      float32 `shape`.
    """

    def evaluate(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective(jnp.asarray(flat.reshape(shape), jnp.float32))
        return float(value), np.asarray(gradient, np.float64).ravel()

    start = np.zeros(math.prod(shape))
    found = scipy.optimize.minimize(
        evaluate, start, jac=True, method='L-BFGS-B', options={'maxiter': ITERATIONS, 'ftol': 1e-7}
    )
    return found.x.reshape(shape).astype(np.float32)


@jax.jit
@partial(jax.value_and_grad, argnums=0)
def _objective(parameters, features, labels, shares, l2):
    kernel, bias = parameters[:-1], parameters[-1]
    log_probabilities = jax.nn.log_softmax(features @ kernel + bias)
    cross_entropy = -jnp.take_along_axis(log_probabilities, labels[:, None], 1)[:, 0]
    return shares @ cross_entropy + l2 / 2 * jnp.square(kernel).sum()


def assign_folds(labels: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """Splits examples into folds in which every class has an equal share, as nearly as possible: int `[n]`."""
    rng = np.random.default_rng(seed)
    folds = np.empty(len(labels), np.int64)
    start = 0
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        folds[members] = (start + np.arange(len(members))) % num_folds
        start += len(members)  # small classes should not all begin in fold 0
    return folds


def out_of_fold(
    features: np.ndarray, labels: np.ndarray, num_classes: int, folds: np.ndarray, *, l2: float
) -> np.ndarray:
    """Log-probabilities of each example by a classifier that has not seen it.

    Args:
      features: float `[n, D]`, standardized; views of one image must be in one fold.
      labels: int `[n]`.
      num_classes: N.
      folds: int `[n]`, from `assign_folds`.
      l2: see `fit_softmax`.

    Returns:
      float32 `[n, N]`.
    """
    found = np.empty((len(labels), num_classes), np.float32)
    for fold in np.unique(folds):
        held_out = folds == fold
        classifier = fit_softmax(features, labels, num_classes, l2=l2, weights=~held_out)
        found[held_out] = log_softmax(classifier.logits(features[held_out]))
    return found


def fusion_weights(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The weight of each of several classifiers in the sum of their log-probabilities.

    Args:
      log_probabilities: float `[H, n, N]` of H classifiers, out of fold, because a classifier is too sure of the
        examples that it was fitted to.
      labels: int `[n]`.

    Returns:
      float32 `[H]`, >= 0: the minimum of the cross-entropy of the weighted sum. A classifier that adds nothing has the
      weight 0.
    """
    scores = np.asarray(log_probabilities, np.float64)
    rows = np.arange(len(labels))

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
        fused = log_softmax(np.tensordot(weights, scores, 1))  # [n, N]
        gradient = (np.exp(fused) * scores).sum(-1).mean(-1) - scores[:, rows, labels].mean(-1)
        return -float(fused[rows, labels].mean()), gradient

    heads = len(scores)
    found = scipy.optimize.minimize(
        objective, np.full(heads, 1 / heads), jac=True, method='L-BFGS-B', bounds=[(0, None)] * heads
    )
    return found.x.astype(np.float32)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logits `[..., N]` -> log-probabilities `[..., N]`."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
