"""SSANet, assembled. `SSANet.__call__` reads top to bottom like Figure 1 of the paper."""

from collections.abc import Collection, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models import candidates, oriented_pooling, scale_mining
from ssanet_jax.models.anchors import anchor_boxes
from ssanet_jax.models.backbones import registry
from ssanet_jax.models.heads import Regions, build_head
from ssanet_jax.models.outputs import Outputs, PartFeatures
from ssanet_jax.models.proposals import ProposalNetwork, top_boxes
from ssanet_jax.models.sharing import REGION, MapCandidates, Sharing, crop_maps, part_maps, roi_align

# The groups of parameters that a stage of training names; each is an attribute of SSANet.
GROUPS = ('backbone', 'proposals', 'part_classifier', 'image_classifier', 'scale_mining', 'oriented_pooling')
BASELINE = 'part_head'  # one more, where a head of `models/heads.py` is asked for


class SSANet(nnx.Module):
    """Spatial-Scale Aligned Network (Gao et al.).

    Args:
      num_classes: N.
      image_size: side of the input, pixels.
      backbone: name in `registry.BACKBONES`.
      num_parts: K, the parts used for recognition.
      num_proposals: M >= K, the boxes ranked in training.
      num_scales: S, odd.
      alpha: ratio of the sides between neighbouring scales.
      nms_iou: overlap from which a proposal is suppressed.
      sharing: where the features of a region come from (`models/sharing.py`). 'none': each region is cropped
        from the image and passed through the backbone (the paper); 'part': one crop for all scales of a part;
        'image': RoIAlign from the image's own map.
      dilate: the backbone's maps at twice the resolution, for 'part' and 'image': regions are described in
        finer cells.
      remat: keep less of the crops of 'none' and 'part' for the backward pass, which then takes longer: their
        passes through the backbone are what fills the memory in training.
      crop_size: side of the crops, pixels. Those of 'none' must make a 7 x 7 map; those of 'part' hold the largest
        of the scales.
      features: 'pooled' averages a region's map, 'flat' keeps all of it for DSM (Figure 3).
      solver: of DSM, 'fourier' or 'circulant'.
      patch, grid, orientation: of OP.
      part_head: a baseline that reads the parts too, by its name in `models/heads.py`, or 'none'.
      fusion: what the prediction sums: 'parts' (the paper: "P" in its Table 6), or 'global+parts',
        which adds the image classifier ("G+P", as most of the methods in that table do).
      dtype: of the backbone's computation; parameters stay float32.
      mean, std: per RGB channel, in 0..255: the backbone takes (pixel - mean) / std. Its own by default.

    Raises:
      ValueError: for arguments that do not fit together.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: int,
        *,
        backbone: str = 'resnet50',
        num_parts: int = 4,
        num_proposals: int = 6,
        num_scales: int = 5,
        alpha: float = 2 ** (1 / 3),
        nms_iou: float = 0.25,
        sharing: Sharing = 'image',
        output_stride: int = 0,
        remat: bool = False,
        crop_size: int = 224,
        features: Literal['pooled', 'flat'] = 'pooled',
        solver: scale_mining.Solver = 'fourier',
        patch: int = 3,
        grid: int = 3,
        orientation: oriented_pooling.Orientation = 'literal',
        part_head: str = 'none',
        fusion: Literal['parts', 'global+parts'] = 'parts',
        dtype: str = 'float32',
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        rngs: nnx.Rngs,
    ):
        for name, value, allowed in (
            ('sharing', sharing, get_args(Sharing)),
            ('fusion', fusion, ('parts', 'global+parts')),
            ('features', features, ('pooled', 'flat')),
        ):
            if value not in allowed:
                raise ValueError(f'{name} must be one of {", ".join(allowed)}; got {value!r}')
        if not 1 <= num_parts <= num_proposals:
            raise ValueError(f'num_parts must lie between 1 and num_proposals = {num_proposals}; got {num_parts}')
        if not jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
            raise ValueError(f'dtype must be float32 or bfloat16, not {dtype}')
        if not 0 < nms_iou <= 1:
            raise ValueError(f'nms_iou must lie in (0, 1]; got {nms_iou}')
        if patch < 1 or grid < 1:
            raise ValueError(f'patch and grid must be at least 1; got {patch} and {grid}')
        candidates.scale_factors(num_scales, alpha)  # an even S should fail here, not in the first batch

        self.image_size = image_size
        self.num_parts, self.num_proposals, self.num_scales, self.alpha = num_parts, num_proposals, num_scales, alpha
        self.nms_iou, self.sharing, self.crop_size, self.flat = nms_iou, sharing, crop_size, features == 'flat'
        self.remat, self.fuse_global = remat, fusion == 'global+parts'

        self.backbone = registry.build_backbone(backbone, rngs, jnp.dtype(dtype), output_stride)
        self.mean = tuple(self.backbone.mean if mean is None else mean)
        self.std = tuple(self.backbone.std if std is None else std)
        channels = self.backbone.num_features
        # The proposal network reads every other cell of a dilated map, which are those that the map had before.
        self.every = 2 if self.backbone.dilated else 1
        self.anchor_stride = self.every * self.backbone.stride
        self._check_regions(backbone, part_head)
        self._check_map(backbone)
        self.proposals = ProposalNetwork(channels, rngs=rngs)
        self.part_classifier = nnx.Linear(channels, num_classes, rngs=rngs)
        self.image_classifier = nnx.Linear(channels, num_classes, rngs=rngs)
        length = channels * REGION**2 if features == 'flat' else channels
        self.scale_mining = scale_mining.ScaleMining(num_parts, num_scales, length, num_classes, solver, rngs=rngs)
        self.oriented_pooling = oriented_pooling.OrientedPooling(
            channels, num_classes, patch, grid, orientation, rngs=rngs
        )
        # The last to draw its weights, so that the other groups start alike with any head.
        levels = self.backbone.pyramid_features
        self.part_head = (
            None
            if part_head == 'none'
            else build_head(part_head, levels, num_parts, num_scales, num_classes, rngs=rngs)
        )

        # Traced, not run: patches that do not tile the map, or an unknown solver, should fail here too.
        _traced(self.scale_mining, (1, num_parts, num_scales, length))
        _traced(self.oriented_pooling, (1, num_parts, REGION, REGION, channels))

    def __call__(
        self,
        images: jax.Array,
        *,
        active: Collection[str] = GROUPS,
        training: bool = False,
        map_candidates: MapCandidates = lambda describe: describe,
    ) -> Outputs:
        """Recognises a batch of images: finds and describes its parts, then classifies them.

        Args:
          images: uint8 `[B, image_size, image_size, 3]`, RGB.
          active: the groups that take part: those trained so far. An untrained head would only
            add noise, so it is neither computed nor summed.
          training: also describe and classify the M - K proposals that are only ranked.
          map_candidates: spreads the features of regions over devices (`parallel.candidate_map`).
        """
        features = self.extract_features(images, active=active, training=training, map_candidates=map_candidates)
        return self.classify(features, active=active)

    def extract_features(
        self,
        images: jax.Array,
        *,
        active: Collection[str] = GROUPS,
        training: bool = False,
        map_candidates: MapCandidates = lambda describe: describe,
    ) -> PartFeatures:
        """The first half of `__call__`: all that needs the backbone, and the choice of parts and scales."""
        images = self._normalize(images)
        levels = self.backbone.pyramid(images)
        feature_map = levels[-1].map  # [B, h, w, C]
        features = PartFeatures(feature_map.mean((1, 2)))
        if 'proposals' not in active:
            return features

        # Morphological Alignment Constraints: the proposals, and the parts that they describe.
        anchors = anchor_boxes(self.image_size, self.anchor_stride)
        all_scores = self.proposals(feature_map[:, :: self.every, :: self.every])  # [B, A]
        select = lambda scores: top_boxes(scores, anchors, self.num_proposals, self.nms_iou)
        indices, boxes = jax.vmap(select)(jax.lax.stop_gradient(all_scores))  # [B, M], [B, M, 4]
        features = features._replace(scores=jnp.take_along_axis(all_scores, indices, 1), boxes=boxes)

        # Discriminative Scale Mining: S candidates of each part, the best shift of them.
        mined, head = 'scale_mining' in active, self.part_head if BASELINE in active else None
        scales = self.num_scales if mined or (head and head.multiscale) else 1
        middle = (scales - 1) // 2
        propose = lambda parts: candidates.scale_candidates(parts, scales, self.alpha)
        parts = jax.vmap(propose)(boxes[:, : self.num_parts])  # [B, K, S, 4]
        ranked = boxes[:, self.num_parts :] if training else None
        maps, ranked_maps = self._region_maps(images, feature_map, parts, ranked, map_candidates)
        if mined:
            phi = maps.reshape(*maps.shape[:3], -1) if self.flat else maps.mean((3, 4))  # [B, K, S, D]
            aligned = scale_mining.aligned_scale(self._mine(phi).shift, scales)  # [B, K]
            features = features._replace(phi=phi)
        else:
            aligned = jnp.full(parts.shape[:2], middle, jnp.int32)
        aligned_boxes = _select(parts, aligned)
        features = features._replace(aligned_scale=aligned, aligned_boxes=aligned_boxes)

        # Oriented Pooling reads the map of each part at the scale to which it was aligned.
        if 'oriented_pooling' in active:
            whole = maps.shape[-2] == REGION
            aligned_maps = _select(maps, aligned) if whole else self._align(feature_map, aligned_boxes, REGION)
            features = features._replace(aligned_maps=aligned_maps)  # [B, K, 7, 7, C]

        original = maps[:, :, middle]  # [B, K, s, s, C]
        if head:
            whole = original.shape[-2] == REGION
            regions = Regions(
                image=features.image,
                pooled=maps.mean((3, 4)) if head.multiscale else original.mean((2, 3))[:, :, None],
                maps=original if whole else self._align(feature_map, parts[:, :, middle], REGION),
                boxes=parts[:, :, middle],
                levels=levels,
            )
            features = features._replace(regions=regions)

        # Training adds the part classifier on all M proposals at their original scale.
        if training:
            pooled = jnp.concatenate([original, ranked_maps], 1).mean((2, 3))  # [B, M, C]
            features = features._replace(pooled=pooled)
        return features

    def classify(
        self, features: PartFeatures, *, active: Collection[str] = GROUPS, dropout: jax.Array | None = None
    ) -> Outputs:
        """The second half of `__call__`: what the classifiers say of a features.

        Args:
          features, active: of `extract_features`.
          dropout: random key for a head that has dropout; None for none.
        """
        outputs = Outputs(self.image_classifier(features.image.astype(jnp.float32)))
        if 'proposals' not in active:
            return outputs
        outputs = outputs._replace(
            scores=features.scores,
            boxes=features.boxes,
            aligned_boxes=features.aligned_boxes,
            aligned_scale=features.aligned_scale,
        )
        if self.fuse_global and 'image_classifier' in active:
            outputs = outputs._replace(global_logits=outputs.image_logits)
        if 'scale_mining' in active:
            # The compiler merges this with the call that aligned the parts, where both are in one program.
            outputs = outputs._replace(scale_logits=self._mine(features.phi).logits)
        if 'oriented_pooling' in active:
            oriented = self.oriented_pooling(features.aligned_maps)
            outputs = outputs._replace(oriented_logits=oriented.logits, orientation=oriented.orientation)
        if features.regions is not None:
            outputs = outputs._replace(head_logits=self.part_head(features.regions._replace(dropout=dropout)))
        if features.pooled is not None:
            pooled = features.pooled.astype(jnp.float32)
            outputs = outputs._replace(part_features=pooled, part_logits=self.part_classifier(pooled))
        return outputs

    def _mine(self, phi: jax.Array) -> scale_mining.ScaleResponse:
        return self.scale_mining(phi.astype(jnp.float32))

    def _check_map(self, backbone: str) -> None:
        """Raises `ValueError` where the backbone drops a rim of the image, which the anchors would then miss."""
        stride, size = self.anchor_stride, self.image_size
        if size % stride == 0:
            return
        if self.every > 1:
            raise ValueError(
                f'the image size must be a multiple of {stride} for output_stride {self.backbone.stride} of {backbone};'
                f' got {size}'
            )
        cells = _traced(self.backbone, (1, size, size, 3)).shape[1]
        if cells != -(-size // stride):
            raise ValueError(f'the image size must be a multiple of {stride} for {backbone}; got {size}')

    def _check_regions(self, backbone: str, part_head: str) -> None:
        """Raises `ValueError` for regions that cannot be proposed, or described in the way asked for."""
        anchors = len(anchor_boxes(self.image_size, self.anchor_stride))
        if self.num_proposals > anchors:
            raise ValueError(
                f'num_proposals must be at most {anchors}, the boxes of an image of {self.image_size}; '
                f'got {self.num_proposals}'
            )
        if self.sharing == 'none' and self.every > 1:
            raise ValueError("output_stride is for sharing='part' and 'image': the crops of 'none' fill a map anyway")
        side = REGION * self.backbone.stride
        if self.sharing == 'none' and self.crop_size != side:
            raise ValueError(
                f'crop_size must be {side}, for a {REGION} x {REGION} map of {backbone}; got {self.crop_size}'
            )
        if self.sharing == 'part' and (self.crop_size < 1 or self.crop_size % self.anchor_stride):
            raise ValueError(
                f'crop_size must be a multiple of {self.anchor_stride} for {backbone}; got {self.crop_size}'
            )
        if part_head == 'fpn' and self.sharing != 'image':
            raise ValueError("part_head='fpn' reads the maps of the image: it needs sharing='image'")

    def _normalize(self, images: jax.Array) -> jax.Array:
        return (images.astype(jnp.float32) - jnp.array(self.mean)) / jnp.array(self.std)

    def _region_maps(
        self,
        images: jax.Array,
        feature_map: jax.Array,
        parts: jax.Array,
        ranked: jax.Array | None,
        map_candidates: MapCandidates,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Maps of the candidates `[B, K, S, s, s, C]`, and of the boxes that are only ranked `[B, M - K, s, s, C]`.

        s is 7, or 1 where an average of the image's own map is all that is asked for. All regions
        go through the backbone in one batch, so that its BatchNorm sees them together.
        """
        batch, count, scales, _ = parts.shape
        if self.sharing == 'part':
            widen = self.alpha ** ((scales - 1) / 2)
            return part_maps(self.backbone, images, parts, ranked, self.crop_size, widen, map_candidates, self.remat)
        boxes = parts.reshape(batch, -1, 4)  # [B, R, 4]
        if ranked is not None:
            boxes = jnp.concatenate([boxes, ranked], 1)
        if self.sharing == 'image':
            align = lambda boxes, maps, _: (self._align(maps, boxes, REGION if self.flat else 1), {})
            maps, _ = map_candidates(align)(boxes, feature_map, {})  # [B, R, s, s, C]
        else:
            maps = crop_maps(self.backbone, images, boxes, self.crop_size, map_candidates, self.remat)
        described = maps[:, : count * scales].reshape(batch, count, scales, *maps.shape[2:])
        return described, maps[:, count * scales :] if ranked is not None else None

    def _align(self, feature_map: jax.Array, boxes: jax.Array, size: int) -> jax.Array:
        """RoIAlign on the map of the image: `[B, R, 4]` -> `[B, R, size, size, C]`."""
        centre = self.backbone.centre(self.image_size)
        return roi_align(feature_map, boxes, size, self.backbone.stride, centre)


def _traced(module: nnx.Module, shape: tuple[int, ...]) -> Any:
    """The shapes that a module makes of a float32 array. Its weights are arguments: constants JAX would keep alive."""
    graph, state = nnx.split(module)
    return jax.eval_shape(lambda state, x: nnx.merge(graph, state)(x), state, jax.ShapeDtypeStruct(shape, jnp.float32))


def _select(candidates: jax.Array, scale: jax.Array) -> jax.Array:
    """One of the S candidates of each part: `[B, K, S, ...]`, int `[B, K]` -> `[B, K, ...]`."""
    index = scale.reshape(*scale.shape, *(1,) * (candidates.ndim - 2))
    return jnp.take_along_axis(candidates, index, axis=2)[:, :, 0]


def split_model(model: SSANet) -> tuple[nnx.GraphDef, dict[str, Any], dict[str, Any]]:
    """A model -> (its static structure, parameters by group, BatchNorm statistics by group)."""
    graph, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def merge_model(graph: nnx.GraphDef, params: dict[str, Any], stats: dict[str, Any]) -> SSANet:
    """The inverse of `split_model`; the arrays are not shared with the arguments."""
    return nnx.merge(graph, nnx.State(params), nnx.State(stats), copy=True)
