"""The paper's baselines: heads that classify the K parts in place of DSM and OP (Tables 4 and 5, and NTS-Net).

| `config.model.part_head` | row in the paper | classifies |
|---|---|---|
| 'gap', 'gmp' | GAP, GMP | the 7 x 7 map of each part, average- or max-pooled |
| 'spp' | SPPNet | the maxima of that map in 4 x 4, 3 x 3, 2 x 2 and 1 x 1 bins |
| 'fpn' | FPN | the average of each part in the level of a feature pyramid that fits its size |
| 'dsm_fixed' | DSM(fixed) | the S scales concatenated: several scales, no alignment |
| 'dsm_1' | DSM(1) | the best of the S scales: alignment, a single scale |
| 'concat' | NTS-Net | the features of the image and its parts, concatenated |

Like DSM, all but 'concat' have separate filters for each part, and sum the logits over parts, with one bias per class.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models.backbones.base import Level
from ssanet_jax.models.feature_pyramid import FeaturePyramid, pyramid_align
from ssanet_jax.models.initializers import LECUN_NORMAL, variance_scaling

SPP_BINS = (4, 3, 2, 1)  # He et al., TPAMI 2015: the pyramid of 30 bins
FPN_LEVELS = 3  # the coarsest levels, strides 8, 16 and 32: those of Lin et al. except their finest
FPN_FEATURES = 256  # an upper limit: no more than the backbone has
NTS_DROPOUT = 0.5

# Near zero, as in oriented pooling: with inputs this long, random logits of ordinary size would take long to unlearn.
_INIT = variance_scaling(1e-4, 'fan_in', 'normal', in_axis=(0, 1), out_axis=2)


class Regions(NamedTuple):
    """The inputs of a baseline head for a batch. The compiler removes the computation of unused ones."""

    image: jax.Array  # [B, C], averaged feature map of the image
    pooled: jax.Array  # [B, K, S, C], averaged map of each candidate; S = 1 unless the head is multiscale
    maps: jax.Array  # [B, K, 7, 7, C], maps of the parts at their original scale
    boxes: jax.Array  # [B, K, 4], the parts at their original scale, pixels
    levels: Sequence[Level]  # the backbone's maps, finest first
    dropout: jax.Array | None = None  # random key; None outside training


class PartHead(Protocol):
    """The interface of a baseline head."""

    multiscale: bool  # whether `Regions.pooled` must have all S scales

    @property
    def bias(self) -> nnx.Param:
        """The bias of each class, `[N]`."""
        ...

    def part_logits(self, regions: Regions) -> jax.Array:
        """The contribution of each part to the logits, without the bias: `[B, K, N]`."""
        ...

    def __call__(self, regions: Regions) -> jax.Array:
        """The logits `[B, N]`."""
        ...


class _LinearHead(nnx.Module):
    """A linear classifier on one feature of each part, which `pool` computes."""

    multiscale = False

    def __init__(self, num_features: int, num_parts: int, num_classes: int, *, rngs: nnx.Rngs):
        self.weights = nnx.Param(_INIT(rngs.params(), (num_parts, num_features, num_classes)))
        self.bias = nnx.Param(jnp.zeros(num_classes))

    def pool(self, regions: Regions) -> jax.Array:
        """Regions -> features of the parts `[B, K, D]`."""
        raise NotImplementedError

    def part_logits(self, regions: Regions) -> jax.Array:
        """See `PartHead`."""
        return jnp.einsum('bkd,kdn->bkn', self.pool(regions).astype(jnp.float32), self.weights[...])

    def __call__(self, regions: Regions) -> jax.Array:
        """Regions -> logits `[B, N]`."""
        pooled = self.pool(regions).astype(jnp.float32)
        return jnp.einsum('bkd,kdn->bn', pooled, self.weights[...]) + self.bias[...]


class PooledHead(_LinearHead):
    """GAP, GMP and SPPNet: a linear classifier on a pooled feature of each part."""

    def __init__(
        self,
        pool: Callable[[Regions], jax.Array],
        num_features: int,
        num_parts: int,
        num_classes: int,
        *,
        rngs: nnx.Rngs,
    ):
        """Builds the head.

        Args:
          pool: regions -> features of the parts `[B, K, D]`.
          num_features: D.
          num_parts: K.
          num_classes: N.
          rngs: source of the random weights.
        """
        super().__init__(num_features, num_parts, num_classes, rngs=rngs)
        self._pool = pool

    def pool(self, regions: Regions) -> jax.Array:
        """Regions -> features of the parts `[B, K, D]`."""
        return self._pool(regions)


class FixedScales(_LinearHead):
    """DSM(fixed): each scale has its own filter and there is no alignment. This is Eq. 7 at shift 0 only."""

    multiscale = True

    def __init__(self, channels: int, num_parts: int, num_scales: int, num_classes: int, *, rngs: nnx.Rngs):
        super().__init__(channels * num_scales, num_parts, num_classes, rngs=rngs)

    def pool(self, regions: Regions) -> jax.Array:
        """Regions -> the concatenated scales of each part `[B, K, S * C]`."""
        return regions.pooled.reshape(*regions.pooled.shape[:2], -1)


class BestScale(nnx.Module):
    """DSM(1): one filter per part, applied at every scale; the max per part and class, as in Eq. 7."""

    multiscale = True

    def __init__(self, channels: int, num_parts: int, num_classes: int, *, rngs: nnx.Rngs):
        self.weights = nnx.Param(_INIT(rngs.params(), (num_parts, channels, num_classes)))
        self.bias = nnx.Param(jnp.zeros(num_classes))

    def part_logits(self, regions: Regions) -> jax.Array:
        """See `PartHead`."""
        return jnp.einsum('bksd,kdn->bksn', regions.pooled.astype(jnp.float32), self.weights[...]).max(2)

    def __call__(self, regions: Regions) -> jax.Array:
        """Regions -> logits `[B, N]`."""
        return self.part_logits(regions).sum(1) + self.bias[...]


class PyramidHead(_LinearHead):
    """FPN: each part is averaged in the level of a feature pyramid that fits its size (Lin et al., CVPR 2017)."""

    def __init__(
        self, channels: Sequence[int], num_parts: int, num_classes: int, clamp: bool = True, *, rngs: nnx.Rngs
    ):
        """Builds the head; `channels` are those of the backbone's maps, finest first. `clamp`: see `roi_align`."""
        num_features = min(FPN_FEATURES, channels[-1])
        super().__init__(num_features, num_parts, num_classes, rngs=rngs)
        self.clamp = clamp
        self.pyramid = FeaturePyramid(channels[-FPN_LEVELS:], num_features, rngs=rngs)

    def pool(self, regions: Regions) -> jax.Array:
        """Regions -> features of the parts `[B, K, F]`, each from its level."""
        levels = regions.levels[-FPN_LEVELS:]
        maps = self.pyramid([level.map for level in levels])
        strides, centers = [level.stride for level in levels], [level.center for level in levels]
        return pyramid_align(maps, strides, centers, regions.boxes, 1, self.clamp)[:, :, 0, 0]  # [B, K, F]


class ConcatHead(nnx.Module):
    """NTS-Net's classifier of the concatenated features of image and parts, with dropout in training only."""

    multiscale = False

    def __init__(self, channels: int, num_parts: int, num_classes: int, *, rngs: nnx.Rngs):
        self.classifier = nnx.Linear((num_parts + 1) * channels, num_classes, kernel_init=LECUN_NORMAL, rngs=rngs)

    @property
    def bias(self) -> nnx.Param:
        """The bias of each class, `[N]`."""
        assert self.classifier.bias is not None  # nnx.Linear has one by default
        return self.classifier.bias

    def part_logits(self, regions: Regions) -> jax.Array:
        """See `PartHead`; without the contribution of the image."""
        parts = regions.pooled[:, :, 0].astype(jnp.float32)  # [B, K, C]
        kernel = self.classifier.kernel[...].reshape(-1, parts.shape[-1], self.classifier.out_features)
        return jnp.einsum('bkd,kdn->bkn', parts, kernel[1:])

    def __call__(self, regions: Regions) -> jax.Array:
        """Regions -> logits `[B, N]`."""
        both = jnp.concatenate([regions.image[:, None], regions.pooled[:, :, 0]], 1).astype(jnp.float32)
        both = both.reshape(both.shape[0], -1)  # [B, (K + 1) * C]
        if regions.dropout is not None:
            kept = jax.random.bernoulli(regions.dropout, 1 - NTS_DROPOUT, both.shape)
            both = jnp.where(kept, both / (1 - NTS_DROPOUT), 0)
        return self.classifier(both)


def spatial_pyramid(maps: jax.Array, bins: Sequence[int] = SPP_BINS) -> jax.Array:
    """Spatial pyramid pooling: the maxima in n x n bins for each n (He et al., TPAMI 2015).

    Bin i of n spans the rows from floor(i H / n) to ceil((i + 1) H / n), and the columns likewise.

    Args:
      maps: `[..., H, W, C]`.
      bins: the values of n.

    Returns:
      `[..., sum of n * n * C]`: the grids in the order of `bins`, each flattened as (row, column, C).
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
    name: str,
    channels: Sequence[int],
    num_parts: int,
    num_scales: int,
    num_classes: int,
    clamp: bool = True,
    *,
    rngs: nnx.Rngs,
) -> PartHead:
    """Builds a baseline head by its name in `config.model.part_head`.

    Args:
      name: see the table at the top of this file.
      channels: channels of the backbone's maps, finest first; the last one is C.
      num_parts: K.
      num_scales: S.
      num_classes: N.
      clamp: see `sharing.roi_align`.
      rngs: source of the random weights.

    Raises:
      ValueError: the name is unknown.
    """
    last = channels[-1]
    pooled = lambda pool, num_features: lambda: PooledHead(pool, num_features, num_parts, num_classes, rngs=rngs)
    heads: dict[str, Callable[[], PartHead]] = {
        'gap': pooled(lambda regions: regions.pooled[:, :, 0], last),
        'gmp': pooled(lambda regions: regions.maps.max((2, 3)), last),
        'spp': pooled(lambda regions: spatial_pyramid(regions.maps), last * sum(n * n for n in SPP_BINS)),
        'fpn': lambda: PyramidHead(channels, num_parts, num_classes, clamp, rngs=rngs),
        'dsm_fixed': lambda: FixedScales(last, num_parts, num_scales, num_classes, rngs=rngs),
        'dsm_1': lambda: BestScale(last, num_parts, num_classes, rngs=rngs),
        'concat': lambda: ConcatHead(last, num_parts, num_classes, rngs=rngs),
    }
    if name not in heads:
        raise ValueError(f'unknown part_head {name!r}: choose one of {", ".join(heads)}, or none')
    return heads[name]()
