"""SSANet, assembled. `extract_features` and `classify` read top to bottom like Figure 1 of the paper."""

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ssanet_jax.models import candidates, oriented_pooling, regions, scale_mining
from ssanet_jax.models.anchors import anchor_boxes
from ssanet_jax.models.arguments import (
    Dtype,
    FeatureMode,
    Fusion,
    Geometry,
    Proposal,
    check_arguments,
    check_backbone,
    check_proposals,
    output_shapes,
)
from ssanet_jax.models.backbones.base import Level
from ssanet_jax.models.backbones.registry import build_backbone
from ssanet_jax.models.covariance import CovariancePooling
from ssanet_jax.models.groups import GROUPS, PART_HEAD, UPRIGHT
from ssanet_jax.models.heads import Regions, build_head
from ssanet_jax.models.initializers import LECUN_NORMAL
from ssanet_jax.models.outputs import Outputs, PartFeatures
from ssanet_jax.models.proposals import ProposalNetwork, top_boxes
from ssanet_jax.models.prototypes import LocatedParts, PrototypeParts, attention_pool
from ssanet_jax.models.sharing import (
    REGION_SIDE,
    MapCandidates,
    RegionFunction,
    Sharing,
    average_cells,
    crop_maps,
    part_maps,
    roi_align,
)
from ssanet_jax.models.standardize import StandardizedLinear
from ssanet_jax.models.upright import Upright, turn_boxes_back, turn_upright

_LEGACY_ANCHOR_SIZE = 1.5  # in strides of the anchors


def on_one_device(function: RegionFunction) -> RegionFunction:
    """The default `map_candidates`: the regions are not distributed over devices."""
    return function


class SSANet(nnx.Module):
    """Spatial-Scale Aligned Network (Gao et al.).

    Args:
      num_classes: N.
      image_size: side of the input, pixels.
      backbone: one of `list_backbones()`.
      num_parts: K, number of parts used for recognition.
      proposal: how parts are found. 'ranking': the best anchor boxes of a network that learns NTS-Net's ranking loss
        (the paper). 'prototypes': the object, and where K - 1 prototypes fit best (`models/prototypes.py`). 'random':
        boxes of the same sizes at random places, to compare with.
      part_size: side of the parts of 'prototypes' and 'random', as a share of the image's side.
      global_size: side at which the backbone sees the whole image, pixels; 0 is `image_size`. Crops come from the
        image at its full size.
      standardize: whether classifiers read features standardized over the training images.
      num_proposals: M >= K, number of boxes ranked in training, with 'ranking'.
      num_scales: S, odd.
      alpha: ratio of the sides between neighboring scales.
      nms_iou: intersection over union at which a proposal is suppressed.
      sharing: how the features of regions are computed (`models/sharing.py`). 'none': each region is cropped from the
        image and passed through the backbone (the paper); 'part': one crop for all scales of a part; 'image': RoIAlign
        from the map of the image.
      output_stride: stride of the backbone's map in pixels: its usual one (also 0), or half of it, for finer features
        of regions with 'part' and 'image'.
      remat: whether the backward pass recomputes the activations of the backbone, for the whole image and for crops.
        They take most of the memory in training. A step then takes longer.
      crop_size: side of the crops, pixels. Those of 'none' yield maps of 7 x 7 cells, or of a multiple whose cells are
        averaged to 7 x 7; those of 'part' contain the largest of the scales.
      features: what classifiers read of a map. 'pooled': its average; 'flat': all of it, for DSM (Figure 3);
        'covariance': its average and the covariance of its cells (`models/covariance.py`).
      solver: 'fourier' or 'circulant', for DSM.
      patch, grid, orientation: see `oriented_pooling.oriented_features`.
      part_head: name of an additional baseline head (`models/heads.py`), or 'none'.
      upright: number of orientations from which images are turned upright before anything else, 4 for quarter turns or
        a multiple of 4; 0 leaves images as they are. It takes effect once the group 'upright' is active.
      upright_size: side of the views by which the orientation is found, pixels; 0 is `global_size`. Four views pass
        through the backbone.
      fusion: the logits that the prediction sums. 'parts': DSM and OP (the paper; "P" in its Table 6); 'global+parts'
        adds the image classifier ("G+P", as in most methods of that table).
      class_token: whether the image classifier reads the class token of a vision transformer beside the average of the
        map, as the linear probes of DINOv2 do.
      geometry: where boxes lie and how regions are read from maps. 'standard': the cells of a map describe the pixels
        that were measured on trained weights (`Backbone.center`), RoIAlign reads the border of a map slightly outside
        it, and anchors are proportional to the image. 'legacy': that of version 0.1.0, for its runs. The cells are
        centered by padding alone, RoIAlign reads zeros outside, and anchors are proportional to the stride.
      dtype: type of the backbone's computation, 'float32' or 'bfloat16'; parameters are float32.
      mean, std: per RGB channel, in 0..255: the backbone gets (pixel - mean) / std. By default the backbone's own.
      rngs: source of the random weights.

    Raises:
      ValueError: the arguments are inconsistent.
    """

    def __init__(
        self,
        num_classes: int,
        image_size: int,
        *,
        backbone: str = 'resnet50',
        num_parts: int = 4,
        proposal: Proposal = 'ranking',
        part_size: float = 0.36,
        global_size: int = 0,
        standardize: bool = False,
        num_proposals: int = 6,
        num_scales: int = 5,
        alpha: float = 2 ** (1 / 3),
        nms_iou: float = 0.25,
        sharing: Sharing = 'image',
        output_stride: int = 0,
        remat: bool = False,
        crop_size: int = 224,
        features: FeatureMode = 'pooled',
        solver: scale_mining.Solver = 'fourier',
        patch: int = 3,
        grid: int = 3,
        orientation: oriented_pooling.Orientation = 'literal',
        part_head: str = 'none',
        upright: int = 0,
        upright_size: int = 0,
        fusion: Fusion = 'parts',
        class_token: bool = False,
        geometry: Geometry = 'standard',
        dtype: Dtype = 'float32',
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        rngs: nnx.Rngs,
    ):
        ranking = proposal == 'ranking'
        check_arguments(
            image_size=image_size,
            proposal=proposal,
            num_parts=num_parts,
            part_size=part_size,
            global_size=global_size,
            num_proposals=num_proposals,
            num_scales=num_scales,
            alpha=alpha,
            nms_iou=nms_iou,
            sharing=sharing,
            features=features,
            patch=patch,
            grid=grid,
            part_head=part_head,
            upright_size=upright_size,
            fusion=fusion,
            geometry=geometry,
            dtype=dtype,
        )
        self.image_size = image_size
        self.global_size = global_size or image_size
        self.proposal: Proposal = proposal
        self.num_parts, self.num_scales, self.alpha = num_parts, num_scales, alpha
        self.num_proposals = num_proposals if ranking else num_parts
        self.nms_iou, self.crop_size = nms_iou, crop_size
        self.sharing: Sharing = sharing
        self.flat_features, self.fusion = features == 'flat', fusion
        self.reads_class_token = class_token
        self.legacy_geometry = geometry == 'legacy'

        self.backbone = build_backbone(backbone, rngs, jnp.dtype(dtype), output_stride)
        self.backbone.measured_centers = not self.legacy_geometry
        self.backbone.remat = remat
        self.mean = tuple(self.backbone.mean if mean is None else mean)
        self.std = tuple(self.backbone.std if std is None else std)
        channels = self.backbone.num_features
        # The proposal network reads every other cell of a dilated map: the cells of the undilated map.
        self.proposal_step = 2 if self.backbone.dilated else 1
        self.anchor_stride = self.proposal_step * self.backbone.stride
        if ranking:
            check_proposals(num_proposals, len(self._anchor_boxes()), image_size)
        check_backbone(
            self.backbone,
            backbone,
            size=self.global_size,
            step=self.proposal_step,
            sharing=sharing,
            crop_size=crop_size,
            class_token=class_token,
        )
        self.proposals = (
            ProposalNetwork(channels, rngs=rngs)
            if ranking
            else PrototypeParts(channels, num_parts, part_size, random=proposal == 'random', rngs=rngs)
        )
        linear = StandardizedLinear if standardize else partial(nnx.Linear, kernel_init=LECUN_NORMAL)
        self.part_classifier = linear(channels, num_classes, rngs=rngs)
        self.covariance = CovariancePooling(channels) if features == 'covariance' else None
        pooled = channels if self.covariance is None else self.covariance.num_features
        self.image_classifier = linear(channels * class_token + pooled, num_classes, rngs=rngs)
        length = channels * REGION_SIDE**2 if self.flat_features else pooled  # D
        self.scale_mining = scale_mining.ScaleMining(
            num_parts, num_scales, length, num_classes, solver, standardize=standardize, rngs=rngs
        )
        self.oriented_pooling = oriented_pooling.OrientedPooling(
            channels, num_classes, patch, grid, orientation, rngs=rngs
        )
        # The last to draw its weights, so that the initial weights of the other groups do not depend on the head.
        levels = self.backbone.pyramid_features
        self.part_head = (
            None
            if part_head == 'none'
            else build_head(
                part_head, levels, num_parts, num_scales, num_classes, clamp=not self.legacy_geometry, rngs=rngs
            )
        )

        view_size = upright_size or self.global_size
        self.upright = Upright(channels, upright, view_size, rngs=rngs) if upright else None

        # Tracing raises here for an unknown solver, or for patches that do not tile the map.
        output_shapes(self.scale_mining, (1, num_parts, num_scales, length))
        output_shapes(self.oriented_pooling, (1, num_parts, REGION_SIDE, REGION_SIDE, channels))

    def __call__(
        self,
        images: jax.Array,
        *,
        active: Collection[str] = GROUPS,
        training: bool = False,
        map_candidates: MapCandidates = on_one_device,
    ) -> Outputs:
        """Classifies a batch of images.

        Args:
          images: uint8 `[B, image_size, image_size, 3]`, RGB.
          active: the groups that take part, that is, those trained so far. The logits of an untrained head would be
            noise, so they are neither computed nor summed. The logits of the image classifier are always computed.
          training: whether to compute the features and logits of all M proposals, for the losses.
          map_candidates: distributes the regions over devices (`distributed.candidate_map`).
        """
        features = self.extract_features(images, active=active, training=training, map_candidates=map_candidates)
        return self.classify(features, active=active)

    def extract_features(
        self,
        images: jax.Array,
        *,
        active: Collection[str] = GROUPS,
        training: bool = False,
        map_candidates: MapCandidates = on_one_device,
    ) -> PartFeatures:
        """The first half of `__call__`: the backbone, the parts, their scales and their features."""
        images = self.normalize(images)
        orientation = None
        if self.upright is not None and UPRIGHT in active:
            orientation = self.upright.scores(self.backbone, images).argmax(-1)  # [B]
            images = turn_upright(images, orientation, self.upright.num_angles)
        levels = self.backbone.pyramid(self._global_view(images))
        feature_map = levels[-1].map  # [B, h, w, C]
        features = PartFeatures(image=self._image_vector(levels[-1]), image_orientation=orientation)
        if 'proposals' not in active:
            return features

        # 3.1, proposals: the M best boxes. The first K are the parts, which MAC aligns (losses.mac_loss).
        located = None
        if self.proposal == 'ranking':
            scores, proposals = self._select_proposals(feature_map)  # [B, M], [B, M, 4]
        else:
            located = self.locate(feature_map)
            scores, proposals = located.scores, located.boxes  # [B, K], [B, K, 4]
            features = features._replace(present=located.present)
        features = features._replace(scores=scores, boxes=proposals)

        # 3.2, candidates: each part at S scales, or only at its original scale if nothing reads the others.
        head = self.part_head if PART_HEAD in active else None
        multiscale = 'scale_mining' in active or (head is not None and head.multiscale)
        scales = self.num_scales if multiscale else 1
        original = (scales - 1) // 2  # index of the original scale
        expand = candidates.scale_candidates if located is None else candidates.centered_candidates
        parts = jax.vmap(lambda boxes: expand(boxes, scales, self.alpha))(
            proposals[:, : self.num_parts]
        )  # [B, K, S, 4]
        extra_proposals = proposals[:, self.num_parts :] if training and located is None else None  # [B, M - K, 4]
        maps, extra_maps = self._region_maps(images, feature_map, parts, extra_proposals, map_candidates)

        # 3.2, Discriminative Scale Mining: the scale shift of each part that fits the filters best.
        if 'scale_mining' in active:
            phi = maps.reshape(*maps.shape[:3], -1) if self.flat_features else self._pool(maps)  # [B, K, S, D]
            aligned_scale = scale_mining.aligned_scale(self._mine_scales(phi).shift, scales)  # [B, K]
            features = features._replace(phi=phi)
        else:
            aligned_scale = jnp.full(parts.shape[:2], original, jnp.int32)
        aligned_boxes = _select_scale(parts, aligned_scale)  # [B, K, 4]
        features = features._replace(aligned_scale=aligned_scale, aligned_boxes=aligned_boxes)

        # 3.3, Oriented Pooling: it reads the map of each part at the aligned scale.
        complete = maps.shape[-2] == REGION_SIDE  # else `maps` are averages, and 7 x 7 maps are cut out when needed
        if 'oriented_pooling' in active:
            aligned_maps = (
                _select_scale(maps, aligned_scale)
                if complete
                else self._roi_align(feature_map, aligned_boxes, REGION_SIDE)
            )
            features = features._replace(aligned_maps=aligned_maps)  # [B, K, 7, 7, C]

        # The baselines: they read the parts at their original scale, or at all scales.
        original_maps = maps[:, :, original]  # [B, K, s, s, C]
        if head is not None:
            original_boxes = parts[:, :, original]  # [B, K, 4]
            regions = Regions(
                image=feature_map.mean((1, 2)),
                pooled=maps.mean((3, 4)) if head.multiscale else original_maps.mean((2, 3))[:, :, None],
                maps=original_maps if complete else self._roi_align(feature_map, original_boxes, REGION_SIDE),
                boxes=original_boxes,
                levels=levels,
            )
            features = features._replace(regions=regions)

        # The part classifier reads all M proposals at their original scale, or what each prototype attends to, in
        # training only.
        if training and located is not None:
            features = features._replace(pooled=attention_pool(feature_map, located.attention))  # [B, K, C]
        if extra_maps is not None:
            pooled = jnp.concatenate([original_maps, extra_maps], 1).mean((2, 3))  # [B, M, C]
            features = features._replace(pooled=pooled)
        return features

    def classify(
        self, features: PartFeatures, *, active: Collection[str] = GROUPS, dropout: jax.Array | None = None
    ) -> Outputs:
        """The second half of `__call__`: the logits of all active classifiers.

        Args:
          features: the result of `extract_features` with the same active groups.
          active: see `__call__`.
          dropout: random key for a baseline head with dropout; None disables dropout.
        """
        outputs = Outputs(image_logits=self.image_classifier(features.image.astype(jnp.float32)))
        if features.image_orientation is not None and self.upright is not None:
            degrees = 360 / self.upright.num_angles
            outputs = outputs._replace(image_angle=features.image_orientation * degrees)
        if 'proposals' not in active:
            return outputs
        outputs = outputs._replace(
            scores=features.scores,
            boxes=self._in_given_image(features.boxes, features),
            present=features.present,
            aligned_boxes=self._in_given_image(features.aligned_boxes, features),
            aligned_scale=features.aligned_scale,
        )
        if self.fusion == 'global+parts' and 'image_classifier' in active:
            outputs = outputs._replace(global_logits=outputs.image_logits)
        if 'scale_mining' in active:
            # Within one program, the compiler merges this with the same call in `extract_features`.
            outputs = outputs._replace(scale_logits=self._mine_scales(features.phi).logits)
        if 'oriented_pooling' in active:
            assert features.aligned_maps is not None, 'extract_features was called without oriented_pooling'
            oriented = self.oriented_pooling(features.aligned_maps)
            outputs = outputs._replace(oriented_logits=oriented.logits, orientation=oriented.orientation)
        if self.part_head is not None and features.regions is not None:
            outputs = outputs._replace(head_logits=self.part_head(features.regions._replace(dropout=dropout)))
        if features.pooled is not None:
            pooled = features.pooled.astype(jnp.float32)
            outputs = outputs._replace(part_features=pooled, part_logits=self.part_classifier(pooled))
        return outputs

    def _in_given_image(self, boxes: jax.Array | None, features: PartFeatures) -> jax.Array | None:
        """Boxes `[B, ..., 4]` in images that were turned upright, if they were -> in the images as given."""
        if boxes is None or self.upright is None or features.image_orientation is None:
            return boxes
        return turn_boxes_back(boxes, features.image_orientation, self.upright.num_angles, self.image_size)

    def normalize(self, images: jax.Array) -> jax.Array:
        """The pixels that the backbone reads: uint8 `[B, H, W, 3]` -> float32, the same shape."""
        return (images.astype(jnp.float32) - jnp.array(self.mean)) / jnp.array(self.std)

    def denormalize(self, images: jax.Array) -> jax.Array:
        """The inverse of `normalize`, for pictures: 0 becomes the mean color."""
        return jnp.round(jnp.clip(images * jnp.array(self.std) + jnp.array(self.mean), 0, 255)).astype(jnp.uint8)

    def _pool(self, maps: jax.Array) -> jax.Array:
        """The vectors of maps `[..., h, w, C]`: their averages `[..., C]`, with covariance pooling more."""
        return maps.mean((-3, -2)) if self.covariance is None else self.covariance(maps)

    def _image_vector(self, level: Level) -> jax.Array:
        """The vector of the whole image: that of its map, after the class token if that is read."""
        pooled = self._pool(level.map)
        if not self.reads_class_token:
            return pooled
        assert level.token is not None  # `check_backbone` makes sure
        return jnp.concatenate([level.token, pooled], -1)

    def _global_view(self, images: jax.Array) -> jax.Array:
        """The whole images at `global_size`: `[B, image_size, image_size, 3]` -> `[B, V, V, 3]`."""
        if self.global_size == self.image_size:
            return images
        whole = jnp.array([[0.0, 0.0, self.image_size, self.image_size]])
        return jax.vmap(lambda image: regions.crop(image, whole, self.global_size)[0])(images)

    def global_map(self, images: jax.Array) -> jax.Array:
        """The map of whole images: `[B, image_size, image_size, 3]`, normalized -> `[B, h, w, C]`."""
        return self.backbone(self._global_view(images))

    def locate(self, feature_map: jax.Array) -> LocatedParts:
        """The parts by prototypes, in pixels of the image, from `global_map`."""
        assert isinstance(self.proposals, PrototypeParts), "locate is for proposal='prototypes' or 'random'"
        scale = self.image_size / self.global_size
        center, stride = self.backbone.center(self.global_size) * scale, self.backbone.stride * scale
        return self.proposals(feature_map, self.image_size, center, stride)

    def _select_proposals(self, feature_map: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Feature map `[B, h, w, C]` -> scores `[B, M]` and boxes `[B, M, 4]` of the best proposals, best first."""
        anchors = self._anchor_boxes()
        assert isinstance(self.proposals, ProposalNetwork), "for proposal='ranking'"
        all_scores = self.proposals(feature_map[:, :: self.proposal_step, :: self.proposal_step])  # [B, A]
        select = lambda scores: top_boxes(scores, anchors, self.num_proposals, self.nms_iou)
        indices, boxes = jax.vmap(select)(jax.lax.stop_gradient(all_scores))  # [B, M], [B, M, 4]
        return jnp.take_along_axis(all_scores, indices, 1), boxes

    def _anchor_boxes(self) -> np.ndarray:
        """The anchors of the image, `[A, 4]`."""
        base_size = _LEGACY_ANCHOR_SIZE * self.anchor_stride if self.legacy_geometry else None
        return anchor_boxes(self.image_size, self.anchor_stride, base_size)

    def _region_maps(
        self,
        images: jax.Array,
        feature_map: jax.Array,
        parts: jax.Array,
        extra_boxes: jax.Array | None,
        map_candidates: MapCandidates,
    ) -> tuple[jax.Array, jax.Array | None]:
        """The maps of regions, computed as `sharing` says.

        All crops go through the backbone in one batch, so that BatchNorm sees all of them.

        Args:
          images: `[B, H, W, 3]`, normalized.
          feature_map: `[B, h, w, C]`, the map of the images.
          parts: `[B, K, S, 4]`, the candidates of each part.
          extra_boxes: `[B, R, 4]`, boxes without other scales, or None.
          map_candidates: distributes the regions over devices.

        Returns:
          `[B, K, S, s, s, C]`, and `[B, R, s, s, C]` or None. The side s is 7, or 1 for averages of the image's map.
        """
        batch, count, scales, _ = parts.shape
        if self.sharing == 'part':
            enlargement = self.alpha ** ((scales - 1) / 2)
            return part_maps(
                self.backbone,
                images,
                parts,
                extra_boxes,
                self.crop_size,
                enlargement,
                map_candidates,
                antialias=self.proposal != 'ranking',
                clamp=not self.legacy_geometry,
            )
        boxes = parts.reshape(batch, -1, 4)  # [B, K * S, 4]
        if extra_boxes is not None:
            boxes = jnp.concatenate([boxes, extra_boxes], 1)
        if self.sharing == 'image':
            side = REGION_SIDE if self.flat_features or self.covariance is not None else 1
            align = lambda boxes, maps, _: (self._roi_align(maps, boxes, side), {})
            maps, _ = map_candidates(align)(boxes, feature_map, {})  # [B, K * S + R, s, s, C]
        else:
            maps = crop_maps(
                self.backbone,
                images,
                boxes,
                self.crop_size,
                map_candidates,
                antialias=self.proposal != 'ranking',
            )
            maps = average_cells(maps)
        maps_of_parts = maps[:, : count * scales].reshape(batch, count, scales, *maps.shape[2:])
        return maps_of_parts, maps[:, count * scales :] if extra_boxes is not None else None

    def _roi_align(self, feature_map: jax.Array, boxes: jax.Array, size: int) -> jax.Array:
        """RoIAlign from the map of the image: boxes `[B, R, 4]` -> `[B, R, size, size, C]`."""
        center = self.backbone.center(self.image_size)
        return roi_align(feature_map, boxes, size, self.backbone.stride, center, not self.legacy_geometry)

    def _mine_scales(self, phi: jax.Array | None) -> scale_mining.ScaleResponse:
        assert phi is not None, 'extract_features was called without scale_mining'
        return self.scale_mining(phi.astype(jnp.float32))


def _select_scale(values: jax.Array, scale: jax.Array) -> jax.Array:
    """Selects one of the S candidates of each part: `[B, K, S, ...]`, int `[B, K]` -> `[B, K, ...]`."""
    index = scale.reshape(*scale.shape, *(1,) * (values.ndim - 2))
    return jnp.take_along_axis(values, index, axis=2)[:, :, 0]


def split_model(model: SSANet) -> tuple[nnx.GraphDef, dict[str, Any], dict[str, Any]]:
    """Splits a model into its static structure, its parameters by group, and its BatchNorm statistics by group."""
    graph, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(stats)


def merge_model(graph: nnx.GraphDef, params: dict[str, Any], stats: dict[str, Any]) -> SSANet:
    """The inverse of `split_model`. The model does not share its arrays with the arguments."""
    return nnx.merge(graph, nnx.State(params), nnx.State(stats), copy=True)
