"""Half the stride with the same weights, and the position of a map's cells in the image."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from strides import half_stride

from ssanet_jax.models.backbones.dilation import a_trous
from ssanet_jax.models.backbones.registry import build_backbone


def test_equals_dilated_convolutions():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 8, 6, 3)), jnp.float32)
    kernels = [
        jnp.asarray(rng.normal(size=(3, 3, 3, 5)), jnp.float32),
        jnp.asarray(rng.normal(size=(5, 5, 5, 2)), jnp.float32),
    ]
    conv = lambda x, kernel, dilation: lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        [(dilation * (len(kernel) // 2),) * 2] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    ours = a_trous([lambda x, kernel=kernel: conv(x, kernel, 1) for kernel in kernels], x)
    theirs = conv(conv(x, kernels[0], 2), kernels[1], 2)
    chex.assert_trees_all_close(ours, theirs, rtol=1e-5, atol=1e-4)


SMALL = ('resnet_tiny', 'resnet18', 'resnet50', 'efficientnet_lite0', 'convnext_tiny')


@pytest.mark.parametrize('name', SMALL)
def test_every_other_cell_is_the_undilated_map(name):
    x = jax.random.normal(jax.random.key(0), (1, 64, 64, 3))
    coarse, fine = (build_backbone(name, nnx.Rngs(0), output_stride=stride) for stride in (0, half_stride(name, True)))
    coarse.eval(), fine.eval()
    chex.assert_trees_all_equal_structs(nnx.state(coarse), nnx.state(fine))
    assert fine.stride * 2 == coarse.stride
    side = 64 // fine.stride
    forward = nnx.jit(lambda backbone: backbone(x))
    fine_map = forward(fine)
    chex.assert_shape(fine_map, (1, side, side, fine.num_features))
    chex.assert_trees_all_close(fine_map[:, ::2, ::2], forward(coarse), rtol=1e-4, atol=1e-4)


def _averaging(backbone):
    """Makes all filters averages: a ramp then yields its own value at each cell's center."""

    def flatten(path, leaf):
        if path[-1] == 'kernel':  # [k, k, in, out], [in, out] or, depthwise, [k, k, channels]
            depthwise = 'depthwise' in path
            return jnp.ones_like(leaf) / np.prod(leaf.shape[:2] if depthwise else leaf.shape[:-1])
        return jnp.zeros_like(leaf) if path[-1] == 'bias' else leaf

    graph, state = nnx.split(backbone)
    return graph, nnx.map_state(flatten, state)


@pytest.mark.parametrize('dilated', [False, True])
@pytest.mark.parametrize(
    ('name', 'size'),
    [('resnet_tiny', 96), ('resnet_tiny', 104), ('resnet18', 640), ('efficientnet_lite0', 768)]
    + [('efficientnet_lite0', 752), ('efficientnet_lite0', 720)],
)
def test_center_of_the_first_cell(name, size, dilated):
    """A linear ramp through averaging filters gives the position of each cell's center."""
    backbone = build_backbone(name, nnx.Rngs(0), output_stride=half_stride(name, dilated))
    if dilated and size % (2 * backbone.stride):
        pytest.skip('only sizes that the full stride divides can be dilated')
    backbone.eval()
    backbone.measured_centers = False  # the filters are not trained ones
    graph, state = _averaging(backbone)
    faint = 1e-4  # residual additions make it grow, and ReLU6 must not clip it
    ramp = faint * (jnp.arange(size) + 0.5) / size
    cell = round(size / 2 / backbone.stride)  # far from the border, where zero padding breaks the ramp

    # The weights are arguments: jax 0.10.2 on CPU computes wrong results if they are constants of the program.
    @jax.jit
    def cell_of(state, x):
        return nnx.merge(graph, state)(jnp.broadcast_to(x[None, :, None, None], (1, size, size, 3)))[0, cell, cell, 0]

    read = partial(cell_of, state)
    one = read(jnp.full(size, faint))
    # Max-pooling shifts a rising ramp up; the falling ramp cancels the shift.
    position = size * float((read(ramp) - read(faint - ramp)) / one + 1) / 2
    assert position - cell * backbone.stride == pytest.approx(backbone.center(size), abs=0.05)


@pytest.mark.parametrize('dilated', [False, True])
def test_patches_without_overlap_do_not_move(dilated):
    """If its blocks are the identity, the receptive field of a cell of ConvNeXt is its own patch."""
    backbone = build_backbone('convnext_tiny', nnx.Rngs(0), output_stride=16 if dilated else 0)
    for stage in backbone.stages:
        for block in stage:
            block.layer_scale[...] = jnp.zeros_like(block.layer_scale[...])
    x = jax.random.normal(jax.random.key(0), (1, 96, 96, 3))
    cell = 32 // backbone.stride
    loss = lambda x, backbone: jnp.square(backbone(x)[0, cell, cell]).sum()
    gradient = nnx.jit(nnx.grad(loss))(x, backbone)
    rows = np.flatnonzero(np.abs(gradient).sum((0, 2, 3)))
    assert (rows.min(), rows.max()) == (32, 63)
    assert backbone.center(96) == (rows.min() + rows.max() + 1) / 2 - 32
