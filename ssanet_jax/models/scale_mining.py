"""Discriminative Scale Mining (paper, 3.2): all scale shifts at once by a circulant matrix."""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

Solver = Literal['fourier', 'circulant']


def circular_response(features: jax.Array, weights: jax.Array, solver: Solver = 'fourier') -> jax.Array:
    """Response of every class at every scale shift (Eq. 6 and 7, before the max).

    `y_r = sum_k sum_n phi^n(k) w^{(n + r) mod S}(k)`, the product of the circulant matrix of
    the features with the filter. `'circulant'` builds that matrix; `'fourier'` takes
    `irfft(sum_k conj(rfft(phi)) * rfft(w))` along the scale axis (`spectral_response`).

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
        return spectral_response(features, filter_spectrum(weights))
    raise ValueError(f"solver must be 'fourier' or 'circulant', not {solver!r}")


def real_spectrum(x: jax.Array) -> jax.Array:
    """The Fourier transform along the scales as as many real numbers: `[..., S, D] -> float32 [..., S, D]`, S odd.

    The rows are Re 0, Re 1, Im 1, Re 2, Im 2, ...: of a real signal the rest follows from these.
    """
    z = jnp.fft.rfft(x.astype(jnp.float32), axis=-2)  # [..., (S + 1) / 2, D]
    pairs = jnp.stack([z.real[..., 1:, :], z.imag[..., 1:, :]], -2)  # [..., (S - 1) / 2, 2, D]
    return jnp.concatenate([z.real[..., :1, :], pairs.reshape(*z.shape[:-2], -1, z.shape[-1])], -2)


class FilterSpectrum(NamedTuple):
    """The spectrum of N filters, each frequency of all of them in one piece, as its product reads it."""

    constant: jax.Array  # [..., N, D], frequency 0
    real: jax.Array  # [..., (S - 1) / 2, N, D], of the others
    imag: jax.Array  # [..., (S - 1) / 2, N, D]


def filter_spectrum(weights: jax.Array) -> FilterSpectrum:
    """Filters of Eq. 7, `[..., N, S, D]` with S odd, along their scales: float32, as `real_spectrum` has it."""
    rows = jnp.swapaxes(real_spectrum(weights), -3, -2)  # [..., S, N, D]
    return FilterSpectrum(rows[..., 0, :, :], rows[..., 1::2, :, :], rows[..., 2::2, :, :])


def spectral_response(features: jax.Array, spectrum: FilterSpectrum) -> jax.Array:
    """`circular_response` by filters transformed before: `[..., S, D]` -> `[..., N, S]`.

    The sum over channels comes first, so that one inverse transform of length S serves all of them. Of the
    (S + 1) / 2 products of spectra the first is real, and the others take four real ones: 9 for S = 5, where the
    circulant matrix takes 25.

    Args:
      features: `[..., S, D]`, phi.
      spectrum: `filter_spectrum(w)`, of `[N, S, D]`.
    """
    phi = real_spectrum(features)
    *batch, scales, channels = phi.shape
    constant = jnp.einsum('...k,ck->...c', phi[..., 0, :], spectrum.constant)
    phi = phi[..., 1:, :].reshape(*batch, -1, 2, channels)  # [..., f, (Re, Im), D]
    turned = jnp.stack([-phi[..., 1, :], phi[..., 0, :]], -2)
    both = jnp.stack([phi, turned], -3)  # [..., f, q, (Re, Im), D]: what gives Re and Im of conj(phi) w
    filters = (spectrum.real, spectrum.imag)
    product = sum(jnp.einsum('...fqk,fck->...cfq', both[..., z, :], filters[z]) for z in (0, 1))
    product = jax.lax.complex(product[..., 0], product[..., 1])
    return jnp.fft.irfft(jnp.concatenate([constant[..., None], product], -1), n=scales, axis=-1)


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
        self.transformed = False

    def transform(self) -> None:
        """Turns the weights into their spectrum, once, for prediction alone."""
        if self.solver == 'fourier' and not self.transformed:
            # In pieces: slices of one array would be copied in each call.
            spectrum = filter_spectrum(self.weights[...])
            self.weights = nnx.Dict({name: nnx.Param(piece) for name, piece in spectrum._asdict().items()})
            self.transformed = True

    def responses(self, phi: jax.Array) -> jax.Array:
        """Features `[B, K, S, D]` -> the response of every part, class and shift `[B, K, N, S]` (Eq. 6)."""
        if self.transformed:
            respond = spectral_response
            weights = FilterSpectrum(*(self.weights[name][...] for name in FilterSpectrum._fields))
        else:
            respond, weights = partial(circular_response, solver=self.solver), self.weights[...]
        return jax.vmap(respond, in_axes=(1, 0), out_axes=1)(phi, weights)

    def __call__(self, phi: jax.Array) -> ScaleResponse:
        """Features `[B, K, S, D]` -> logits and the shifts of the predicted class."""
        response = self.responses(phi)  # [B, K, N, S]
        logits = response.max(-1).sum(1) + self.bias[...]  # [B, N]
        predicted = logits.argmax(-1)
        of_predicted = jnp.take_along_axis(response, predicted[:, None, None, None], axis=2)[:, :, 0]  # [B, K, S]
        return ScaleResponse(logits, of_predicted.argmax(-1).astype(jnp.int32))
