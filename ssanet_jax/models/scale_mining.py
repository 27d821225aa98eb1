"""Discriminative Scale Mining (DSM, section 3.2 of the paper): all scale shifts at once by a circulant matrix."""

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models.initializers import variance_scaling
from ssanet_jax.models.standardize import Standardize

Solver = Literal['fourier', 'circulant']


def circular_response(features: jax.Array, weights: jax.Array, solver: Solver = 'fourier') -> jax.Array:
    """The response of each class at each scale shift (Eq. 6, and Eq. 7 before its max).

    `y_r = sum_k sum_n phi^n(k) w^{(n + r) mod S}(k)`: the circulant matrix of the features (Eq. 6) times the filter.
    'circulant' builds that matrix. 'fourier' computes `irfft(sum_k conj(rfft(phi)) * rfft(w))` along the scale axis
    (see `spectral_response`).

    Args:
      features: `[..., S, D]`, phi.
      weights: `[N, S, D]`, the filters w of N classes.
      solver: 'fourier' or 'circulant'.

    Returns:
      `[..., N, S]`; the last axis is the shift r.

    Raises:
      ValueError: the scales or channels of features and weights differ, or the solver is unknown.
    """
    scales, channels = features.shape[-2:]
    if weights.shape[1:] != (scales, channels):
        raise ValueError(
            f'features have {(scales, channels)} scales and channels, but weights have {weights.shape[1:]}'
        )
    if solver == 'circulant':
        shifted = (jnp.arange(scales)[:, None] + jnp.arange(scales)) % scales  # [r, n]
        return jnp.einsum('...nk,crnk->...cr', features, weights[:, shifted])
    if solver == 'fourier':
        return spectral_response(features, filter_spectrum(weights))
    raise ValueError(f"solver must be 'fourier' or 'circulant', not {solver!r}")


def real_spectrum(x: jax.Array) -> jax.Array:
    """The Fourier transform along the scales, as real numbers: `[..., S, D]` -> float32 `[..., S, D]`, S odd.

    The rows are Re 0, Re 1, Im 1, Re 2, Im 2, ... The spectrum of a real signal has no other independent values.
    """
    z = jnp.fft.rfft(x.astype(jnp.float32), axis=-2)  # [..., (S + 1) / 2, D]
    pairs = jnp.stack([z.real[..., 1:, :], z.imag[..., 1:, :]], -2)  # [..., (S - 1) / 2, 2, D]
    return jnp.concatenate([z.real[..., :1, :], pairs.reshape(*z.shape[:-2], -1, z.shape[-1])], -2)


class FilterSpectrum(NamedTuple):
    """The spectrum of N filters, stored contiguously per frequency, as the products of `spectral_response` read it."""

    constant: jax.Array  # [..., N, D], frequency 0
    real: jax.Array  # [..., (S - 1) / 2, N, D], the other frequencies
    imag: jax.Array  # [..., (S - 1) / 2, N, D]


def filter_spectrum(weights: jax.Array) -> FilterSpectrum:
    """The spectrum of filters `[..., N, S, D]` along their scales, float32; S is odd."""
    rows = jnp.swapaxes(real_spectrum(weights), -3, -2)  # [..., S, N, D]
    return FilterSpectrum(rows[..., 0, :, :], rows[..., 1::2, :, :], rows[..., 2::2, :, :])


def spectral_response(features: jax.Array, spectrum: FilterSpectrum) -> jax.Array:
    """`circular_response` in the Fourier domain, for filters that are already transformed.

    The sum over channels comes before the inverse transform, so there is one transform of length S per class. The
    product at frequency 0 is real, and each of the other (S - 1) / 2 takes four real products: 9 in total for S = 5,
    where the circulant matrix takes 25.

    Args:
      features: `[..., S, D]`, phi.
      spectrum: `filter_spectrum(w)` of filters `[N, S, D]`.

    Returns:
      `[..., N, S]`.
    """
    phi = real_spectrum(features)
    *batch, scales, channels = phi.shape
    constant = jnp.einsum('...k,ck->...c', phi[..., 0, :], spectrum.constant)
    phi = phi[..., 1:, :].reshape(*batch, -1, 2, channels)  # [..., f, (Re, Im), D]
    rotated = jnp.stack([-phi[..., 1, :], phi[..., 0, :]], -2)  # i * phi
    both = jnp.stack([phi, rotated], -3)  # [..., f, q, (Re, Im), D]: q selects Re or Im of conj(phi) * w
    filters = (spectrum.real, spectrum.imag)
    product: Any = sum(jnp.einsum('...fqk,fck->...cfq', both[..., z, :], filters[z]) for z in (0, 1))
    product = jax.lax.complex(product[..., 0], product[..., 1])
    return jnp.fft.irfft(jnp.concatenate([constant[..., None], product], -1), n=scales, axis=-1)


def aligned_scale(shift: jax.Array, scales: int) -> jax.Array:
    """The candidate that a shift r pairs with the central filter: `((S - 1) / 2 - r) mod S`.

    Row r of the circulant matrix (Eq. 6) pairs candidate n with filter (n + r) mod S.

    Args:
      shift: int32 `[B, K]`, in 0..S-1.
      scales: S.

    Returns:
      int32 `[B, K]`, index of the candidate.
    """
    return ((scales - 1) // 2 - shift) % scales


class ScaleResponse(NamedTuple):
    """The result of scale mining for a batch of images."""

    logits: jax.Array  # float32 [B, N]
    shift: jax.Array  # int32 [B, K], best scale shift of each part for the predicted class


class ScaleMining(nnx.Module):
    """Classifies K parts at S scales, each part at its best scale shift (Eq. 7).

    The max over shifts is taken per part and class, after the sum over channels; its gradient passes through the
    selected shift only (Eq. 8). The logits are summed over parts, with one bias per class.
    """

    def __init__(
        self,
        num_parts: int,
        num_scales: int,
        num_features: int,
        num_classes: int,
        solver: Solver = 'fourier',
        *,
        standardize: bool = False,
        rngs: nnx.Rngs,
    ):
        """Builds the module.

        Args:
          num_parts: K.
          num_scales: S, odd.
          num_features: D.
          num_classes: N.
          solver: see `circular_response`.
          standardize: whether features are standardized first, each scale of each part by itself.
          rngs: source of the random weights.
        """
        init = variance_scaling(1.0, 'fan_in', 'normal', in_axis=(0, 2, 3), out_axis=1)
        # [K, N, S, D]; `precompute_spectrum` replaces it with the fields of a `FilterSpectrum`.
        self.weights: nnx.Param | nnx.Dict = nnx.Param(
            init(rngs.params(), (num_parts, num_classes, num_scales, num_features))
        )
        self.bias = nnx.Param(jnp.zeros(num_classes))
        self.solver: Solver = solver
        self.standardize = Standardize((num_parts, num_scales, num_features)) if standardize else None

    def precompute_spectrum(self) -> None:
        """Replaces the weights by their spectrum, for prediction only."""
        if self.solver == 'fourier' and not isinstance(self.weights, nnx.Dict):
            # One parameter per field: slices of a single array would be copied in each call.
            spectrum = filter_spectrum(self.weights[...])
            self.weights = nnx.Dict({name: nnx.Param(value) for name, value in spectrum._asdict().items()})

    def responses(self, phi: jax.Array) -> jax.Array:
        """Features `[B, K, S, D]` -> the response of each part, class and shift (Eq. 6): `[B, K, N, S]`."""
        if self.standardize is not None:
            phi = self.standardize(phi)
        if isinstance(self.weights, nnx.Dict):
            spectrum = FilterSpectrum(*(self.weights[name][...] for name in FilterSpectrum._fields))
            return jax.vmap(spectral_response, in_axes=(1, 0), out_axes=1)(phi, spectrum)
        respond = partial(circular_response, solver=self.solver)
        return jax.vmap(respond, in_axes=(1, 0), out_axes=1)(phi, self.weights[...])

    def __call__(self, phi: jax.Array) -> ScaleResponse:
        """Features `[B, K, S, D]` -> the logits, and the shifts for the predicted class (Eq. 7)."""
        response = self.responses(phi)  # [B, K, N, S]
        logits = response.max(-1).sum(1) + self.bias[...]  # [B, N]
        predicted = logits.argmax(-1)  # [B]
        of_predicted = jnp.take_along_axis(response, predicted[:, None, None, None], axis=2)[:, :, 0]  # [B, K, S]
        return ScaleResponse(logits, of_predicted.argmax(-1).astype(jnp.int32))
