"""SSANet with each value of `sharing`, and its backbone alone, compiled for prediction; used by several benchmarks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.programs import Program
from ssanet_jax.configs import common
from ssanet_jax.distributed import sharding
from ssanet_jax.evaluation.accuracy import make_predict
from ssanet_jax.models.backbones.registry import build_backbone
from ssanet_jax.models.groups import GROUPS
from ssanet_jax.models.inference import optimize_for_inference
from ssanet_jax.models.sharing import REGION_SIDE
from ssanet_jax.models.ssanet import SSANet, split_model
from ssanet_jax.predictor import Predictor
from ssanet_jax.runs.run import build_model

BACKBONE = 'backbone alone'  # with global average pooling and a linear classifier
SHARING = ('image', 'part', 'none')  # values of config.model.sharing, for the whole network
NETWORKS = (BACKBONE, *SHARING)


class Size(NamedTuple):
    """The size of a network and its input; other settings are those of configs/common.py."""

    backbone: str
    size: int  # side of the images, pixels
    num_classes: int
    batch: int
    dtype: str = 'float32'  # type of the computation

    def __str__(self) -> str:
        return f'{self.backbone}, {self.size}, batch {self.batch}'


def crop_size(backbone: str) -> int:
    """Side in pixels of the crops from which a backbone makes 7 x 7 maps: 224 for all but the smallest backbone."""
    return REGION_SIDE * nnx.eval_shape(lambda: build_backbone(backbone, nnx.Rngs(0))).stride


def lower(name: str, size: Size) -> jax.stages.Lowered:
    """Lowers a network of `NETWORKS`: (parameters, statistics, images) -> logits `[B, N]`.

    Only shapes are used, so this needs no memory for weights.
    """
    model = nnx.eval_shape(lambda: _build(name, size))
    groups = ('image_classifier',) if name == BACKBONE else GROUPS
    predict = make_predict(model, groups, sharding.make_mesh(jax.devices()[:1]))
    images = jax.ShapeDtypeStruct((size.batch, size.size, size.size, 3), jnp.uint8)
    # Weights and images are arguments, because the compiler would fold constants.
    return jax.jit(lambda *inputs: predict(*inputs).logits).lower(*split_model(model)[1:], images)


def load(name: str, size: Size) -> Program:
    """A network of `NETWORKS` with random weights, on random images; the values do not affect the time."""
    compiled = lower(name, size).compile()
    params, stats = jax.jit(lambda: split_model(_build(name, size))[1:])()
    images = jax.random.randint(jax.random.key(0), (size.batch, size.size, size.size, 3), 0, 256, jnp.uint8)
    return Program(lambda: jax.block_until_ready(compiled(params, stats, images)), compiled)


def make_predictor(sharing: str, size: Size) -> Predictor:
    """The public form of a network of `NETWORKS`, to be exported: random weights, the settings of configs/common.py."""
    config = common.get_config()
    config.data.update(image_size=size.size, resize=size.size, interpolation='bilinear')
    config.model.update(backbone=size.backbone, sharing=sharing, crop_size=crop_size(size.backbone), dtype=size.dtype)
    model = build_model(config, size.num_classes, pretrained=False)
    return Predictor(model, GROUPS, config, [f'class {number}' for number in range(size.num_classes)])


def _build(name: str, size: Size) -> SSANet:
    sharing = 'image' if name == BACKBONE else name
    network = SSANet(
        size.num_classes,
        size.size,
        backbone=size.backbone,
        sharing=sharing,
        crop_size=crop_size(size.backbone),
        dtype=size.dtype,
        rngs=nnx.Rngs(0),
    )
    return optimize_for_inference(network)
