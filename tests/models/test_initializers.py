"""Initial weights are those of `jax.nn.initializers`, and most shapes share their compiled programs."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from ssanet_jax.models import initializers
from ssanet_jax.models.backbones.registry import build_backbone

THEIRS = jax.nn.initializers
PAIRS = {
    'He': (initializers.HE_NORMAL, THEIRS.variance_scaling(2.0, 'fan_out', 'normal')),
    'LeCun': (initializers.LECUN_NORMAL, THEIRS.lecun_normal()),
    'narrow': (initializers.NARROW_NORMAL, THEIRS.truncated_normal(0.02)),
    'normal': (initializers.random_normal(0.3), THEIRS.normal(0.3)),
    'axes': tuple(
        module.variance_scaling(1e-4, 'fan_in', 'normal', in_axis=(0, -1), out_axis=1)
        for module in (initializers, THEIRS)
    ),
}


@pytest.mark.parametrize('name', PAIRS)
@given(shape=st.lists(st.integers(1, 40), min_size=2, max_size=4).map(tuple), seed=st.integers(0, 2**31))
@settings(max_examples=2, deadline=None)
def test_equals_jax(name, shape, seed):
    if name == 'axes':
        shape = (3, *shape)  # an axis of its own between inputs and outputs
    ours, theirs = (init(jax.random.key(seed), shape, jnp.float32) for init in PAIRS[name])
    assert ours.shape == shape and ours.dtype == jnp.float32
    chex.assert_trees_all_close(ours, theirs, rtol=1e-6)  # programs of other shapes may round otherwise


@pytest.mark.parametrize('shape', [(1 << 7, 1 << 7), (1, (1 << 14) + 1), (7, 11, 1, 613), (1, (1 << 24) + 1)])
def test_equals_jax_at_the_limits_of_a_length(shape):
    ours, theirs = (init(jax.random.key(3), shape) for init in PAIRS['LeCun'])
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_other_types_and_tracing():
    ours, theirs = (
        jax.eval_shape(lambda key, init=init: init(key, (3, 5), jnp.bfloat16), jax.random.key(0))
        for init in PAIRS['He']
    )
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype) == ((3, 5), jnp.bfloat16)


def test_a_backbone_draws_few_lengths():
    """A program for each shape would take about a second to compile."""
    initializers._draw_vector.clear_cache()
    backbone = build_backbone('resnet_tiny', nnx.Rngs(0))
    kernels = {leaf.shape for leaf in jax.tree.leaves(nnx.state(backbone, nnx.Param)) if leaf.ndim > 1}
    assert len(kernels) == 5
    assert initializers._draw_vector._cache_size() == 2
