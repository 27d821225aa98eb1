"""Means, deviations and paired comparisons, against textbook numbers and their formulas."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ssanet_jax.experiments.paired_comparison import compare_images, compare_seeds, summarize

FIGURES = st.floats(0, 100, allow_nan=False).map(lambda x: round(x, 3))


def test_mean_and_sample_deviation():
    assert summarize([2, 4, 4, 4, 5, 5, 7, 9]) == (5.0, pytest.approx(math.sqrt(32 / 7)), 8)


def test_one_run_has_no_deviation():
    summary = summarize([88.5])
    assert summary.mean == 88.5 and math.isnan(summary.deviation) and summary.count == 1


def test_students_paired_test_by_hand():
    """Student's sleep data (Biometrika 1908): t = 4.0621 with 9 degrees of freedom, p = 0.002833."""
    drug_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    drug_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    comparison = compare_seeds(dict(enumerate(drug_2)), dict(enumerate(drug_1)))
    assert comparison.difference.mean == pytest.approx(1.58)
    assert (comparison.low, comparison.high) == (pytest.approx(0.7001, abs=1e-4), pytest.approx(2.4599, abs=1e-4))
    assert comparison.p == pytest.approx(0.002833, abs=1e-6) and comparison.significant


@given(st.lists(st.tuples(FIGURES, FIGURES), min_size=3, max_size=8).filter(lambda xs: np.std(np.diff(xs)) > 1e-3))
def test_comparison_is_the_formula_of_students_paired_test(pairs):
    comparison = compare_seeds(*(dict(enumerate(column)) for column in zip(*pairs)))
    differences = -np.diff(pairs)[:, 0]
    mean, error = differences.mean(), differences.std(ddof=1) / math.sqrt(len(pairs))
    reach = stats.t.ppf(0.975, len(pairs) - 1) * error
    p = 2 * stats.t.sf(abs(mean) / error, len(pairs) - 1)
    found = [comparison.p, comparison.low, comparison.high]
    np.testing.assert_allclose(found, [p, mean - reach, mean + reach], rtol=1e-6, atol=1e-9)
    assert comparison.significant == (p < 0.05)


def test_only_seeds_of_both_count():
    comparison = compare_seeds({0: 90, 1: 92, 2: 99}, {1: 91, 0: 90, 7: 0})
    assert comparison.difference == (0.5, pytest.approx(math.sqrt(0.5)), 2)


def test_differences_that_never_vary_say_nothing_of_the_scatter():
    same, shifted = {0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.0}
    assert not compare_seeds(shifted, same).significant and not compare_seeds(same, same).significant
    assert math.isnan(compare_seeds(shifted, same).p)


def test_too_few_runs_to_compare():
    assert compare_seeds({0: 1.0}, {1: 1.0}) is None
    single = compare_seeds({0: 2.0}, {0: 1.0})
    assert single.difference.mean == 1 and not single.significant and math.isnan(single.p)


@pytest.mark.parametrize('seed', range(5))
def test_the_interval_is_that_of_a_mean_of_differences(seed):
    random = np.random.default_rng(seed)
    one, other = random.random((2, 200)) < [[0.8], [0.6]]
    differences = one.astype(float) - other
    difference, half_width = compare_images(int(np.sum(one & ~other)), int(np.sum(other & ~one)), 200)
    assert difference == pytest.approx(100 * differences.mean())
    assert half_width == pytest.approx(100 * 1.959964 * differences.std() / np.sqrt(200))


def test_images_that_both_have_right_or_wrong_leave_no_interval():
    assert compare_images(0, 0, 30) == (0, 0)
