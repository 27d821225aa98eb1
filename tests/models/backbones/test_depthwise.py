"""The depthwise convolution equals XLA's own, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from ssanet_jax.models.backbones import depthwise
from ssanet_jax.models.backbones.depthwise import DepthwiseConv, depthwise_conv


def reference(x, kernel, stride, padding):
    return jax.lax.conv_general_dilated(
        x,
        kernel[:, :, None, :],
        (stride, stride),
        padding,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        feature_group_count=x.shape[-1],
    )


def assert_equal_with_gradients(shape, size, stride, padding, seed=0):
    random = np.random.default_rng(seed)
    x = jnp.asarray(random.normal(size=shape), jnp.float32)
    kernel = jnp.asarray(random.normal(size=(size, size, shape[-1])), jnp.float32)
    expected, expected_vjp = jax.vjp(lambda x, k: reference(x, k, stride, padding), x, kernel)
    actual, actual_vjp = jax.vjp(jax.jit(lambda x, k: depthwise_conv(x, k, stride, padding)), x, kernel)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    dy = jnp.asarray(random.normal(size=expected.shape), jnp.float32)
    for ours, theirs in zip(actual_vjp(dy), expected_vjp(dy), strict=True):
        # The rounding error of a sum of products grows with the sum.
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * max(1, float(jnp.abs(theirs).max())))


@pytest.mark.parametrize('size', [3, 5, 7])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('height, width', [(16, 16), (15, 12)])
def test_equals_lax_on_the_shapes_of_the_backbones(size, stride, height, width):
    assert_equal_with_gradients((16, height, width, 24), size, stride, 'SAME')


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 11),
    height=st.integers(5, 13),
    width=st.integers(5, 13),
    channels=st.integers(1, 7),
    size=st.integers(1, 5),
    stride=st.integers(1, 4),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    padding=st.sampled_from(['SAME', 'VALID', 'explicit']),
    seed=st.integers(0, 99),
)
def test_equals_lax_on_any_shape(batch, height, width, channels, size, stride, pads, padding, seed):
    padding = (pads[:2], pads[2:]) if padding == 'explicit' else padding
    assert_equal_with_gradients((batch, height, width, channels), size, stride, padding, seed)


def test_the_accelerator_branch_has_the_same_gradient():
    random = np.random.default_rng(0)
    x, kernel = (jnp.asarray(random.normal(size=s), jnp.float32) for s in ((2, 9, 8, 4), (3, 3, 4)))
    pads = ((0, 1), (1, 1))
    dy = jnp.ones(depthwise._grouped(x, kernel, stride=2, pads=pads).shape)
    for ours, theirs in zip(
        depthwise._shifted_gradients(x, kernel, dy, stride=2, pads=pads),
        depthwise._grouped_gradients(x, kernel, dy, stride=2, pads=pads),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_an_export_for_an_accelerator_uses_the_native_convolution():
    x, kernel = jax.ShapeDtypeStruct((2, 8, 8, 4), jnp.float32), jax.ShapeDtypeStruct((3, 3, 4), jnp.float32)

    def lowered(platform):
        return jax.export.export(jax.jit(depthwise_conv), platforms=[platform])(x, kernel).mlir_module()

    assert 'stablehlo.convolution' in lowered('tpu')
    assert 'stablehlo.convolution' not in lowered('cpu')


def test_runs_under_vmap_and_in_bfloat16():
    x = jnp.ones((3, 2, 8, 8, 4), jnp.bfloat16)
    kernel = jnp.ones((3, 3, 4), jnp.bfloat16)
    gradient = jax.vmap(jax.grad(lambda x: depthwise_conv(x, kernel, 2).astype(jnp.float32).sum()))(x)
    assert gradient.shape == x.shape and gradient.dtype == jnp.bfloat16


def test_the_bias_is_optional():
    assert set(nnx.state(DepthwiseConv(4, 3, rngs=nnx.Rngs(0)), nnx.Param)) == {'kernel'}
    module = DepthwiseConv(4, 7, use_bias=True, rngs=nnx.Rngs(0))
    module.bias.set_value(jnp.arange(4.0))
    np.testing.assert_array_equal(module(jnp.zeros((1, 2, 3, 4)))[0, 1, 2], [0, 1, 2, 3])


def test_channels_must_agree():
    with pytest.raises(ValueError, match='kernel'):
        depthwise_conv(jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 5)))
