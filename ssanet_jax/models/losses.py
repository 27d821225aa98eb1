"""The losses of training: cross-entropy, Eq. 2 (MAC) and NTS-Net's ranking loss. Their weighted sum is Eq. 1."""

from typing import Literal

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Softmax cross-entropy, the classification term of Eq. 1.

    Args:
      logits: `[..., N]`.
      labels: int `[...]`.
      smoothing: share of the target's weight that is spread over all N classes (Szegedy et al., CVPR 2016).

    Returns:
      float32 `[...]`, not reduced.
    """
    logits = logits.astype(jnp.float32)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def mac_loss(features: jax.Array, temperature: float = 1.0, reduction: Literal['mean', 'sum'] = 'mean') -> jax.Array:
    """Morphological Alignment Constraints (Eq. 2): the j-th part has the same meaning in every image.

    For images xi and tau, with S_jm the cosine of part j of xi and part m of tau,
    `L_m = 1/K sum_j [logsumexp_m S_jm - S_jj]`. This is Eq. 2 with n = j, and its derivative with respect to S is
    Eq. 4 and 5. As printed (n != j and m != j), matching parts would get no gradient.

    Args:
      features: `[B, K, D]`; they are L2-normalized here.
      temperature: divides the cosines.
      reduction: 'mean' or 'sum' over all ordered pairs of images, including each image with itself. 'sum' is the
        literal Eq. 1.

    Returns:
      scalar, >= 0.

    Raises:
      ValueError: the reduction is unknown.
    """
    if reduction not in ('mean', 'sum'):
        raise ValueError(f"reduction must be 'mean' or 'sum', not {reduction!r}")
    features = features.astype(jnp.float32)
    norm = jnp.sqrt(jnp.square(features).sum(-1, keepdims=True) + 1e-12)  # the gradient is finite at zero
    unit = features / norm
    similarity = jnp.einsum('xjd,tmd->xtjm', unit, unit) / temperature  # [B, B, K, K]
    matching = jnp.diagonal(similarity, axis1=-2, axis2=-1)  # [B, B, K]
    loss = (jax.nn.logsumexp(similarity, -1) - matching).mean(-1)  # [B, B]
    return loss.mean() if reduction == 'mean' else loss.sum()


def ranking_loss(scores: jax.Array, part_losses: jax.Array) -> jax.Array:
    """Pairwise hinge loss (NTS-Net, Eq. 2): a box with a lower classification loss should have a higher score.

    The mean over the batch of `sum_{i,j} [CE_j > CE_i] max(0, 1 - s_i + s_j)`.

    Args:
      scores: `[B, M]`, scores of the selected boxes.
      part_losses: `[B, M]`, cross-entropy of each box; it gets no gradient.

    Returns:
      scalar, >= 0.
    """
    part_losses = jax.lax.stop_gradient(part_losses)
    better = part_losses[:, None, :] > part_losses[:, :, None]  # [B, i, j]: box i is better than box j
    hinge = jax.nn.relu(1 - scores[:, :, None] + scores[:, None, :])
    return jnp.where(better, hinge, 0).sum((1, 2)).mean()
