"""Oriented Pooling (OP, section 3.3 of the paper): max-pooling of a part's map along four orientations."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models.initializers import variance_scaling

Orientation = Literal['literal', 'exact']
ORIENTATIONS = 4


def _patches(feature_map: jax.Array, patch: int, grid: int) -> jax.Array:
    """Splits `[H, W, C]` into grid x grid overlapping patches, each flattened as (h, w, C): `[G, G, P*P*C]`."""
    height, width, _ = feature_map.shape
    steps = [divmod(side - patch, grid - 1) if grid > 1 else (0, side - patch) for side in (height, width)]
    if any(rest or step < 0 for step, rest in steps):
        raise ValueError(f'{grid} x {grid} patches of {patch} x {patch} do not tile a map of {height} x {width} evenly')
    (step_y, _), (step_x, _) = steps
    rows = [
        [feature_map[i * step_y : i * step_y + patch, j * step_x : j * step_x + patch].reshape(-1) for j in range(grid)]
        for i in range(grid)
    ]
    return jnp.stack([jnp.stack(row) for row in rows])


def oriented_features(feature_map: jax.Array, patch: int, grid: int, orientation: Orientation = 'literal') -> jax.Array:
    """The four oriented features of a map (Eq. 9 to 12).

    Args:
      feature_map: `[H, W, C]`.
      patch: P, side of a patch in cells.
      grid: G, number of patches per side; their corners are (H - P) / (G - 1) cells apart.
      orientation: 'literal' pools the patches as printed: over the columns (Gamma_h), over the rows (Gamma_v), and
        both in reverse order. 'exact' takes Gamma_h of the map rotated by 0, 90, 180 and 270 degrees. For 1 x 1
        patches these are the same four features. For larger patches, 'exact' also rotates the content of each patch,
        which makes Eq. 13 invariant to quarter turns of the map.

    Returns:
      `[4, G * P * P * C]` in the order Gamma_h, Gamma_v, Gamma'_h, Gamma'_v (for 'exact': `rot90` applied 0, 1, 2
      and 3 times).

    Raises:
      ValueError: the patches do not tile the map evenly, or the orientation is unknown.
    """
    gammas: Sequence[jax.Array]
    if orientation == 'literal':
        patches = _patches(feature_map, patch, grid)
        horizontal, vertical = patches.max(1), patches.max(0)  # [G, P*P*C]
        gammas = (horizontal, vertical, horizontal[::-1], vertical[::-1])
    elif orientation == 'exact':
        gammas = [_patches(jnp.rot90(feature_map, turns), patch, grid).max(1) for turns in range(ORIENTATIONS)]
    else:
        raise ValueError(f"orientation must be 'literal' or 'exact', not {orientation!r}")
    return jnp.stack([gamma.reshape(-1) for gamma in gammas])


class OrientedResponse(NamedTuple):
    """The result of oriented pooling for a batch of images."""

    logits: jax.Array  # float32 [B, N]
    orientation: jax.Array  # int32 [B, K], best orientation of each part for the predicted class


class OrientedPooling(nnx.Module):
    """Classifies the parts, each at its best orientation (Eq. 13).

    The weights w are shared by all parts and orientations. The logits are summed over parts, with one bias per class.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        patch: int = 3,
        grid: int = 3,
        orientation: Orientation = 'literal',
        *,
        rngs: nnx.Rngs,
    ):
        """Builds the module.

        Args:
          num_features: C, channels of the maps.
          num_classes: N.
          patch, grid, orientation: see `oriented_features`.
          rngs: source of the random weights.
        """
        length = grid * patch * patch * num_features
        # Near zero: with inputs this long, random logits of ordinary size would take long to unlearn.
        init = variance_scaling(1e-4, 'fan_in', 'normal')
        self.weights = nnx.Param(init(rngs.params(), (length, num_classes)))
        self.bias = nnx.Param(jnp.zeros(num_classes))
        self.patch = patch
        self.grid = grid
        self.orientation: Orientation = orientation
        self.classes_first = False

    def transpose_weights(self) -> None:
        """Stores the weights class by class, for prediction only: small batches then read them in half the time."""
        if not self.classes_first:
            self.weights.set_value(self.weights[...].T)
            self.classes_first = True

    def responses(self, maps: jax.Array) -> jax.Array:
        """Aligned maps `[B, K, H, W, C]` -> the response of each part, orientation and class: `[B, K, 4, N]`."""
        pool = lambda x: oriented_features(x, self.patch, self.grid, self.orientation)
        gammas = jax.vmap(jax.vmap(pool))(maps)  # [B, K, 4, L]
        gammas = gammas.astype(jnp.float32)
        if self.classes_first:
            return jnp.moveaxis(jnp.einsum('nl,bkol->nbko', self.weights[...], gammas), 0, -1)
        return gammas @ self.weights[...]

    def __call__(self, maps: jax.Array) -> OrientedResponse:
        """Aligned maps `[B, K, H, W, C]` -> the logits, and the orientations for the predicted class (Eq. 13)."""
        response = self.responses(maps)  # [B, K, 4, N]
        logits = response.max(2).sum(1) + self.bias[...]  # [B, N]
        predicted = logits.argmax(-1)  # [B]
        of_predicted = jnp.take_along_axis(response, predicted[:, None, None, None], axis=3)[..., 0]  # [B, K, 4]
        return OrientedResponse(logits, of_predicted.argmax(-1).astype(jnp.int32))
