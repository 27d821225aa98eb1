"""Rematerialization changes neither gradients nor statistics, only how they are computed."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from strides import half_stride

from ssanet_jax.models.backbones.registry import BACKBONES, build_backbone
from ssanet_jax.models.backbones.vision_transformer import VisionTransformer
from ssanet_jax.models.ssanet import SSANet, merge_model, split_model

SIZE = 64
REMAT = jax.make_jaxpr(jax.checkpoint(lambda x: x))(0.0).eqns[0].primitive.name
SETTINGS = dict(num_parts=2, num_proposals=3, num_scales=3, crop_size=56)
TRANSFORMER = partial(VisionTransformer, 8, 1, 2, patch_size=8, positions='rotary')

# Class of the backbone -> its first name in the registry.
ONE_OF_EACH = {getattr(build, 'func', build): name for name, build in reversed(BACKBONES.items())}


@pytest.fixture(autouse=True)
def tiny_transformer(monkeypatch):
    monkeypatch.setitem(BACKBONES, 'vit_tiny', TRANSFORMER)


def gradient(images, **settings):
    """The gradient and the new statistics of a training step, and its program."""
    model = SSANet(5, SIZE, **SETTINGS, **settings, rngs=nnx.Rngs(0))
    model.train()
    graph, params, stats = split_model(model)

    def loss(params, stats, images):
        network = merge_model(graph, params, stats)
        outputs = network(images, training=True)
        total = jnp.square(outputs.logits).sum() + jnp.square(outputs.part_logits).sum()
        total += jnp.square(outputs.image_logits).sum()
        return total, nnx.to_pure_dict(nnx.state(network, nnx.BatchStat))

    run = jax.grad(loss, has_aux=True)
    return jax.jit(run)(params, stats, images), str(jax.make_jaxpr(run)(params, stats, images))


@pytest.mark.parametrize(
    'backbone, sharing',
    [('resnet_tiny', 'none'), ('resnet_tiny', 'part'), ('vit_tiny', 'image')],
)
def test_same_gradient_and_statistics(backbone, sharing):
    """Of the pass of the whole image, which 'image' has alone, and of crops."""
    images = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    (stored, stored_program), (remat, remat_program) = (
        gradient(images, backbone=backbone, sharing=sharing, remat=remat) for remat in (False, True)
    )
    assert REMAT in remat_program and REMAT not in stored_program
    chex.assert_trees_all_close(remat, stored, rtol=1e-3, atol=1e-5)
    largest = jax.tree.map(lambda x: float(jnp.abs(x).max()), stored)
    assert backbone == 'vit_tiny' or min(jax.tree.leaves(largest[1])) > 0
    assert max(jax.tree.leaves(largest[0])) > 0


@pytest.mark.parametrize('dilated', [False, True])
@pytest.mark.parametrize('name, blocks', [('resnet18', 8), ('efficientnet_lite0', 16), ('convnext_tiny', 18)])
def test_every_block_of_every_family(name, blocks, dilated):
    model = nnx.eval_shape(lambda: build_backbone(name, nnx.Rngs(0), output_stride=half_stride(name, dilated)))
    model.eval()
    model.remat = True
    graph, state = nnx.split(model)
    call = lambda state, x: nnx.merge(graph, state)(x)
    program = jax.make_jaxpr(call)(state, jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32))
    assert sum(equation.primitive.name == REMAT for equation in program.eqns) == blocks


@pytest.mark.parametrize('name', ONE_OF_EACH.values())
def test_every_family_supports_it(name):
    """Including families whose blocks are not counted above."""

    def program(remat):
        model = nnx.eval_shape(lambda: build_backbone(name, nnx.Rngs(0)))
        model.eval()
        model.remat = remat
        graph, params, rest = nnx.split(model, nnx.Param, ...)
        loss = lambda params, rest, x: jnp.square(nnx.merge(graph, params, rest, copy=True)(x)).sum()
        images = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
        return str(jax.make_jaxpr(jax.grad(loss))(params, rest, images))

    assert REMAT in program(True) and REMAT not in program(False)
