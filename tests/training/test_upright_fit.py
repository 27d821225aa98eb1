"""The fit of orientations: on features with known structure, and through a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ssanet_jax.models.backbones.registry import build_backbone
from ssanet_jax.models.upright import Upright, rotate, sum_over_quarters
from ssanet_jax.training.linear_probe import fit_softmax, log_softmax
from ssanet_jax.training.upright_fit import fit_upright, orientation_features, set_weights


def turned_features(num_images, num_angles, seed, noise=1.0):
    """Features that depend on the angle, with noise: `[n, T, D]`."""
    random = np.random.default_rng(seed)
    angle = 2 * np.pi * np.arange(num_angles) / num_angles
    signal = np.stack([np.cos(angle), np.sin(angle), np.zeros(num_angles)], -1)
    return (5 + 3 * (signal + noise * random.normal(size=(num_images, num_angles, 3)))).astype(np.float32)


def predict(weights, features):
    """The orientation of the first quarter of the views of images: `[n, T, D]` -> `[n, T / 4]`."""
    logits = (features - weights.mean) / weights.std @ weights.kernel + weights.bias
    num_images, num_angles, _ = logits.shape
    copies = logits.reshape(num_images, 4, num_angles // 4, num_angles)
    return np.asarray(sum_over_quarters(jnp.moveaxis(jnp.asarray(copies), 1, 0))).argmax(-1)


@pytest.mark.parametrize('num_angles', [4, 12])
def test_finds_the_angles_of_held_out_images(num_angles):
    weights = fit_upright(turned_features(200, num_angles, seed=0), l2=1e-3)
    found = predict(weights, turned_features(200, num_angles, seed=1))
    error = found - np.arange(num_angles // 4)
    error = np.minimum(error % num_angles, -error % num_angles) * 360 / num_angles
    assert error.mean() < 30
    assert weights.kernel.shape == (3, num_angles)


def test_is_the_minimum_of_the_summed_cross_entropy():
    features = turned_features(50, 4, seed=0)
    weights = fit_upright(features, l2=0.05)

    def objective(kernel):
        logits = (features - weights.mean) / weights.std @ kernel + weights.bias  # [n, 4, 4]
        summed = sum(np.roll(logits[:, j], -j, -1) for j in range(4))
        return 0.05 / 2 * np.square(kernel).sum() - log_softmax(summed)[:, 0].mean()

    random = np.random.default_rng(0)
    lowest = objective(weights.kernel)
    for _ in range(20):
        assert objective(weights.kernel + 0.05 * random.normal(size=(3, 4))) > lowest


def test_is_better_than_a_fit_of_single_views():
    """Features with a large part that all quarter turns share: a sum of copies cancels it, a single copy cannot."""
    random = np.random.default_rng(0)
    features = turned_features(300, 4, seed=2)
    features = features + 20 * random.normal(size=(300, 1, 3)).astype(np.float32)
    train, held_out = features[:200], features[200:]
    summed = fit_upright(train, l2=1e-3)
    mean, std = summed.mean, summed.std
    flat = ((train - mean) / std).reshape(-1, 3)
    single = fit_softmax(flat, np.tile(np.arange(4), 200), 4, l2=1e-3)
    alone = single.logits((held_out - mean) / std).argmax(-1) == np.arange(4)
    assert (predict(summed, held_out) == 0).mean() > alone.mean() + 0.2


def test_rejects_a_penalty_that_is_not_positive():
    with pytest.raises(ValueError, match='l2 must be above 0'):
        fit_upright(turned_features(2, 4, seed=0), l2=0.0)


def test_network_learns_which_side_is_bright():
    """Images that are brighter at the top: the scores find the turn, for quarters and for 30 degrees."""
    random = np.random.default_rng(0)
    ramp = np.linspace(2, -2, 32, dtype=np.float32)[:, None, None]
    images = jnp.asarray(ramp + 0.3 * random.normal(size=(40, 32, 32, 3)).astype(np.float32))
    rngs = nnx.Rngs(0)
    backbone = build_backbone('resnet_tiny', rngs, jnp.dtype('float32'), 0)
    for num_angles in (4, 12):
        upright = Upright(backbone.num_features, num_angles, 32, rngs=rngs)
        features = jax.jit(lambda x, upright=upright: orientation_features(upright, backbone, x))(images[:30])
        assert features.shape == (30, num_angles, backbone.num_features)
        set_weights(upright, fit_upright(np.asarray(features), l2=1e-3))
        for orientation in range(num_angles):
            turned = jax.vmap(rotate, (0, None))(images[30:], 2 * jnp.pi * orientation / num_angles)
            found = upright.scores(backbone, turned).argmax(-1)
            error = (found - orientation + num_angles // 2) % num_angles - num_angles // 2
            assert (jnp.abs(error) <= num_angles // 12).mean() > 0.8
