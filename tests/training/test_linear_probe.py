"""Classifiers fitted by L-BFGS against torch's optimizer, conditions of optimality, and cases worked out by hand."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssanet_jax.training.linear_probe import assign_folds, fit_softmax, fusion_weights, log_softmax, out_of_fold


def problem(seed=0, n=60, dimension=5, classes=3):
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=n)
    centers = rng.normal(size=(classes, dimension))
    return (centers[labels] + rng.normal(size=(n, dimension))).astype(np.float32), labels


def penalized_loss(parameters, features, labels, weights, l2):
    kernel, bias = parameters
    log_probabilities = jax.nn.log_softmax(features @ kernel + bias)
    picked = log_probabilities[jnp.arange(len(labels)), labels]
    return -(picked * weights).sum() / weights.sum() + l2 / 2 * (kernel**2).sum()


def test_the_gradient_vanishes_at_the_fit():
    features, labels = problem()
    fitted = fit_softmax(features, labels, 3, l2=0.1)
    gradient = jax.grad(penalized_loss)(tuple(fitted), features, labels, np.ones(len(labels)), 0.1)
    chex.assert_trees_all_close(gradient, jax.tree.map(jnp.zeros_like, gradient), atol=1e-3)


def test_weight_zero_leaves_an_example_out():
    features, labels = problem()
    kept = np.arange(len(labels)) % 3 > 0
    weighted = fit_softmax(features, labels, 3, l2=0.05, weights=kept)
    alone = fit_softmax(features[kept], labels[kept], 3, l2=0.05)
    chex.assert_trees_all_close(weighted, alone, atol=5e-3)


def test_agrees_with_torch():
    torch = pytest.importorskip('torch')
    features, labels = problem(seed=1)
    kernel, bias = torch.zeros(5, 3, requires_grad=True), torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.LBFGS([kernel, bias], max_iter=300, line_search_fn='strong_wolfe')

    def closure():
        optimizer.zero_grad()
        logits = torch.tensor(features) @ kernel + bias
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels)) + 0.05 * (kernel**2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    fitted = fit_softmax(features, labels, 3, l2=0.1)
    chex.assert_trees_all_close(fitted.kernel, kernel.detach().numpy(), atol=5e-3)


@pytest.mark.parametrize('l2', [0.0, -1.0])
def test_refuses_a_penalty_that_is_not_positive(l2):
    with pytest.raises(ValueError, match='l2 must be above 0'):
        fit_softmax(*problem(), 3, l2=l2)


def test_refuses_no_examples():
    features, labels = problem()
    with pytest.raises(ValueError, match='no example'):
        fit_softmax(features, labels, 3, l2=1.0, weights=np.zeros(len(labels)))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 4), min_size=5, max_size=60), st.integers(0, 5))
def test_folds_share_every_class_evenly(labels, seed):
    labels = np.array(labels)
    folds = assign_folds(labels, 5, seed)
    assert set(folds) <= set(range(5))
    for label in set(labels):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    whole = np.bincount(folds, minlength=5)
    assert whole.max() - whole.min() <= 1


def test_out_of_fold_never_sees_its_own_example():
    """Labels at random: a classifier that has seen an example knows its label; one that has not is at chance."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(120, 200)).astype(np.float32), rng.integers(2, size=120)
    seen = fit_softmax(features, labels, 2, l2=1e-3).logits(features).argmax(1)
    found = out_of_fold(features, labels, 2, assign_folds(labels, 5, 0), l2=1e-3)
    assert (seen == labels).mean() > 0.99
    assert 0.3 < (found.argmax(1) == labels).mean() < 0.7
    chex.assert_trees_all_close(np.exp(found).sum(1), np.ones(120), atol=1e-5)


def test_fusion_ignores_noise_and_sharpens_a_timid_head():
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=2000)
    evidence = 2.0 * np.eye(4)[labels] + rng.normal(size=(2000, 4))
    noise = log_softmax(3 * rng.normal(size=(2000, 4)))
    timid = log_softmax(0.1 * evidence)
    weights = fusion_weights(np.stack([timid, noise]), labels)
    assert weights[0] > 5  # Bayes' rule for these densities asks for 20
    assert weights[1] < 0.02
    # No grid point nearby is better.
    loss = lambda w: -log_softmax(np.tensordot(w, np.stack([timid, noise]), 1))[np.arange(2000), labels].mean()
    best = loss(weights)
    for change in ([0.5, 0], [-0.5, 0], [0, 0.02]):
        assert loss(weights + np.array(change)) >= best - 1e-6


@pytest.mark.parametrize('views', [1, 2])
def test_fusion_of_heads_that_are_always_right_stays_moderate(views):
    """60 images support the accuracy 60.5 / 61, whatever the number of their views: no photo is certain."""
    labels = np.arange(60) % 2
    margin = np.random.default_rng(0).uniform(0.2, 1.5, (2, 60))
    scores = np.tile(log_softmax(margin[..., None] * np.eye(2)[labels]), (1, views, 1))
    weights = fusion_weights(scores, np.tile(labels, views), num_images=60)
    chex.assert_trees_all_close(weights, fusion_weights(scores[:, :60], labels), rtol=1e-2)
    right = lambda logits, labels: np.exp(log_softmax(logits))[np.arange(len(labels)), labels]
    assert 0.97 < right(np.tensordot(weights, scores[:, :60], 1), labels).mean() < 60.5 / 61
    doubtful = np.log([[0.51, 0.49]])  # of both heads
    assert 0.51 < right(weights.sum() * doubtful, np.array([0]))[0] < 0.6


def test_fusion_weighs_one_head_as_its_right_answers_support():
    """By hand: n right answers of margin m and N classes get the probability (n + 1 / N) / (n + 1)."""
    labels, margin = np.arange(90) % 3, 2.0
    weights = fusion_weights(log_softmax(margin * np.eye(3)[labels])[None], labels)
    probability = (90 + 1 / 3) / 91
    chex.assert_trees_all_close(weights[0], np.log(2 * probability / (1 - probability)) / margin, rtol=1e-3)
