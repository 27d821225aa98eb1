"""Means, deviations and paired comparisons, against textbook numbers and SciPy's own test."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ssanet_jax.experiments.paired_comparison import compare, summarise

FIGURES = st.floats(0, 100, allow_nan=False).map(lambda x: round(x, 3))


def test_mean_and_sample_deviation():
    assert summarise([2, 4, 4, 4, 5, 5, 7, 9]) == (5.0, pytest.approx(math.sqrt(32 / 7)), 8)


def test_one_run_has_no_deviation():
    summary = summarise([88.5])
    assert summary.mean == 88.5 and math.isnan(summary.deviation) and summary.count == 1


@given(st.lists(st.tuples(FIGURES, FIGURES), min_size=3, max_size=8).filter(lambda xs: np.std(np.diff(xs)) > 1e-3))
def test_comparison_is_students_paired_test(pairs):
    a, b = (dict(enumerate(column)) for column in zip(*pairs))
    ours = compare(a, b)
    theirs = stats.ttest_rel(list(a.values()), list(b.values()))
    interval = theirs.confidence_interval(0.95)
    np.testing.assert_allclose(
        [ours.p, ours.low, ours.high], [theirs.pvalue, interval.low, interval.high], rtol=1e-6, atol=1e-9
    )
    assert ours.beyond_scatter == (theirs.pvalue < 0.05)


def test_only_seeds_of_both_count():
    comparison = compare({0: 90, 1: 92, 2: 99}, {1: 91, 0: 90, 7: 0})
    assert comparison.difference == (0.5, pytest.approx(math.sqrt(0.5)), 2)


def test_differences_that_never_vary_say_nothing_of_the_scatter():
    same, shifted = {0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.0}
    assert not compare(shifted, same).beyond_scatter and not compare(same, same).beyond_scatter
    assert math.isnan(compare(shifted, same).p)


def test_too_few_runs_to_compare():
    assert compare({0: 1.0}, {1: 1.0}) is None
    alone = compare({0: 2.0}, {0: 1.0})
    assert alone.difference.mean == 1 and not alone.beyond_scatter and math.isnan(alone.p)
