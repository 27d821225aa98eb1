"""The benchmark of kept memory, at its smallest."""

import pytest

from benchmarks.heap import KEPT, RETURNED, Settings, measure


@pytest.mark.slow
def test_two_processes_predict_in_turn():
    (row,) = measure(Settings(backbone='resnet_tiny', size=64, num_classes=3, batch=2, rounds=1)).comparisons
    assert (row.first, row.second) == (KEPT, RETURNED)
    assert row.ratio is not None and row.ratio > 0
