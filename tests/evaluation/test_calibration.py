"""Calibration against distributions whose calibration is known."""

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from ssanet_jax.evaluation.calibration import (
    expected_calibration_error,
    fit_temperature,
    reliability,
    selective_accuracy,
)


def draw(count, num_classes, seed=0):
    """Logits, and labels that are drawn from their softmax: calibrated by construction."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(count, num_classes))
    probabilities = scipy.special.softmax(logits, -1)
    return logits, np.array([rng.choice(num_classes, p=row) for row in probabilities])


def confidence(logits, labels):
    return scipy.special.softmax(logits, -1).max(-1), logits.argmax(-1) == labels


@pytest.mark.parametrize('temperature', [0.5, 1, 3])
def test_the_temperature_of_logits_that_were_scaled(temperature):
    logits, labels = draw(20_000, 5)
    assert fit_temperature(temperature * logits, labels) == pytest.approx(temperature, rel=0.03)


@pytest.mark.parametrize(('count', 'num_classes', 'margin'), [(60, 2, 0.3), (60, 2, 30.0), (1000, 20, 4.0)])
def test_right_answers_alone_do_not_make_certain(count, num_classes, margin):
    """n right answers of equal logits: the temperature at which their probability is (n + 1 / N) / (n + 1)."""
    labels = np.arange(count) % num_classes
    probability = (count + 1 / num_classes) / (count + 1)
    expected = margin / np.log(probability * (num_classes - 1) / (1 - probability))
    assert fit_temperature(margin * np.eye(num_classes)[labels], labels) == pytest.approx(expected, rel=1e-3)


def test_errors_that_are_seen_outweigh_those_that_are_not():
    """On 1,000 images of which some are misclassified, the temperature is that of the labels themselves, nearly."""
    logits, labels = draw(1000, 5)
    temperatures = np.geomspace(0.5, 2, 2000)
    scores = [scipy.special.log_softmax(logits / t, -1)[np.arange(1000), labels].mean() for t in temperatures]
    assert fit_temperature(logits, labels) == pytest.approx(temperatures[np.argmax(scores)], rel=0.01)


def test_no_examples_have_no_temperature():
    with pytest.raises(ValueError, match='no examples'):
        fit_temperature(np.zeros((0, 3)), np.zeros(0, int))


def test_the_error_is_zero_for_a_calibrated_network_and_grows_with_its_certainty():
    logits, labels = draw(20_000, 5)
    calibrated, sure, surer = (expected_calibration_error(*confidence(k * logits, labels)) for k in (1, 2, 4))
    assert calibrated < 0.02 < 0.1 < sure < surer


def test_the_error_by_hand():
    # Two bins of ten: (0.65, 0.65) with half right, and (0.95,) wrong.
    found = expected_calibration_error(np.array([0.65, 0.65, 0.95]), np.array([True, False, False]), num_bins=10)
    assert found == pytest.approx((2 * 0.15 + 0.95) / 3)
    assert np.isnan(expected_calibration_error(np.zeros(0), np.zeros(0, bool)))


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50), st.integers(1, 20))
@settings(deadline=None)
def test_every_prediction_is_in_one_bin(pairs, num_bins):
    scores, correct = (np.array(column) for column in zip(*pairs))
    bins = reliability(scores, correct, num_bins)
    assert sum(each.count for each in bins) == len(pairs)
    assert sum(each.count * each.accuracy for each in bins) == pytest.approx(correct.sum())
    assert sum(each.count * each.confidence for each in bins) == pytest.approx(scores.sum())
    # A bin holds (lower, upper], and the first one 0 as well.
    assert all(0 <= np.ceil(each.confidence * num_bins - 1e-9) <= num_bins for each in bins)


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.7, 0.9]), st.booleans()), min_size=1, max_size=30))
@settings(deadline=None)
def test_selective_accuracy_is_that_above_a_threshold(pairs):
    scores, correct = (np.array(column) for column in zip(*pairs))
    coverage, accuracy = selective_accuracy(scores, correct)
    thresholds = sorted(set(scores.tolist()), reverse=True)
    assert len(coverage) == len(thresholds) and coverage[-1] == 1
    for threshold, share, value in zip(thresholds, coverage, accuracy, strict=True):
        answered = scores >= threshold
        assert share == pytest.approx(answered.mean()) and value == pytest.approx(correct[answered].mean())
