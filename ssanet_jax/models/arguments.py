"""The arguments of `SSANet`: their values, and checks that they fit together."""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from ssanet_jax.models import candidates
from ssanet_jax.models.backbones.base import Backbone
from ssanet_jax.models.sharing import REGION_SIDE, Sharing

Proposal = Literal['ranking', 'prototypes', 'random']
FeatureMode = Literal['pooled', 'flat', 'covariance']
Fusion = Literal['parts', 'global+parts']
Geometry = Literal['standard', 'legacy']
Dtype = Literal['float32', 'bfloat16']


def check_arguments(
    *,
    image_size: int,
    proposal: str,
    num_parts: int,
    part_size: float,
    global_size: int,
    num_proposals: int,
    num_scales: int,
    alpha: float,
    nms_iou: float,
    sharing: str,
    features: str,
    patch: int,
    grid: int,
    part_head: str,
    upright_size: int,
    fusion: str,
    geometry: str,
    dtype: str,
) -> None:
    """Raises `ValueError` for arguments that fit no backbone."""
    for name, value, allowed in (
        ('proposal', proposal, get_args(Proposal)),
        ('sharing', sharing, get_args(Sharing)),
        ('fusion', fusion, get_args(Fusion)),
        ('features', features, get_args(FeatureMode)),
        ('geometry', geometry, get_args(Geometry)),
        ('dtype', dtype, get_args(Dtype)),
    ):
        if value not in allowed:
            raise ValueError(f'{name} must be one of {", ".join(allowed)}; got {value!r}')
    ranking = proposal == 'ranking'
    if ranking and not 1 <= num_parts <= num_proposals:
        raise ValueError(f'num_parts must lie between 1 and num_proposals = {num_proposals}; got {num_parts}')
    if num_parts < 1:
        raise ValueError(f'num_parts must be at least 1; got {num_parts}')
    if not 0 < part_size <= 1:
        raise ValueError(f'part_size must lie in (0, 1]; got {part_size}')
    for name, size in (('global_size', global_size), ('upright_size', upright_size)):
        if not 0 <= size <= image_size:
            raise ValueError(f'{name} must lie between 0 and image_size = {image_size}; got {size}')
    if global_size not in (0, image_size) and (ranking or sharing == 'image'):
        raise ValueError(
            "global_size is for proposal='prototypes' or 'random' with sharing='none' or 'part': set it to 0, or "
            f'change proposal={proposal!r} or sharing={sharing!r}'
        )
    if not 0 < nms_iou <= 1:
        raise ValueError(f'nms_iou must lie in (0, 1]; got {nms_iou}')
    if patch < 1 or grid < 1:
        raise ValueError(f'patch and grid must be at least 1; got {patch} and {grid}')
    if part_head == 'fpn' and sharing != 'image':
        raise ValueError("part_head='fpn' reads the maps of the image: it needs sharing='image'")
    candidates.scale_factors(num_scales, alpha)  # an even S should fail here, not in the first batch


def check_backbone(
    backbone: Backbone,
    name: str,
    *,
    size: int,
    step: int,
    sharing: Sharing,
    crop_size: int,
    class_token: bool,
) -> None:
    """Raises `ValueError` for sizes that do not suit a backbone.

    Args:
      backbone: the backbone.
      name: its name.
      size: side of the images that pass through it whole, pixels.
      step: cells of its map per anchor.
      sharing, crop_size, class_token: see `SSANet`.
    """
    if class_token and not backbone.has_class_token:
        raise ValueError(f'{name} has no class token: set class_token=False')
    if sharing == 'none' and backbone.dilated:
        raise ValueError("output_stride is for sharing='part' and 'image': remove it, or change sharing='none'")
    stride = step * backbone.stride
    side = REGION_SIDE * backbone.stride
    if sharing == 'none' and (crop_size < 1 or crop_size % side):
        raise ValueError(f'crop_size must be a multiple of {side}, {REGION_SIDE} cells of {name}; got {crop_size}')
    if sharing == 'part' and (crop_size < 1 or crop_size % stride):
        raise ValueError(f'crop_size must be a multiple of {stride} for {name}; got {crop_size}')
    if size % stride == 0:
        return
    if backbone.dilated:
        raise ValueError(
            f'the image size must be a multiple of {stride} for output_stride {backbone.stride} of {name}; got {size}'
        )
    # A backbone that drops a border of the image has no features for the anchors there.
    if output_shapes(backbone, (1, size, size, 3)).shape[1] != -(-size // stride):
        raise ValueError(f'the image size must be a multiple of {stride} for {name}; got {size}')


def check_proposals(num_proposals: int, num_anchors: int, image_size: int) -> None:
    """Raises `ValueError` for more proposals than an image has anchor boxes."""
    if num_proposals > num_anchors:
        raise ValueError(
            f'num_proposals must be at most {num_anchors}, the boxes of an image of {image_size}; got {num_proposals}'
        )


def output_shapes(module: Any, shape: tuple[int, ...]) -> Any:
    """The shapes of a module's result for a float32 array of this shape, by tracing.

    The weights are arguments of the traced function, because JAX would keep constants alive.
    """
    graph, state = nnx.split(module)
    return jax.eval_shape(lambda state, x: nnx.merge(graph, state)(x), state, jax.ShapeDtypeStruct(shape, jnp.float32))
