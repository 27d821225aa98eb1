"""Labels that were exchanged are found, and correct ones left alone."""

import numpy as np
import scipy.special

from ssanet_jax.evaluation.label_errors import find_label_errors


def test_exchanged_labels_come_first():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 6, 600)
    probabilities = scipy.special.softmax(6 * np.eye(6)[truth] + rng.normal(size=(600, 6)) / 2, -1)
    labels = truth.copy()
    wrong = rng.choice(600, 30, replace=False)
    labels[wrong] = (truth[wrong] + rng.integers(1, 6, 30)) % 6
    found = find_label_errors(probabilities, labels)
    assert {error.position for error in found[:30]} == set(wrong)
    assert all(error.suggested == truth[error.position] for error in found[:30])
    assert all(error.label == labels[error.position] for error in found)


def test_confused_classes_are_not_listed():
    probabilities = np.array([[0.4, 0.6], [0.015, 0.985], [0.03, 0.97], [0.99, 0.01]])
    found = find_label_errors(probabilities, np.zeros(4, int))
    assert [(error.position, error.suggested) for error in found] == [(1, 1)]
    assert [error.position for error in find_label_errors(probabilities, np.zeros(4, int), 0.5)] == [1, 2, 0]


def test_no_images():
    assert find_label_errors(np.zeros((0, 3)), np.zeros(0, int)) == []
