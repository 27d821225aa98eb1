"""The figures of the benchmark on exchanged labels, counted by hand."""

import numpy as np
import pytest

from benchmarks.label_errors import exchange_labels, held_out_probabilities, list_quality
from ssanet_jax.evaluation.label_errors import find_label_errors
from ssanet_jax.runs.feature_index import FeatureIndex, row_type


def test_a_list_beside_what_should_be_on_it():
    assert list_quality([4, 9, 2], [2, 4, 7, 8]) == (3, pytest.approx(2 / 3), 0.5, pytest.approx(2 / 3))
    assert list_quality([], [1]) == (0, 0, 0, 0)
    assert list_quality(list(range(100)), [0, 99]).first == pytest.approx(1 / 50)


def test_exchanged_labels_are_others():
    labels = np.arange(200) % 4
    exchanged, chosen = exchange_labels(labels, 0.1, 0)
    assert len(chosen) == 20 and sorted(chosen) == np.flatnonzero(exchanged != labels).tolist()
    exchanged, chosen = exchange_labels(labels, 0.1, 0, np.array([1, 0, 3, 2]))
    assert (exchanged[chosen] == labels[chosen] ^ 1).all() and sorted(chosen) == sorted(set(chosen))


def test_exchanged_labels_are_found_by_features():
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    rows = np.zeros(120, row_type(8, 1, 6))
    rows['image'] = np.eye(3, 8)[labels] + 0.1 * rng.normal(size=(120, 8))
    rows['parts'] = np.eye(3, 6)[labels][:, None] + 0.1 * rng.normal(size=(120, 1, 6))
    exchanged, chosen = exchange_labels(labels, 0.05, 0)
    probabilities = held_out_probabilities(FeatureIndex(rows, [], 'fit', ''), exchanged, 0)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-4)
    found = find_label_errors(probabilities, exchanged, 0.1)
    assert {error.position for error in found} == set(chosen.tolist())
