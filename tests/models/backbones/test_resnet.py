"""ResNets: torchvision's numbers of parameters, and parity with a hand-written torch model."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_backbones import assert_equals_torch, parameters, random_weights

from ssanet_jax.models.backbones.batch_norm import BatchNorm
from ssanet_jax.models.backbones.registry import BACKBONES, build_backbone
from ssanet_jax.models.backbones.resnet import Bottleneck, ResNet, TinyResNet
from ssanet_jax.pretrained.names import FAMILIES

LAYOUTS = {
    'resnet18': ('basic', (2, 2, 2, 2)),
    'resnet34': ('basic', (3, 4, 6, 3)),
    'resnet50': ('bottleneck', (3, 4, 6, 3)),
    'resnet101': ('bottleneck', (3, 4, 23, 3)),
    'resnet152': ('bottleneck', (3, 8, 36, 3)),
}


def torchvision_shapes(name):
    """Torchvision's parameter names (without fc) -> shapes, written down independently of the model."""
    kind, repeats = LAYOUTS[name]
    shapes = {}

    def add(conv, bn, out, channels, size):
        shapes[f'{conv}.weight'] = (out, channels, size, size)
        shapes.update({f'{bn}.{key}': (out,) for key in ('weight', 'bias', 'running_mean', 'running_var')})
        shapes[f'{bn}.num_batches_tracked'] = ()

    add('conv1', 'bn1', 64, 3, 7)
    channels = 64
    for layer, count in enumerate(repeats, 1):
        width = 32 * 2**layer
        out = width if kind == 'basic' else 4 * width
        for index in range(count):
            p = f'layer{layer}.{index}'
            sizes = (
                [(width, channels, 3), (width, width, 3)]
                if kind == 'basic'
                else [(width, channels, 1), (width, width, 3), (out, width, 1)]
            )
            for number, (o, i, k) in enumerate(sizes, 1):
                add(f'{p}.conv{number}', f'{p}.bn{number}', o, i, k)
            if index == 0 and (layer > 1 or out != channels):
                add(f'{p}.downsample.0', f'{p}.downsample.1', out, channels, 1)
            channels = out
    return shapes


@pytest.mark.parametrize(
    'name, millions',
    [('resnet18', 11.18), ('resnet34', 21.28), ('resnet50', 23.51), ('resnet101', 42.50), ('resnet152', 58.14)],
)
def test_has_the_parameters_of_torchvision_without_fc(name, millions):
    module = nnx.eval_shape(lambda: build_backbone(name, nnx.Rngs(0)))
    expected = sum(
        int(np.prod(shape)) for key, shape in torchvision_shapes(name).items() if key.endswith(('.weight', '.bias'))
    )
    assert parameters(module) == expected
    assert round(expected / 1e6, 2) == millions


def test_tiny_resnet_can_be_resized_and_trains():
    module = TinyResNet(nnx.Rngs(0), widths=(8, 16), repeats=(1, 2), strides=(1, 2))
    assert (module.num_features, module.stride) == (16, 8)
    graph, params, stats = nnx.split(module, nnx.Param, ...)
    images = jax.random.normal(jax.random.key(0), (4, 32, 32, 3))

    @jax.jit
    def gradient(params):
        return jax.grad(lambda p: jnp.mean(nnx.merge(graph, p, stats, copy=True)(images)[..., 0]))(params)

    norms = [float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(gradient(params))]
    assert np.isfinite(norms).all() and any(norms)


def test_half_the_stride_of_tiny_resnet_dilates_no_stage():
    """Only the final averaging changes its stride, whatever the number of blocks: the stages' maps stay the same."""
    coarse, fine = (TinyResNet(nnx.Rngs(0), repeats=(2, 3), output_stride=stride) for stride in (0, 4))
    coarse.eval(), fine.eval()
    assert fine.dilated and not fine.last_stage_dilated and (coarse.stride, fine.stride) == (8, 4)
    images = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))
    for ours, theirs in zip(fine.pyramid(images)[:-1], coarse.pyramid(images)[:-1], strict=True):
        np.testing.assert_array_equal(ours.map, theirs.map)
    np.testing.assert_allclose(fine(images)[:, ::2, ::2], coarse(images), rtol=1e-6, atol=1e-6)


def test_the_running_variance_is_unbiased():
    norm = BatchNorm(3, momentum=0.9, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(2, 2, 1, 3)).astype(np.float32)
    norm(jnp.asarray(x))
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * x.var((0, 1, 2), ddof=1), rtol=1e-6)
    kept = norm.var[...]
    norm.eval()
    norm(jnp.asarray(x))
    np.testing.assert_array_equal(norm.var[...], kept)
    norm.train()
    norm(jnp.ones((1, 1, 1, 3)))  # one value per channel has no unbiased variance
    assert np.isfinite(norm.var[...]).all()


def torch_resnet(torch, w, images, name, training):
    """Torchvision's forward pass in `torch.nn.functional`; in training it updates the statistics in `w`."""
    f = torch.nn.functional

    def bn(x, key):
        mean, var, scale, bias = (w[f'{key}.{part}'] for part in ('running_mean', 'running_var', 'weight', 'bias'))
        return f.batch_norm(x, mean, var, scale, bias, training=training, momentum=0.1, eps=1e-5)

    def conv(x, key, stride=1):
        kernel = w[f'{key}.weight']
        return f.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    kind, repeats = LAYOUTS[name]
    x = f.max_pool2d(f.relu(bn(conv(images, 'conv1', 2), 'bn1')), 3, 2, 1)
    for layer, count in enumerate(repeats, 1):
        for index in range(count):
            p, stride = f'layer{layer}.{index}', 2 if layer > 1 and index == 0 else 1
            strides = (stride, 1) if kind == 'basic' else (1, stride, 1)
            y = x
            for number, step in enumerate(strides, 1):
                y = bn(conv(y, f'{p}.conv{number}', step), f'{p}.bn{number}')
                y = f.relu(y) if number < len(strides) else y
            if f'{p}.downsample.0.weight' in w:
                x = bn(conv(x, f'{p}.downsample.0', stride), f'{p}.downsample.1')
            x = f.relu(y + x)
    return x


@pytest.mark.parametrize(
    'name, training, backward',
    [
        ('resnet18', True, True),
        ('resnet18', False, True),
        ('resnet50', False, True),
        pytest.param('resnet50', True, False, marks=pytest.mark.slow),
        pytest.param('resnet34', False, False, marks=pytest.mark.slow),
        pytest.param('resnet101', False, False, marks=pytest.mark.slow),
        pytest.param('resnet152', False, False, marks=pytest.mark.slow),
        ('bottlenecks', True, True),
    ],
)
def test_equals_torch_under_torchvision_names(name, training, backward, tmp_path, monkeypatch):
    # With small batches and random weights, the gradient of 50 layers is so ill-conditioned that torch in float32
    # differs from torch in float64 by several per cent. One block per stage exercises the same layers.
    monkeypatch.setitem(BACKBONES, 'bottlenecks', partial(ResNet, Bottleneck, (1, 1, 1, 1)))
    monkeypatch.setitem(FAMILIES, 'bottlenecks', FAMILIES['resnet50'])
    monkeypatch.setitem(LAYOUTS, 'bottlenecks', ('bottleneck', (1, 1, 1, 1)))
    weights = random_weights(torchvision_shapes(name))
    forward = lambda torch, w, images: torch_resnet(torch, w, images, name, training)
    size = (128, 160) if training and name == 'resnet50' else (64, 96)  # more numbers for the last statistics
    assert_equals_torch(name, weights, forward, tmp_path, training=training, backward=backward, size=size)
