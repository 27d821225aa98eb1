"""ResNets: shapes, torchvision's numbers of parameters, and parity with torch written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ssanet_jax.models.backbones import BACKBONES, build_backbone
from ssanet_jax.models.resnet import TinyResNet
from ssanet_jax.pretrained.load import load_pretrained

LAYOUTS = {
    'resnet18': ('basic', (2, 2, 2, 2)),
    'resnet34': ('basic', (3, 4, 6, 3)),
    'resnet50': ('bottleneck', (3, 4, 6, 3)),
    'resnet101': ('bottleneck', (3, 4, 23, 3)),
}


def torchvision_shapes(name):
    """torchvision's parameter names (without fc) -> shapes, written down independently of the model."""
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


def random_weights(name):
    random = np.random.default_rng(0)
    weights = {}
    for key, shape in torchvision_shapes(name).items():
        if key.endswith('num_batches_tracked'):
            weights[key] = np.zeros(shape, np.int64)
        elif len(shape) == 4:
            weights[key] = random.normal(scale=np.prod(shape[1:]) ** -0.5, size=shape).astype(np.float32)
        else:
            low, high = (-0.2, 0.2) if key.endswith(('bias', 'mean')) else (0.5, 1.5)
            weights[key] = random.uniform(low, high, shape).astype(np.float32)
    return weights


def parameters(module):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


@pytest.mark.parametrize(
    'name, millions', [('resnet18', 11.18), ('resnet34', 21.28), ('resnet50', 23.51), ('resnet101', 42.50)]
)
def test_has_the_parameters_of_torchvision_without_fc(name, millions):
    module = nnx.eval_shape(lambda: build_backbone(name, nnx.Rngs(0)))
    expected = sum(
        int(np.prod(shape)) for key, shape in torchvision_shapes(name).items() if key.endswith(('.weight', '.bias'))
    )
    assert parameters(module) == expected
    assert round(expected / 1e6, 2) == millions


@pytest.mark.parametrize('name', BACKBONES)
def test_maps_have_the_promised_shape_and_dtype(name):
    module = nnx.eval_shape(lambda: build_backbone(name, nnx.Rngs(0), jnp.bfloat16))
    images = jax.ShapeDtypeStruct((2, 96, 64, 3), jnp.float32)
    features = nnx.eval_shape(lambda module, x: module(x), module, images)
    assert features.shape == (2, 96 // module.stride, 64 // module.stride, module.features)
    assert features.dtype == jnp.bfloat16
    assert len(module.mean) == len(module.std) == 3
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(module))} == {jnp.dtype('float32')}


def test_an_unknown_name_lists_the_choices():
    with pytest.raises(ValueError, match='resnet50.*efficientnet_lite0'):
        build_backbone('resnet51', nnx.Rngs(0))


def test_tiny_resnet_can_be_resized_and_trains():
    module = TinyResNet(nnx.Rngs(0), widths=(8, 16), repeats=(1, 2), strides=(1, 2))
    assert (module.features, module.stride) == (16, 8)
    graph, params, stats = nnx.split(module, nnx.Param, ...)
    images = jax.random.normal(jax.random.key(0), (4, 32, 32, 3))

    @jax.jit
    def gradient(params):
        return jax.grad(lambda p: jnp.mean(nnx.merge(graph, p, stats, copy=True)(images)[..., 0]))(params)

    norms = [float(jnp.abs(leaf).sum()) for leaf in jax.tree.leaves(gradient(params))]
    assert np.isfinite(norms).all() and any(norms)


def torch_resnet(torch, weights, images, name):
    """torchvision's forward pass in evaluation mode, with `torch.nn.functional` alone."""
    f = torch.nn.functional
    w = {key: torch.from_numpy(value) for key, value in weights.items()}

    def bn(x, key):
        return f.batch_norm(x, w[f'{key}.running_mean'], w[f'{key}.running_var'], w[f'{key}.weight'], w[f'{key}.bias'])

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


@pytest.mark.parametrize('name', ['resnet18', 'resnet50'])
def test_equals_torch_under_torchvision_names(name, tmp_path):
    torch = pytest.importorskip('torch', reason='needs torch: pip install -e .[torch-parity]')
    weights = random_weights(name)
    torch.save({key: torch.from_numpy(value) for key, value in weights.items()}, tmp_path / 'weights.pth')
    module = build_backbone(name, nnx.Rngs(0))
    load_pretrained(module, name, str(tmp_path / 'weights.pth'))
    module.eval()
    images = np.random.default_rng(1).normal(size=(2, 64, 96, 3)).astype(np.float32)
    expected = torch_resnet(torch, weights, torch.from_numpy(images.transpose(0, 3, 1, 2)), name)
    expected = expected.numpy().transpose(0, 2, 3, 1)
    actual = nnx.jit(lambda module, x: module(x))(module, images)
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
