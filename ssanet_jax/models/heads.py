"""The paper's baselines: what else may read the K parts, in place of DSM and OP (Tables 4 and 5, and NTS-Net).

| `config.model.part_head` | row of the paper | what it classifies |
|---|---|---|
| 'gap', 'gmp' | GAP, GMP | each part's 7 x 7 map, averaged or maxed |
| 'spp' | SPPNet | its maxima in 4 x 4, 3 x 3, 2 x 2 and 1 x 1 bins |
| 'fpn' | FPN | its average, from the level of a feature pyramid that fits its size |
| 'dsm_fixed' | DSM(fixed) | the S scales side by side: several scales, no alignment |
| 'dsm_1' | DSM(1) | the best of the S scales: alignment, one scale |
| 'concat' | NTS-Net | the image and its parts side by side |

All but 'concat' have filters for each part, as DSM has, and sum over parts with one bias a class.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models.backbones.base import Level
from ssanet_jax.models.feature_pyramid import FeaturePyramid, pyramid_align

SPP_BINS = (4, 3, 2, 1)  # He et al., TPAMI 2015: the pyramid of 30 bins
FPN_LEVELS = 3  # the coarsest ones: strides 8, 16 and 32, as Lin et al. have above their finest
FPN_FEATURES = 256  # at most: no more than the backbone's own
NTS_DROPOUT = 0.5

# Near zero, as in oriented pooling: the longer the vector, the more would random answers drown the right ones.
_INIT = nnx.initializers.variance_scaling(1e-4, 'fan_in', 'normal', in_axis=(0, 1), out_axis=2)


class Regions(NamedTuple):
    """What a head may read of a batch. What it does not read, the compiler drops."""

    image: jax.Array  # [B, C], the map of the image, averaged
    pooled: jax.Array  # [B, K, S, C], the map of each candidate, averaged; S = 1 for a head that is not multiscale
    maps: jax.Array  # [B, K, 7, 7, C], of the parts at their original scale
    boxes: jax.Array  # [B, K, 4], those parts, pixels
    levels: Sequence[Level]  # the backbone's maps, finest first
    dropout: jax.Array | None = None  # random key; None outside training


class PooledHead(nnx.Module):
    """A linear classifier on what is pooled from each part."""

    multiscale = False

    def __init__(
        self, pool: Callable[[Regions], jax.Array] | None, length: int, parts: int, classes: int, *, rngs: nnx.Rngs
    ):
        """Args: pool: regions -> `[B, K, length]`, without weights of its own."""
        self._pool = pool
        self.weights = nnx.Param(_INIT(rngs.params(), (parts, length, classes)))
        self.bias = nnx.Param(jnp.zeros(classes))

    def pool(self, regions: Regions) -> jax.Array:
        """Regions -> `[B, K, length]`."""
        return self._pool(regions)

    def part_logits(self, regions: Regions) -> jax.Array:
        """What each part adds to the logits: `[B, K, N]`, without the bias."""
        return jnp.einsum('bkd,kdn->bkn', self.pool(regions).astype(jnp.float32), self.weights[...])

    def __call__(self, regions: Regions) -> jax.Array:
        """Regions -> logits `[B, N]`."""
        pooled = self.pool(regions).astype(jnp.float32)
        return jnp.einsum('bkd,kdn->bn', pooled, self.weights[...]) + self.bias[...]


class FixedScales(PooledHead):
    """DSM(fixed): every filter stays at its own scale, so nothing is aligned. It is Eq. 7 at shift 0 alone."""

    multiscale = True

    def __init__(self, channels: int, parts: int, scales: int, classes: int, *, rngs: nnx.Rngs):
        side_by_side = lambda regions: regions.pooled.reshape(*regions.pooled.shape[:2], -1)  # [B, K, S * C]
        super().__init__(side_by_side, channels * scales, parts, classes, rngs=rngs)


class BestScale(nnx.Module):
    """DSM(1): one filter for each part, tried at every scale; the max per part and class, as in Eq. 7."""

    multiscale = True

    def __init__(self, channels: int, parts: int, classes: int, *, rngs: nnx.Rngs):
        self.weights = nnx.Param(_INIT(rngs.params(), (parts, channels, classes)))
        self.bias = nnx.Param(jnp.zeros(classes))

    def part_logits(self, regions: Regions) -> jax.Array:
        """What each part adds to the logits: `[B, K, N]`, without the bias."""
        return jnp.einsum('bksd,kdn->bksn', regions.pooled.astype(jnp.float32), self.weights[...]).max(2)

    def __call__(self, regions: Regions) -> jax.Array:
        """Regions -> logits `[B, N]`."""
        return self.part_logits(regions).sum(1) + self.bias[...]


class PyramidHead(PooledHead):
    """FPN: each part is averaged from the level of a feature pyramid that fits its size (Lin et al., CVPR 2017)."""

    def __init__(self, channels: Sequence[int], parts: int, classes: int, *, rngs: nnx.Rngs):
        """Args: channels: of the backbone's maps, finest first."""
        features = min(FPN_FEATURES, channels[-1])
        super().__init__(None, features, parts, classes, rngs=rngs)
        self.pyramid = FeaturePyramid(channels[-FPN_LEVELS:], features, rngs=rngs)

    def pool(self, regions: Regions) -> jax.Array:
        """Regions -> `[B, K, features]`, each part from its level."""
        levels = regions.levels[-FPN_LEVELS:]
        maps = self.pyramid([level.map for level in levels])
        strides, centres = [level.stride for level in levels], [level.centre for level in levels]
        return pyramid_align(maps, strides, centres, regions.boxes, 1)[:, :, 0, 0]  # [B, K, F]


class ConcatHead(nnx.Module):
    """NTS-Net's own prediction: image and parts side by side, with dropout in training only."""

    multiscale = False

    def __init__(self, channels: int, parts: int, classes: int, *, rngs: nnx.Rngs):
        self.classifier = nnx.Linear((parts + 1) * channels, classes, rngs=rngs)

    @property
    def bias(self) -> nnx.Param:
        return self.classifier.bias

    def part_logits(self, regions: Regions) -> jax.Array:
        """What each part adds to the logits: `[B, K, N]`, without the bias and without the image's share."""
        parts = regions.pooled[:, :, 0].astype(jnp.float32)  # [B, K, C]
        kernel = self.classifier.kernel[...].reshape(-1, parts.shape[-1], self.classifier.out_features)
        return jnp.einsum('bkd,kdn->bkn', parts, kernel[1:])

    def __call__(self, regions: Regions) -> jax.Array:
        """Regions -> logits `[B, N]`."""
        both = jnp.concatenate([regions.image[:, None], regions.pooled[:, :, 0]], 1).astype(jnp.float32)
        both = both.reshape(len(both), -1)  # [B, (K + 1) * C]
        if regions.dropout is not None:
            kept = jax.random.bernoulli(regions.dropout, 1 - NTS_DROPOUT, both.shape)
            both = jnp.where(kept, both / (1 - NTS_DROPOUT), 0)
        return self.classifier(both)


def spatial_pyramid(maps: jax.Array, bins: Sequence[int] = SPP_BINS) -> jax.Array:
    """Spatial pyramid pooling: maxima in n x n bins for each n (He et al., TPAMI 2015).

    Bin i of n reaches from row floor(i H / n) to ceil((i + 1) H / n), columns likewise.

    Args:
      maps: `[..., H, W, C]`.
      bins: each n.

    Returns:
      `[..., sum of n * n * C]`, the grids in the order of `bins`, each row by row as (row, column, C).
    """
    *batch, height, width, _ = maps.shape
    edges = lambda side, n: [(i * side // n, -(-(i + 1) * side // n)) for i in range(n)]
    cells = [
        maps[..., top:bottom, left:right, :].max((-3, -2))
        for n in bins
        for top, bottom in edges(height, n)
        for left, right in edges(width, n)
    ]
    return jnp.stack(cells, -2).reshape(*batch, -1)


def build_head(
    name: str, channels: Sequence[int], parts: int, scales: int, classes: int, *, rngs: nnx.Rngs
) -> nnx.Module:
    """A baseline head by its name in `config.model.part_head`.

    Args:
      name: see the table above.
      channels: of the backbone's maps, finest first; the last is C.
      parts, scales, classes: K, S and N.

    Returns:
      A module `Regions -> logits [B, N]`; its attribute `multiscale` says whether it wants all S candidates.

    Raises:
      ValueError: there is no head of that name.
    """
    last = channels[-1]
    pooled = lambda pool, length: lambda: PooledHead(pool, length, parts, classes, rngs=rngs)
    heads = {
        'gap': pooled(lambda regions: regions.pooled[:, :, 0], last),
        'gmp': pooled(lambda regions: regions.maps.max((2, 3)), last),
        'spp': pooled(lambda regions: spatial_pyramid(regions.maps), last * sum(n * n for n in SPP_BINS)),
        'fpn': lambda: PyramidHead(channels, parts, classes, rngs=rngs),
        'dsm_fixed': lambda: FixedScales(last, parts, scales, classes, rngs=rngs),
        'dsm_1': lambda: BestScale(last, parts, classes, rngs=rngs),
        'concat': lambda: ConcatHead(last, parts, classes, rngs=rngs),
    }
    if name not in heads:
        raise ValueError(f'there is no part_head {name!r}: choose from {", ".join(heads)}, or none')
    return heads[name]()
