"""What the network is trained to lower: Eq. 1, Eq. 2 and NTS-Net's ranking loss."""

from typing import Literal

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy of each prediction: logits `[..., N]`, labels int `[...]` -> `[...]`.

    Args:
      smoothing: share of the label's weight that is spread over all N classes
        (Szegedy et al., CVPR 2016); 0 is the plain cross-entropy of Eq. 1.
    """
    logits = logits.astype(jnp.float32)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return optax.softmax_cross_entropy(logits, targets)


def mac_loss(features: jax.Array, temperature: float = 1.0, reduction: Literal['mean', 'sum'] = 'mean') -> jax.Array:
    """Morphological Alignment Constraints: the j-th part means the same in every image (Eq. 2).

    For images xi and tau, with S_jm the cosine of part j of xi and part m of tau,
    `L_m = 1/K sum_j [logsumexp_m S_jm - S_jj]`: Eq. 2 with n = j, whose derivative by S is
    Eq. 4 and 5. As printed (n != j and m != j) the pairs that should agree would get no
    gradient at all.

    Args:
      features: `[B, K, D]`, any length; they are L2-normalised here.
      temperature: divides the cosines.
      reduction: 'mean' over all ordered pairs of images, a pair of an image with itself
        included; 'sum' is the literal sum of Eq. 1.

    Returns:
      scalar, >= 0.

    Raises:
      ValueError: for an unknown reduction.
    """
    if reduction not in ('mean', 'sum'):
        raise ValueError(f"reduction must be 'mean' or 'sum', not {reduction!r}")
    features = features.astype(jnp.float32)
    norm = jnp.sqrt(jnp.square(features).sum(-1, keepdims=True) + 1e-12)  # finite gradient at zero
    unit = features / norm
    similarity = jnp.einsum('xjd,tmd->xtjm', unit, unit) / temperature  # [B, B, K, K]
    agreement = jnp.diagonal(similarity, axis1=-2, axis2=-1)  # [B, B, K]
    loss = (jax.nn.logsumexp(similarity, -1) - agreement).mean(-1)  # [B, B]
    return loss.mean() if reduction == 'mean' else loss.sum()


def ranking_loss(scores: jax.Array, part_losses: jax.Array) -> jax.Array:
    """Pairwise hinge: a box with a lower classification loss gets the higher score (NTS-Net, Eq. 2).

    Mean over the batch of `sum_{i,j} [CE_j > CE_i] max(0, 1 - s_i + s_j)`.

    Args:
      scores: `[B, M]`, of the selected boxes.
      part_losses: `[B, M]`, cross-entropy of each box; no gradient goes there.

    Returns:
      scalar, >= 0.
    """
    part_losses = jax.lax.stop_gradient(part_losses)
    better = part_losses[:, None, :] > part_losses[:, :, None]  # [B, i, j]: i is the better box
    hinge = jax.nn.relu(1 - scores[:, :, None] + scores[:, None, :])
    return jnp.where(better, hinge, 0).sum((1, 2)).mean()
