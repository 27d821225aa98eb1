"""Linear classifiers on fixed features, fitted to their optimum instead of by steps of gradient descent.

Multinomial logistic regression with an L2 penalty is convex: L-BFGS (Liu and Nocedal, 1989) reaches its minimum without
a learning rate or a number of epochs to choose.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize

from ssanet_jax.evaluation.calibration import smoothed_targets

ITERATIONS = 60  # by then the loss of standardized features changes in the fourth digit
_TOLERANCE = 1e-4  # norm of the gradient at which a minimum counts as found


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
    parameters = minimize(_objective, (features.shape[1] + 1, num_classes), *arguments, l2)
    return LinearClassifier(parameters[:-1], parameters[-1])


def minimize(objective: Callable[..., jax.Array], shape: tuple[int, ...], *data: Any) -> np.ndarray:
    """The minimum of a convex function by L-BFGS, from zero, in one compiled program.

    Args:
      objective: (parameters, *data) -> value. A function of the module, not a lambda, so that it is compiled once.
      shape: shape of the parameters.
      *data: arrays and numbers.

    Returns:
      float32 `shape`.
    """
    return np.asarray(_minimize(objective, shape, data))


@partial(jax.jit, static_argnames=('objective', 'shape'))
def _minimize(objective: Callable[..., jax.Array], shape: tuple[int, ...], data: tuple[Any, ...]) -> jax.Array:
    optimizer = optax.lbfgs()
    value_of = lambda parameters: objective(parameters, *data)
    evaluate = optax.value_and_grad_from_state(value_of)

    def step(carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        number, parameters, state = carry
        value, gradient = evaluate(parameters, state=state)
        updates, state = optimizer.update(gradient, state, parameters, value=value, grad=gradient, value_fn=value_of)
        return number + 1, optax.apply_updates(parameters, updates), state

    def goes_on(carry: tuple[Any, Any, Any]) -> jax.Array:
        number, _, state = carry
        steep = optax.tree.norm(optax.tree.get(state, 'grad')) > _TOLERANCE
        return (number == 0) | ((number < ITERATIONS) & steep)

    start = jnp.zeros(shape, jnp.float32)
    return jax.lax.while_loop(goes_on, step, (jnp.int32(0), start, optimizer.init(start)))[1]


def _objective(
    parameters: jax.Array, features: jax.Array, labels: jax.Array, shares: jax.Array, l2: float
) -> jax.Array:
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


def fusion_weights(log_probabilities: np.ndarray, labels: np.ndarray, num_images: int | None = None) -> np.ndarray:
    """The weight of each of several classifiers in the sum of their log-probabilities.

    Args:
      log_probabilities: float `[H, n, N]` of H classifiers, out of fold, because a classifier is too sure of the
        examples that it was fitted to.
      labels: int `[n]`.
      num_images: the number of images that the n examples show; n if None.

    Returns:
      float32 `[H]`, >= 0: the minimum of the cross-entropy of the weighted sum, with the targets of Platt (1999,
      `smoothed_targets`), so that the weights are finite if all examples are classified correctly. A classifier that
      adds nothing has the weight 0.
    """
    scores = np.asarray(log_probabilities, np.float64)
    targets = smoothed_targets(labels, scores.shape[-1], num_images)

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
        fused = log_softmax(np.tensordot(weights, scores, 1))  # [n, N]
        gradient = ((np.exp(fused) - targets) * scores).sum(-1).mean(-1)
        return -float((targets * fused).sum(-1).mean()), gradient

    heads = len(scores)
    found = scipy.optimize.minimize(
        objective, np.full(heads, 1 / heads), jac=True, method='L-BFGS-B', bounds=[(0, None)] * heads
    )
    return found.x.astype(np.float32)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logits `[..., N]` -> log-probabilities `[..., N]`."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
