"""The benchmark of `predict` against an evaluation, at its smallest."""

import pytest

from benchmarks.prediction import EVALUATION, NO_PICTURES, PARTS, Settings, measure


@pytest.mark.slow
def test_both_kinds_of_pictures_are_compared_with_an_evaluation():
    settings = Settings(variant='fast', backbone='resnet_tiny', size=64, num_classes=3, photos=9, rounds=1)
    found = measure(settings).comparisons
    assert [(row.first, row.second) for row in found] == [(NO_PICTURES, EVALUATION), (PARTS, EVALUATION)]
    assert all(row.ratio and row.ratio > 0 for row in found)
