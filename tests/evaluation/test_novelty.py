"""Strangers among predictions that are drawn from a known distribution."""

import numpy as np
import pytest
import scipy.special

from ssanet_jax.evaluation.novelty import MIN_IMAGES, NoveltyDetector

NUM_CLASSES = 12


def known(count, seed):
    """Logits of images of the classes: each class resembles its neighbors on a circle."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, NUM_CLASSES, count)
    steps = np.abs(np.arange(NUM_CLASSES)[None] - labels[:, None])
    steps = np.minimum(steps, NUM_CLASSES - steps)
    return 6 - 2 * steps + rng.normal(size=(count, NUM_CLASSES))


def strangers(count, seed):
    """As confident as `known`, with runners-up that resemble the predicted class no more than others."""
    rng = np.random.default_rng(seed)
    return rng.permuted(known(count, seed), axis=1)


@pytest.fixture(scope='module')
def detector():
    return NoveltyDetector(scipy.special.log_softmax(known(400, 0), -1))


def test_known_images_are_spread_evenly(detector):
    novelty = detector(known(4000, 1))
    assert novelty.min() >= 0 and novelty.max() <= 1
    for limit in (0.5, 0.9, 0.95):
        assert (novelty < limit).mean() == pytest.approx(limit, abs=0.04)


def test_confident_strangers_are_found(detector):
    """Their entropy is that of known images, so that the largest probability does not give them away."""
    found, expected = detector(strangers(1000, 2)), detector(known(1000, 3))
    assert (found > 0.95).mean() > 0.9 > 0.1 > (expected > 0.95).mean()
    confidence = [scipy.special.softmax(draw(1000, 2), -1).max(-1).mean() for draw in (strangers, known)]
    assert confidence[0] == pytest.approx(confidence[1])


def test_images_between_the_classes_are_found(detector):
    assert (detector(np.random.default_rng(0).normal(size=(100, NUM_CLASSES)) / 10) > 0.95).all()


def test_logits_of_any_offset_are_the_same(detector):
    logits = known(20, 4)
    np.testing.assert_array_equal(detector(logits), detector(logits + np.arange(20)[:, None]))


def test_by_a_slow_loop():
    """The definition, image by image."""
    reference, logits = known(30, 5), known(3, 6)
    direction = lambda x: (x - x.mean()) / np.linalg.norm(x - x.mean())

    def signs(x, others):
        p = np.exp(x) / np.exp(x).sum()
        return -(p * np.log(p)).sum(), min(1 - direction(x) @ direction(other) for other in others)

    table = np.array([signs(x, np.delete(reference, i, 0)) for i, x in enumerate(reference)])
    score = lambda values: ((values - table.mean(0)) / table.std(0)).sum()
    scores = sorted(score(row) for row in table)
    expected = [sum(s < score(np.array(signs(x, reference))) for s in scores) / 30 for x in logits]
    found = NoveltyDetector(scipy.special.log_softmax(reference, -1))(logits)
    np.testing.assert_allclose(found, expected, atol=1 / 30 + 1e-6)


def test_an_image_is_not_compared_with_itself():
    """A held-out image would have the distance 0, and every other image seem far."""
    detector = NoveltyDetector(known(100, 7))
    assert detector(known(1000, 8)).mean() == pytest.approx(0.5, abs=0.1)


def test_many_references_are_sampled():
    detector = NoveltyDetector(known(12_000, 9))
    assert len(detector._known) == 5000
    assert detector(known(1000, 10)).mean() == pytest.approx(0.5, abs=0.05)


def test_too_few_images():
    with pytest.raises(ValueError, match='too few'):
        NoveltyDetector(known(MIN_IMAGES - 1, 0))
