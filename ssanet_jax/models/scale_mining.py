"""Discriminative Scale Mining (paper, 3.2): all scale shifts at once by a circulant matrix."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

Solver = Literal['fourier', 'circulant']


def circular_response(features: jax.Array, weights: jax.Array, solver: Solver = 'fourier') -> jax.Array:
    """Response of every class at every scale shift (Eq. 6 and 7, before the max).

    `y_r = sum_k sum_n phi^n(k) w^{(n + r) mod S}(k)`, the product of the circulant matrix of
    the features with the filter. `'circulant'` builds that matrix; `'fourier'` takes
    `irfft(sum_k conj(rfft(phi)) * rfft(w))` along the scale axis: the sum over channels comes
    first, so that one inverse transform of length S serves all of them.

    Args:
      features: `[..., S, D]`, phi.
      weights: `[N, S, D]`, the filters of N classes.
      solver: 'fourier' or 'circulant'.

    Returns:
      `[..., N, S]`, last axis the shift r.

    Raises:
      ValueError: if the scales or channels of both differ, or for an unknown solver.
    """
    scales, channels = features.shape[-2:]
    if weights.shape[1:] != (scales, channels):
        raise ValueError(f'weights of {weights.shape[1:]} scales and channels for features of {(scales, channels)}')
    if solver == 'circulant':
        shifted = (jnp.arange(scales)[:, None] + jnp.arange(scales)) % scales  # [r, n]
        return jnp.einsum('...nk,crnk->...cr', features, weights[:, shifted])
    if solver == 'fourier':
        phi = jnp.fft.rfft(features.astype(jnp.float32), axis=-2)  # [..., S // 2 + 1, D]
        w = jnp.fft.rfft(weights.astype(jnp.float32), axis=-2)  # [N, S // 2 + 1, D]
        spectrum = jnp.einsum('...fk,cfk->...cf', phi.conj(), w)
        return jnp.fft.irfft(spectrum, n=scales, axis=-1)
    raise ValueError(f"solver must be 'fourier' or 'circulant', not {solver!r}")


def aligned_scale(shift: jax.Array, scales: int) -> jax.Array:
    """Which candidate a shift aligns with the central filter: `((S - 1) / 2 - r) mod S`.

    Row r of the circulant matrix pairs candidate n with filter (n + r) mod S.
    """
    return ((scales - 1) // 2 - shift) % scales


class ScaleResponse(NamedTuple):
    """What scale mining says of a batch of images."""

    logits: jax.Array  # [B, N]
    shift: jax.Array  # int32 [B, K], the best shift of each part for the predicted class


class ScaleMining(nnx.Module):
    """Classifies K parts of S scales each, every part at its best scale shift (Eq. 7).

    The max over shifts is taken per part and class after the sum over channels; its gradient
    goes through the selected shift alone (Eq. 8). Parts are summed, one bias per class.
    """

    def __init__(
        self, parts: int, scales: int, features: int, classes: int, solver: Solver = 'fourier', *, rngs: nnx.Rngs
    ):
        init = nnx.initializers.variance_scaling(1.0, 'fan_in', 'normal', in_axis=(0, 2, 3), out_axis=1)
        self.weights = nnx.Param(init(rngs.params(), (parts, classes, scales, features)))
        self.bias = nnx.Param(jnp.zeros(classes))
        self.solver = solver

    def __call__(self, phi: jax.Array) -> ScaleResponse:
        """Features `[B, K, S, D]` -> logits and the shifts of the predicted class."""
        respond = jax.vmap(lambda f, w: circular_response(f, w, self.solver), in_axes=(1, 0), out_axes=1)
        response = respond(phi, self.weights[...])  # [B, K, N, S]
        logits = response.max(-1).sum(1) + self.bias[...]  # [B, N]
        predicted = logits.argmax(-1)
        of_predicted = jnp.take_along_axis(response, predicted[:, None, None, None], axis=2)[:, :, 0]  # [B, K, S]
        return ScaleResponse(logits, of_predicted.argmax(-1).astype(jnp.int32))
