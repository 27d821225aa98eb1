"""ConvNeXt: published numbers of parameters, parity with a hand-written torch model, training without BatchNorm."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_backbones import assert_close, assert_equals_torch, parameters, random_weights

from ssanet_jax.models.backbones.convnext import ConvNeXt
from ssanet_jax.models.backbones.registry import BACKBONES, build_backbone
from ssanet_jax.models.ssanet import SSANet, merge_model, split_model
from ssanet_jax.pretrained.load import load_pretrained
from ssanet_jax.pretrained.names import FAMILIES
from ssanet_jax.runs.checkpoints import Checkpoints

WIDTHS = (96, 192, 384, 768)
REPEATS = {'convnext_tiny': (3, 3, 9, 3), 'convnext_small': (3, 3, 27, 3), 'short': (1, 1, 2, 1)}


# The published number includes the classifier: 768 * 1000 weights and 1000 biases.
@pytest.mark.parametrize('name, published', [('convnext_tiny', 28_589_128), ('convnext_small', 50_223_688)])
def test_parameters_are_as_published(name, published):
    assert parameters(nnx.eval_shape(lambda: build_backbone(name, nnx.Rngs(0)))) == published - 769_000


def names(naming):
    """Names of the stem, its norm, the last norm, a downsampling, a block, its layers, and its layer scale."""
    if naming == 'torchvision':
        layers = ('block.0', 'block.2', 'block.3', 'block.5')
        shrink, block = (lambda s: f'features.{2 * s}'), (lambda s, i: f'features.{2 * s + 1}.{i}')
        return 'features.0.0', 'features.0.1', 'classifier.0', shrink, block, layers, 'layer_scale'
    layers = ('conv_dw', 'norm', 'mlp.fc1', 'mlp.fc2')
    shrink, block = (lambda s: f'stages.{s}.downsample'), (lambda s, i: f'stages.{s}.blocks.{i}')
    return 'stem.0', 'stem.1', 'head.norm', shrink, block, layers, 'gamma'


def shapes(name, naming):
    """Torch names -> shapes, written down independently of the model."""
    stem, stem_norm, head_norm, shrink, block, (depthwise, norm, expand, project), scale = names(naming)
    kernels = {stem: (96, 3, 4, 4), stem_norm: (96,), head_norm: (768,)}
    result = {}
    for s, (width, count) in enumerate(zip(WIDTHS, REPEATS[name], strict=True)):
        if s > 0:
            kernels |= {f'{shrink(s)}.0': (WIDTHS[s - 1],), f'{shrink(s)}.1': (width, WIDTHS[s - 1], 2, 2)}
        for i in range(count):
            p = block(s, i)
            kernels |= {f'{p}.{depthwise}': (width, 1, 7, 7), f'{p}.{norm}': (width,)}
            kernels |= {f'{p}.{expand}': (4 * width, width), f'{p}.{project}': (width, 4 * width)}
            result[f'{p}.{scale}'] = (width, 1, 1) if naming == 'torchvision' else (width,)
    for key, shape in kernels.items():
        result |= {f'{key}.weight': shape, f'{key}.bias': shape[:1]}
    return result


def torch_convnext(torch, w, x, name, naming):
    """The map of torchvision and timm by `torch.nn.functional`, with the classifier's LayerNorm on each cell."""
    f = torch.nn.functional
    stem, stem_norm, head_norm, shrink, block, (depthwise, norm, expand, project), scale = names(naming)
    both = lambda key: (w[f'{key}.weight'], w[f'{key}.bias'])
    last = lambda x: x.permute(0, 2, 3, 1)
    first = lambda x: x.permute(0, 3, 1, 2)
    layer_norm = lambda x, key: f.layer_norm(x, x.shape[-1:], *both(key), eps=1e-6)
    x = first(layer_norm(last(f.conv2d(x, *both(stem), stride=4)), stem_norm))
    for s, count in enumerate(REPEATS[name]):
        if s > 0:
            x = f.conv2d(first(layer_norm(last(x), f'{shrink(s)}.0')), *both(f'{shrink(s)}.1'), stride=2)
        for i in range(count):
            p = block(s, i)
            y = f.conv2d(x, *both(f'{p}.{depthwise}'), padding=3, groups=x.shape[1])
            y = f.gelu(f.linear(layer_norm(last(y), f'{p}.{norm}'), *both(f'{p}.{expand}')))
            x = x + first(f.linear(y, *both(f'{p}.{project}'))) * w[f'{p}.{scale}'].reshape(-1, 1, 1)
    return first(layer_norm(last(x), head_norm))


@pytest.mark.parametrize(
    'name, naming, backward',
    [
        ('short', 'torchvision', False),
        ('short', 'timm', False),
        pytest.param('short', 'torchvision', True, marks=pytest.mark.slow),
        pytest.param('short', 'timm', True, marks=pytest.mark.slow),
        pytest.param('convnext_tiny', 'torchvision', False, marks=pytest.mark.slow),
        pytest.param('convnext_small', 'timm', False, marks=pytest.mark.slow),
    ],
)
def test_equals_torch(name, naming, backward, tmp_path, monkeypatch):
    monkeypatch.setitem(BACKBONES, 'short', partial(ConvNeXt, REPEATS['short']))
    monkeypatch.setitem(FAMILIES, 'short', FAMILIES['convnext_tiny'])
    weights = random_weights(shapes(name, naming))
    forward = lambda torch, w, images: torch_convnext(torch, w, images, name, naming)
    # 70 is not a multiple of 32: both implementations drop the incomplete patch at the border.
    assert_equals_torch(name, weights, forward, tmp_path, training=True, backward=backward, size=(70, 96))


def test_equals_dinov3_of_transformers(monkeypatch, tmp_path):
    """The tokens of the patches; the first token is their average, which goes through the same norm."""
    torch = pytest.importorskip('torch', reason='needs torch: pip install -e .[torch-parity]')
    library = pytest.importorskip('transformers', reason='needs transformers: pip install -e .[torch-parity]')
    depths, widths = (1, 1, 2, 1), (8, 16, 24, 32)
    config = library.DINOv3ConvNextConfig(hidden_sizes=list(widths), depths=list(depths))
    network = library.DINOv3ConvNextModel(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    network.save_pretrained(tmp_path)
    monkeypatch.setitem(BACKBONES, 'narrow', partial(ConvNeXt, depths, widths=widths))
    monkeypatch.setitem(FAMILIES, 'narrow', FAMILIES['convnext_tiny'])
    module = nnx.eval_shape(lambda: build_backbone('narrow', nnx.Rngs(0)))
    load_pretrained(module, 'narrow', str(tmp_path / 'model.safetensors'))
    images = np.random.default_rng(0).normal(size=(2, 64, 96, 3)).astype(np.float32)
    with torch.no_grad():
        tokens = network.double()(torch.tensor(images.transpose(0, 3, 1, 2)).double()).last_hidden_state
    ours = nnx.jit(lambda module, images: module(images))(module, images)
    assert_close(ours, tokens[:, 1:].reshape(2, 2, 3, 32).numpy(), 1e-4, 'tokens')


def test_a_new_block_is_nearly_the_identity():
    module = ConvNeXt((1, 1, 1, 1), nnx.Rngs(0), widths=(8, 8, 8, 8))
    x = jax.random.normal(jax.random.key(0), (1, 5, 6, 8))
    np.testing.assert_allclose(nnx.jit(lambda block, x: block(x))(module.stages[0][0], x), x, atol=1e-4)
    assert module.stages[0][0].layer_scale[...].tolist() == pytest.approx([1e-6] * 8)


@pytest.fixture
def small(monkeypatch):
    """An SSANet without BatchNorm."""
    monkeypatch.setitem(BACKBONES, 'small', partial(ConvNeXt, (1, 1, 1, 1), widths=(8, 8, 8, 16)))
    model = SSANet(3, 64, backbone='small', num_parts=2, num_proposals=2, num_scales=3, rngs=nnx.Rngs(0))
    model.backbone.train()
    model.eval()
    return model


def test_a_network_without_statistics_is_split_and_merged(small):
    graph, params, stats = split_model(small)
    assert not jax.tree.leaves(stats)
    images = jnp.zeros((1, 64, 64, 3), jnp.uint8)
    logits = nnx.jit(lambda model, images: model(images).logits)
    np.testing.assert_array_equal(logits(merge_model(graph, params, stats), images), logits(small, images))


def test_a_network_without_statistics_is_saved(small, tmp_path):
    _, params, stats = split_model(small)
    checkpoints = Checkpoints(tmp_path / 'checkpoints', writes=True)
    checkpoints.save(1, {'params': params, 'stats': stats})
    _, items = checkpoints.restore({'params': params, 'stats': stats})
    checkpoints.close()
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), items, {'params': params, 'stats': stats}))
