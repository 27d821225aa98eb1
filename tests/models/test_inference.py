"""A network optimized for inference makes the same predictions as the trained one."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ssanet_jax.models.groups import GROUPS, PART_HEAD
from ssanet_jax.models.inference import optimize_for_inference
from ssanet_jax.models.ssanet import SSANet, merge_model, split_model

SIZE, CROPS = 64, {'resnet_tiny': 56, 'resnet18': 224, 'efficientnet_lite0': 224, 'convnext_tiny': 224}


def network(backbone='resnet_tiny', **changes):
    """A network whose statistics differ from the initial 0 and 1."""
    model = SSANet(
        5,
        SIZE,
        backbone=backbone,
        num_parts=2,
        num_proposals=3,
        num_scales=3,
        crop_size=CROPS[backbone],
        **changes,
        rngs=nnx.Rngs(0),
    )
    graph, params, stats = split_model(model)
    random = np.random.default_rng(0)
    stats = jax.tree.map(lambda x: jnp.asarray(random.uniform(0.5, 1.5, x.shape), x.dtype), stats)
    model = merge_model(graph, params, stats)
    model.eval()
    return model


def predict(model, images):
    graph, params, stats = split_model(model)
    active = {*GROUPS, PART_HEAD}
    return jax.jit(lambda *weights: merge_model(graph, *weights)(images, active=active))(params, stats)


@pytest.fixture(scope='module')
def images():
    return np.random.default_rng(1).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)


@pytest.mark.parametrize(
    'changes',
    [
        dict(),
        dict(solver='circulant', features='flat'),
        dict(sharing='none'),
        dict(output_stride=4),
        dict(part_head='fpn'),
        dict(backbone='resnet18', output_stride=16),
        dict(backbone='efficientnet_lite0'),
        dict(backbone='convnext_tiny'),
    ],
    ids=lambda changes: ' '.join(map(str, changes.values())) or 'default',
)
def test_same_predictions(changes, images):
    model = network(**changes)
    before = split_model(model)
    ready = optimize_for_inference(model)
    chex.assert_trees_all_equal(split_model(model)[1:], before[1:])  # not changed
    one, other = predict(model, images), predict(ready, images)
    np.testing.assert_array_equal(one.boxes, other.boxes)
    heads = ('image_logits', 'scale_logits', 'oriented_logits', *(['head_logits'] if 'part_head' in changes else []))
    for name in heads:
        a, b = getattr(one, name), getattr(other, name)
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-4 * float(jnp.abs(a).max()), err_msg=name)


def test_only_a_shift_is_left_of_batchnorm(images):
    _, params, stats = split_model(optimize_for_inference(network()))
    assert not jax.tree.leaves(stats)
    with_norms = split_model(network())[1]
    count = lambda tree: sum(x.size for x in jax.tree.leaves(tree['backbone']))
    # Of scale and bias, one shift per channel is left.
    channels = sum(x.size for x in jax.tree.leaves(split_model(network())[2]['backbone'])) // 2
    assert count(params) == count(with_norms) - channels


def test_optimizing_twice_equals_optimizing_once(images):
    ready = optimize_for_inference(network())
    chex.assert_trees_all_equal(split_model(optimize_for_inference(ready))[1], split_model(ready)[1])


def test_filters_are_cast_in_advance(images):
    """The program of an optimized network does not cast filters."""
    model = network(dtype='bfloat16')
    ready = optimize_for_inference(model)
    kernels = [m.kernel[...] for _, m in nnx.iter_modules(ready.backbone) if hasattr(m, 'kernel')]
    assert kernels and {kernel.dtype for kernel in kernels} == {jnp.dtype('bfloat16')}

    def rounded_filters(model):
        graph, params, stats = split_model(model)
        program = jax.jit(lambda *weights: merge_model(graph, *weights)(images)).lower(params, stats).as_text()
        rounded = re.findall(r'convert %\S+ : \(tensor<([\dx]+)xf32>\) -> tensor<\1xbf16>', program)
        return [shape for shape in rounded if shape in {'x'.join(map(str, kernel.shape)) for kernel in kernels}]

    assert len(rounded_filters(model)) >= len(kernels) and not rounded_filters(ready)
    one, other = predict(model, images), predict(ready, images)
    np.testing.assert_allclose(other.image_logits, one.image_logits, rtol=0.05, atol=0.05)


def test_fewer_operations(images):
    def flops(model):
        graph, params, stats = split_model(model)
        run = jax.jit(lambda *weights: merge_model(graph, *weights)(images).logits)
        return run.lower(params, stats).compile().cost_analysis()['flops']

    model = network()
    weights = sum(x.size for x in jax.tree.leaves(split_model(model)[1]['backbone']))
    assert (
        flops(model) - flops(optimize_for_inference(model)) > 0.5 * weights
    )  # each filter was multiplied by its factor
