"""Folding BatchNorm into the filters keeps all results; relu6 has the gradient of its definition."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ssanet_jax.models.backbones.batch_norm import BatchNorm, conv_norm
from ssanet_jax.models.backbones.depthwise import DepthwiseConv
from ssanet_jax.models.backbones.efficientnet_lite import relu6

CONVS = {
    'conv': lambda rngs: nnx.Conv(4, 6, (3, 3), 2, padding='SAME', use_bias=False, rngs=rngs),
    'pointwise': lambda rngs: nnx.Linear(4, 6, use_bias=False, rngs=rngs),
    'depthwise': lambda rngs: DepthwiseConv(4, 3, 1, rngs=rngs),
}


class Pair(nnx.Module):
    def __init__(self, name: str):
        rngs = nnx.Rngs(0)
        self.conv = CONVS[name](rngs)
        channels = 4 if name == 'depthwise' else 6
        self.norm = BatchNorm(channels, momentum=0.9, epsilon=1e-3, rngs=rngs)
        random = np.random.default_rng(0)
        for field, low, high in (('scale', 0.5, 2), ('bias', -1, 1), ('mean', -1, 1), ('var', 0.1, 3)):
            value = random.uniform(low, high, channels).astype(np.float32)
            getattr(self.norm, field)[...] = jnp.asarray(value)

    def __call__(self, x, folded):
        return conv_norm(self.conv, self.norm, x) if folded else self.norm(self.conv(x))


def _run(pair, x, folded):
    """The value, the new statistics, and the gradients with respect to the parameters and the input."""
    graph, params, rest = nnx.split(pair, nnx.Param, ...)

    def loss(params, x):
        pair = nnx.merge(graph, params, rest, copy=True)
        return jnp.sum(jnp.sin(pair(x, folded))), nnx.to_pure_dict(nnx.state(pair, nnx.BatchStat))

    (value, stats), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, x)
    return value, stats, (nnx.to_pure_dict(gradients[0]), gradients[1])


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('name', CONVS)
def test_folding_keeps_values_gradients_and_statistics(name, training):
    pair = Pair(name)
    pair.train() if training else pair.eval()
    x = jax.random.normal(jax.random.key(1), (2, 5, 5, 4))
    plain, folded = (_run(pair, x, folded) for folded in (False, True))
    chex.assert_trees_all_close(folded, plain, rtol=2e-5, atol=2e-5)
    updated = not np.array_equal(plain[1]['norm']['mean'], pair.norm.mean[...])
    assert updated == training


@pytest.mark.parametrize('name', CONVS)
def test_the_module_is_unchanged(name):
    pair = Pair(name)
    pair.eval()
    before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(pair)))
    conv_norm(pair.conv, pair.norm, jnp.ones((1, 5, 5, 4)))
    chex.assert_trees_all_equal(nnx.to_pure_dict(nnx.state(pair)), before)


def test_a_folded_program_makes_one_pass_over_the_map():
    """The only operations on arrays of the map's size are the convolution and the addition of the shift."""
    pair = Pair('pointwise')
    pair.eval()
    graph, state = nnx.split(pair)
    jaxpr = jax.make_jaxpr(lambda state, x: nnx.merge(graph, state)(x, True))(state, jnp.ones((2, 5, 5, 4)))
    large = [equation.primitive.name for equation in jaxpr.eqns if equation.outvars[0].aval.shape == (2, 5, 5, 6)]
    assert large == ['dot_general', 'add']


def test_relu6_against_its_definition():
    x = jnp.array([-3.0, -1e-3, 0.0, 1e-3, 2.5, 5.999, 6.0, 6.001, 9.0])
    np.testing.assert_array_equal(relu6(x), np.minimum(np.maximum(x, 0), 6))
    slope = jax.vmap(jax.grad(relu6))(x)
    np.testing.assert_array_equal(slope, [0, 0, 0, 1, 1, 1, 0, 0, 0])
