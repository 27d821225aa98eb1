"""The levels of every backbone and the feature pyramid on them, against NumPy and known geometry."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from backbone_names import NAMES
from flax import nnx
from strides import half_stride

from ssanet_jax.models.backbones.convnext import ConvNeXt
from ssanet_jax.models.backbones.efficientnet_lite import EfficientNetLite
from ssanet_jax.models.backbones.registry import BACKBONES, build_backbone
from ssanet_jax.models.backbones.resnet import TinyResNet
from ssanet_jax.models.feature_pyramid import FeaturePyramid, pyramid_align, pyramid_level
from ssanet_jax.models.regions import resample

BASIC, DEEP, LITE = (64, 128, 256, 512), (256, 512, 1024, 2048), (16, 24, 40, 112, 1280)
CHANNELS = dict.fromkeys(('resnet18', 'resnet34'), BASIC) | dict.fromkeys(('resnet50', 'resnet101', 'resnet152'), DEEP)
CHANNELS |= {'resnet_tiny': (16, 48, 48)} | dict.fromkeys(('efficientnet_lite0', 'efficientnet_lite1'), LITE)
CHANNELS |= {'efficientnet_lite2': (16, 24, 48, 120, 1280)}
CHANNELS |= dict.fromkeys(('convnext_tiny', 'convnext_small'), (96, 192, 384, 768))
PATCHES = {'vit_small_patch14_reg4_dinov2': 14, 'vit_small_patch16_dinov3': 16}
CHANNELS |= dict.fromkeys(PATCHES, (384,))

# The same layers as in the full backbones, but faster to compile.
SMALL = {
    'resnet_tiny': TinyResNet,
    'resnet18': BACKBONES['resnet18'],
    'efficientnet_lite': partial(EfficientNetLite, width=0.25),
    'convnext': partial(ConvNeXt, (1, 2, 1, 2), widths=(8, 16, 24, 32)),
}


@pytest.mark.parametrize(
    ('name', 'dilated'),
    [(name, False) for name in NAMES]
    + [(name, True) for name in ('resnet18', 'resnet50', 'resnet_tiny', 'efficientnet_lite0', 'convnext_tiny')],
)
def test_levels_of_each_backbone(name, dilated):
    backbone = nnx.eval_shape(lambda: build_backbone(name, nnx.Rngs(0), jnp.bfloat16, half_stride(name, dilated)))
    graph, state = nnx.split(backbone)
    where = []

    def maps(state, x):
        levels = nnx.merge(graph, state).pyramid(x)
        where.extend((level.stride, level.center) for level in levels)
        return [level.map for level in levels]

    maps = jax.eval_shape(maps, state, jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32))
    count = len(CHANNELS[name])
    strides = [2 ** (i + (1 if count == 5 or name == 'resnet_tiny' else 2)) for i in range(count)]
    if name in PATCHES:
        strides = [PATCHES[name]]
    if dilated:
        strides[-1] = strides[-2]
    assert backbone.pyramid_features == CHANNELS[name]
    assert [stride for stride, _ in where] == strides
    assert all(isinstance(stride, int) for stride, _ in where)
    assert where[-1] == (backbone.stride, backbone.center(64))
    assert [x.shape for x in maps] == [(2, 64 // s, 64 // s, c) for s, c in zip(strides, CHANNELS[name])]
    assert {x.dtype for x in maps} == {jnp.dtype('bfloat16')}


def rest_of_resnet(backbone, levels):
    for index in range(1, len(levels)):
        x = levels[index - 1]
        for block in backbone.stages[index]:
            x = block(x)
        yield x


def rest_of_tiny(backbone, levels):
    (x,) = rest_of_resnet(backbone, levels[:2])
    yield x
    batch, height, width, channels = x.shape
    yield x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def rest_of_lite(backbone, levels):
    first = (1, 3, 5, 11, 16)  # Lite0's blocks that step, and the end
    for x, start, end in zip(levels, first, first[1:]):
        for block in backbone.blocks[start:end]:
            x = block(x)
        if end == 16:
            x = jnp.clip(backbone.head_norm(backbone.head(x)), 0, 6)
        yield x


def rest_of_convnext(backbone, levels):
    for index in range(1, len(levels)):
        x = backbone.shrinks[index - 1](levels[index - 1])
        for block in backbone.stages[index]:
            x = block(x)
        yield backbone.head_norm(x) if index == len(levels) - 1 else x


@pytest.mark.parametrize(
    ('name', 'rest'),
    [
        ('resnet18', rest_of_resnet),
        ('resnet_tiny', rest_of_tiny),
        ('efficientnet_lite', rest_of_lite),
        ('convnext', rest_of_convnext),
    ],
)
def test_the_network_continues_from_each_level_to_the_next(name, rest):
    x = jax.random.normal(jax.random.key(0), (1, 64, 64, 3))
    results = []
    for dilated in (False, True):
        backbone = SMALL[name](nnx.Rngs(0), output_stride=half_stride(name, dilated))
        backbone.eval()
        graph, state = nnx.split(backbone)

        @jax.jit
        def run(state, x, graph=graph, dilated=dilated):
            backbone = nnx.merge(graph, state)
            maps = [level.map for level in backbone.pyramid(x)]
            return maps, backbone(x), maps[1:] if dilated else list(rest(backbone, maps))

        maps, last, again = run(state, x)
        np.testing.assert_array_equal(last, maps[-1])
        chex.assert_trees_all_close(again, maps[1:], rtol=1e-4, atol=1e-4)
        results.append(maps)
    coarse, fine = results
    chex.assert_trees_all_close(fine[:-1], coarse[:-1], rtol=1e-4, atol=1e-4)  # dilation changes the last level only
    assert fine[-1].shape[1] == 2 * coarse[-1].shape[1]


def average_filters(backbone):
    """Makes all filters positive averages, so that every pixel of a receptive field has a gradient."""
    graph, state = nnx.split(backbone)

    def average(path, leaf):
        if path[-1] != 'kernel':
            return leaf
        return jnp.ones_like(leaf) / np.prod(leaf.shape[:2] if 'depthwise' in path else leaf.shape[:-1])

    return graph, nnx.map_state(average, state)


def identity_blocks(backbone):
    """Makes the blocks of ConvNeXt the identity, so that the receptive field of a cell is its own patch."""
    for stage in backbone.stages:
        for block in stage:
            block.layer_scale[...] = jnp.zeros_like(block.layer_scale[...])
    return nnx.split(backbone)


@pytest.mark.parametrize(
    ('name', 'size', 'dilated', 'count'),
    [
        ('resnet_tiny', 96, False, 3),
        ('resnet_tiny', 96, True, 3),
        ('resnet18', 256, False, 3),  # the last receptive field has 435 pixels; test_dilation.py tests its center
        ('efficientnet_lite', 384, False, 4),  # here too the last one is larger than the image
        ('efficientnet_lite', 376, False, 4),  # the fourth step makes 24 cells from 47
        ('convnext', 96, False, 4),
        ('convnext', 96, True, 4),
    ],
)
def test_receptive_fields_are_symmetric_about_the_center(name, size, dilated, count):
    backbone = SMALL[name](nnx.Rngs(0), output_stride=half_stride(name, dilated))
    backbone.eval()
    backbone.measured_centers = False  # the filters are not trained ones
    graph, state = identity_blocks(backbone) if name == 'convnext' else average_filters(backbone)
    where, cells = [], []

    # One image per level, so that one gradient covers all levels. The weights are arguments: jax 0.10.2 on CPU
    # computes wrong results if they are constants of the program.
    @jax.jit
    @jax.grad
    def gradient(images, state):
        levels = nnx.merge(graph, state).pyramid(images)[:count]
        where.extend((level.stride, level.center) for level in levels)
        cells.extend(level.map.shape[1] // 2 for level in levels)
        return sum(level.map[i, cell, cell, 0] for i, (level, cell) in enumerate(zip(levels, cells)))

    faint = jax.random.uniform(jax.random.key(0), (count, size, size, 3)) * 1e-3  # ReLU6 does not clip it
    gradients = np.asarray(gradient(faint, state))
    assert len(where) == count
    for image, (stride, center), cell in zip(gradients, where, cells):
        for axes in ((1, 2), (0, 2)):
            pixels = np.flatnonzero(np.abs(image).sum(axes))
            assert pixels.min() > 0 and pixels.max() < size - 1
            assert (pixels.min() + pixels.max() + 1) / 2 == center + stride * cell


def by_loops(maps, laterals, biases, kernels, ends):
    """Lin et al., Figure 3, cell by cell in float64; the step along an axis is 2, or 1 if the length is unchanged."""
    merged = [None] * len(maps)
    for index in reversed(range(len(maps))):
        top = maps[index].astype(np.float64) @ laterals[index] + biases[index]
        if index < len(maps) - 1:
            above = merged[index + 1]
            below = lambda i, length, half: i if length == half else min(i // 2, half - 1)
            for y in range(top.shape[1]):
                for x in range(top.shape[2]):
                    row, column = below(y, top.shape[1], above.shape[1]), below(x, top.shape[2], above.shape[2])
                    top[:, y, x] += above[:, row, column]
        merged[index] = top
    results = []
    for top, kernel, end in zip(merged, kernels, ends):
        padded = np.pad(top, ((0, 0), (1, 1), (1, 1), (0, 0)))
        height, width = top.shape[1:3]
        windows = [padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)]
        results.append(sum(windows) + end)
    return results


@pytest.mark.parametrize(
    'sides',
    [
        ((16, 16), (8, 8), (4, 4)),
        ((29, 15), (15, 8), (8, 8)),  # steps that round up, and a dilated width
        ((15, 29), (7, 14), (3, 7)),  # steps that round down
        ((12, 8), (6, 4), (6, 4)),  # the last one dilated
        ((3, 2), (2, 1), (1, 1)),
    ],
)
def test_equals_lin_et_al_by_loops(sides):
    random = np.random.default_rng(0)
    channels, features = (3, 5, 4), 6
    maps = [random.normal(size=(2, *side, c)).astype(np.float32) for side, c in zip(sides, channels)]
    pyramid = FeaturePyramid(channels, features, rngs=nnx.Rngs(0))
    for layer in (*pyramid.laterals, *pyramid.outputs):
        layer.bias[...] = random.normal(size=features)
    numbers = lambda layers, name: [np.asarray(getattr(layer, name)[...], np.float64) for layer in layers]
    expected = by_loops(
        maps,
        numbers(pyramid.laterals, 'kernel'),
        numbers(pyramid.laterals, 'bias'),
        numbers(pyramid.outputs, 'kernel'),
        numbers(pyramid.outputs, 'bias'),
    )
    actual = pyramid([jnp.asarray(x) for x in maps])
    assert [x.shape for x in actual] == [(2, *side, features) for side in sides]
    for ours, theirs in zip(actual, expected):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_identity_weights_sum_the_cells_above():
    pyramid = FeaturePyramid((1, 1, 1), 1, rngs=nnx.Rngs(0))
    for lateral, output in zip(pyramid.laterals, pyramid.outputs):
        lateral.kernel[...] = jnp.ones((1, 1))
        output.kernel[...] = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1)
    fine, middle, coarse = (
        np.arange(n * n, dtype=np.float32).reshape(1, n, n, 1) * 100**i for i, n in enumerate((4, 2, 1))
    )
    out = pyramid([jnp.asarray(x) - 1 for x in (fine, middle, coarse)])
    assert out[2].tolist() == [[[[-1]]]]  # there is no activation
    assert out[1][0, :, :, 0].tolist() == [[-2, 98], [198, 298]]
    assert out[0][0, :, :, 0].tolist() == [
        [-3, -2, 99, 100],
        [1, 2, 103, 104],
        [205, 206, 307, 308],
        [209, 210, 311, 312],
    ]


def test_dtype_and_number_of_maps():
    pyramid = FeaturePyramid((3, 4), 8, rngs=nnx.Rngs(0))
    maps = [jnp.ones((1, 4, 4, 3), jnp.bfloat16), jnp.ones((1, 2, 2, 4), jnp.bfloat16)]
    assert {x.dtype for x in pyramid(maps)} == {jnp.dtype('float32')}
    assert [x.shape[-1] for x in FeaturePyramid((3, 4), rngs=nnx.Rngs(0))(maps)] == [256, 256]
    with pytest.raises(ValueError, match='2 maps; got 1'):
        pyramid(maps[:1])


@pytest.mark.parametrize(
    ('height', 'width', 'stride'),
    [
        (224, 224, 16),
        (223.9, 224, 8),
        (112, 112, 8),
        (112, 111.9, 4),
        (448, 448, 32),
        (448, 447.9, 16),
        (447, 449, 16),
        (448, 112, 16),  # the area counts, not the longer side
        (896, 896, 32),
        (56, 56, 4),
        (20, 20, 4),
        (0, 50, 4),
        (-300, -300, 4),  # an inverted box has no area
    ],
)
def test_level_of_a_box(height, width, stride):
    boxes = jnp.array([[[-30, 17, -30 + height, 17 + width]]], jnp.float32)
    level = jax.jit(pyramid_level, static_argnums=1)(boxes, (4, 8, 16, 32))
    assert level.dtype == jnp.int32 and level.shape == (1, 1)
    assert (4, 8, 16, 32)[level.item()] == stride


def test_the_level_follows_equation_1():
    sides = np.random.default_rng(0).uniform(10, 1000, (500, 2)).astype(np.float32)
    k = np.floor(4 + np.log2(np.sqrt(sides.prod(1, dtype=np.float64)) / 224))
    boxes = np.concatenate([np.zeros_like(sides), sides], 1)
    for strides in ((2, 4, 8, 16, 32, 64), (4, 8, 16, 32), (8, 16)):
        np.testing.assert_array_equal(
            2 ** k.clip(*np.log2(strides)[[0, -1]]), np.array(strides)[pyramid_level(boxes, strides)]
        )


def test_of_equal_strides_the_last_is_read():
    side = jnp.array([[100.0], [130], [230], [500]])
    boxes = jnp.concatenate([jnp.zeros((4, 2)), side, side], 1)
    assert pyramid_level(boxes, (4, 8, 16, 16)).tolist() == [0, 1, 3, 3]
    assert pyramid_level(boxes, (2, 4, 4)).tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize('size', [7, 1])
def test_each_box_comes_from_its_own_level(size):
    random = np.random.default_rng(0)
    strides, centers = (4, 8, 16, 16), (2.5, 0.5, 7.5, 8.0)
    maps = [jnp.asarray(random.normal(size=(2, 480 // s, 480 // s, 3)), jnp.float32) for s in strides]
    low = random.uniform(0, 100, (2, 8, 2))
    sides = np.array([[30, 60], [100, 110], [113, 113], [200, 180], [224, 230], [100, 500], [400, 400], [470, 480]])
    levels = [0, 0, 1, 1, 3, 1, 3, 3]
    boxes = jnp.asarray(np.concatenate([low, low + sides], -1), jnp.float32)
    out = jax.jit(pyramid_align, static_argnums=(1, 2, 4))(maps, strides, centers, boxes, size)
    assert out.shape == (2, 8, size, size, 3)
    for b in range(2):
        for r, level in enumerate(levels):
            own = resample(maps[level][b], boxes[b, r : r + 1], size, strides[level], 14 // size, centers[level], True)
            np.testing.assert_allclose(out[b, r], own[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('measured', [True, False])
def test_a_ramp_is_read_at_the_same_place_from_every_level_of_a_backbone(measured):
    """Maps of the cells' positions yield the position of each bin in the image, from every level."""
    backbone = SMALL['efficientnet_lite'](nnx.Rngs(0))
    backbone.eval()
    backbone.measured_centers = measured
    where = []
    jax.eval_shape(lambda x: where.extend(level[1:3] for level in backbone.pyramid(x)), jnp.zeros((1, 448, 448, 3)))
    firsts = [2**n / 2 if measured else 2**n - 0.5 for n in range(1, 6)]  # 'SAME' shifts them to 1.5, 3.5, ...
    ramps = [first + 2**n * np.arange(448 // 2**n) for n, first in enumerate(firsts, 1)]
    maps = [jnp.asarray(np.stack(np.meshgrid(ramp, ramp, indexing='ij'), -1)[None], jnp.float32) for ramp in ramps]
    boxes = jnp.array([[[50, 60, 80, 90], [40, 100, 120, 180], [100, 60, 230, 200], [60, 80, 300, 330]]], jnp.float32)
    out = pyramid_align(maps, *zip(*where), boxes, 7)
    for box, result in zip(np.asarray(boxes[0]), out[0]):
        for axis in (0, 1):
            bins = box[axis] + (box[axis + 2] - box[axis]) * (np.arange(7) + 0.5) / 7
            np.testing.assert_allclose(result[..., axis].mean(1 - axis), bins, rtol=1e-4)
