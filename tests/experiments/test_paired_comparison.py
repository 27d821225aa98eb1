"""Statistics of paired comparisons, against enumeration, loops, simulations and textbook numbers."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ssanet_jax.experiments.paired_comparison import (
    McNemar,
    Summary,
    compare_predictions,
    compare_seeds,
    crossed_bootstrap,
    holm,
    mcnemar,
    paired_difference,
    summarize,
)

FIGURES = st.floats(0, 100, allow_nan=False).map(lambda x: round(x, 3))
P_VALUES = st.lists(st.floats(0, 1), max_size=8)


def test_mean_and_sample_deviation():
    assert summarize([2, 4, 4, 4, 5, 5, 7, 9]) == Summary(5.0, pytest.approx(math.sqrt(32 / 7)), 8)


def test_one_run_has_no_deviation():
    summary = summarize([88.5])
    assert summary.mean == 88.5 and math.isnan(summary.deviation) and summary.count == 1


# Crossed bootstrap


def _resampled_mean(differences, seeds, images):
    """The mean of a resample by its definition: of the drawn rows, plus of the drawn columns, minus of all."""
    rows = [sum(differences[s]) / len(differences[s]) for s in seeds]
    columns = [sum(row[i] for row in differences) / len(differences) for i in images]
    everything = sum(map(sum, differences)) / sum(map(len, differences))
    return sum(rows) / len(rows) + sum(columns) / len(columns) - everything


def test_two_seeds_and_three_images_by_enumeration():
    """All 2 * 27 outcomes are equally likely."""
    differences = [[1.0, 0.0, -1.0], [1.0, 1.0, 0.0]]
    outcomes = [
        _resampled_mean(differences, seeds, images)
        for seeds in itertools.product(range(2), repeat=1)
        for images in itertools.product(range(3), repeat=3)
    ]
    values, counts = np.unique(np.round(outcomes, 9), return_counts=True)
    found = np.round(crossed_bootstrap(np.array(differences), resamples=100_000), 9)
    assert set(found) == set(values)
    shares = np.array([np.mean(found == value) for value in values])
    expected = counts / len(outcomes)
    np.testing.assert_allclose(shares, expected, atol=5 * np.sqrt(expected.max() / 100_000))


def test_one_seed_and_three_images_by_enumeration():
    differences = [[1.0, 0.0, -1.0]]
    outcomes = [np.mean([differences[0][i] for i in images]) for images in itertools.product(range(3), repeat=3)]
    values, counts = np.unique(np.round(outcomes, 9), return_counts=True)
    found = np.round(crossed_bootstrap(np.array(differences), resamples=100_000), 9)
    shares = np.array([np.mean(found == value) for value in values])
    np.testing.assert_allclose(shares, counts / 27, atol=0.01)


@pytest.mark.parametrize('shape', [(1, 12), (2, 9), (3, 8), (5, 20)])
def test_a_slow_loop_resamples_alike(shape):
    random = np.random.default_rng(sum(shape))
    differences = random.integers(-1, 2, shape).astype(float)
    loop = [
        _resampled_mean(
            differences.tolist(),
            random.integers(0, shape[0], max(shape[0] - 1, 1)),
            random.integers(0, shape[1], shape[1]),
        )
        for _ in range(20_000)
    ]
    found = crossed_bootstrap(differences, resamples=20_000)
    assert found.std() == pytest.approx(np.std(loop), rel=0.03)
    quantiles = [0.025, 0.25, 0.5, 0.75, 0.975]
    np.testing.assert_allclose(np.quantile(found, quantiles), np.quantile(loop, quantiles), atol=0.1 * np.std(loop))


def test_the_variance_is_that_of_both_means():
    """Its expectation has a closed form: the unbiased variances of the row means and of the column means."""
    differences = np.random.default_rng(0).normal(size=(4, 30)) + np.array([[0.5], [-0.5], [0.2], [0.0]])
    expected = differences.mean(1).var(ddof=1) / 4 + differences.mean(0).var(ddof=0) / 30
    assert crossed_bootstrap(differences, resamples=200_000).var() == pytest.approx(expected, rel=0.02)


def test_comparison_is_deterministic_and_antisymmetric():
    differences = 100.0 * np.random.default_rng(1).integers(-1, 2, (3, 200))
    first, again, reverse = (compare_predictions(matrix) for matrix in (differences, differences, -differences))
    assert first == again
    assert first.images == 200 and first.difference.count == 3
    assert reverse.difference.mean == -first.difference.mean
    np.testing.assert_allclose([reverse.low, reverse.high], [-first.high, -first.low], atol=0.3)
    assert reverse.p == pytest.approx(first.p, abs=0.03)


def test_one_seed_is_the_interval_of_a_mean_over_images():
    """Of many images, the interval and p are those of the normal approximation."""
    differences = np.repeat([100.0, -100.0, 0.0], [60, 30, 910])[None]
    found = compare_predictions(differences)
    assert found.difference.mean == pytest.approx(3)
    error = differences.std() / math.sqrt(1000)
    assert (found.low, found.high) == pytest.approx((3 - 1.96 * error, 3 + 1.96 * error), abs=0.1)
    assert found.p == pytest.approx(2 * stats.norm.sf(3 / error), abs=0.002)


def test_p_is_small_exactly_where_the_interval_excludes_zero():
    random = np.random.default_rng(5)
    for _ in range(50):
        found = compare_predictions(random.choice([-1.0, 0.0, 1.0], (3, 100), p=[0.1, 0.7, 0.2]), resamples=2_000)
        assert 0 < found.p <= 1
        if abs(found.p - 0.05) > 0.005:
            assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def test_equal_predictions_have_no_difference():
    found = compare_predictions(np.zeros((3, 40)))
    assert (found.difference.mean, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_one_image_cannot_be_resampled():
    with pytest.raises(ValueError, match='at least 2'):
        compare_predictions(np.zeros((3, 1)))


def _simulate(random, num_seeds, num_images, seed_effect, shift):
    """Correct predictions of two networks, from scores with effects of seed, of image, and of both together."""
    difficulty = 1.5 * random.normal(size=num_images)
    preference = 0.5 * random.normal(size=num_images)  # of the first network for some images
    seeds = seed_effect * random.normal(size=(2, num_seeds, 1))
    noise = 0.7 * random.normal(size=(2, num_seeds, num_images))
    first = 1.5 + shift + difficulty + preference + seeds[0] + noise[0] > 0
    second = 1.5 + difficulty + seeds[1] + noise[1] > 0
    return first.astype(float) - second


def _true_difference(seed_effect, shift):
    spread = 1.5**2 + 0.7**2 + seed_effect**2
    return stats.norm.cdf((1.5 + shift) / math.sqrt(spread + 0.5**2)) - stats.norm.cdf(1.5 / math.sqrt(spread))


@pytest.mark.slow
@pytest.mark.parametrize('num_seeds', [1, 3, 5, 10])
@pytest.mark.parametrize('seed_effect', [0.0, 0.05, 0.1])  # 0.1 moves an accuracy by about 2 points
def test_intervals_cover_the_true_difference(num_seeds, seed_effect):
    if num_seeds == 1 and seed_effect:
        pytest.skip('one seed says nothing about others')
    random = np.random.default_rng(num_seeds)
    expected = _true_difference(seed_effect, 0.1)
    runs = 600
    covered = 0
    for _ in range(runs):
        found = compare_predictions(_simulate(random, num_seeds, 400, seed_effect, 0.1), resamples=1_000)
        covered += found.low <= expected <= found.high
    assert 0.925 < covered / runs < 0.995


@pytest.mark.slow
def test_too_few_seeds_cover_less():
    """As the documentation warns: two seeds that differ by several points, and one seed where others matter."""
    random = np.random.default_rng(0)
    for num_seeds, seed_effect in ((2, 0.3), (1, 0.2)):
        expected = _true_difference(seed_effect, 0.0)
        found = [
            compare_predictions(_simulate(random, num_seeds, 400, seed_effect, 0.0), resamples=500) for _ in range(300)
        ]
        assert np.mean([one.low <= expected <= one.high for one in found]) < 0.92


# Student's t-test over seeds


def test_students_paired_test_by_hand():
    """Student's sleep data (Biometrika 1908): t = 4.0621 with 9 degrees of freedom, p = 0.002833."""
    drug_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    drug_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    comparison = compare_seeds(dict(enumerate(drug_2)), dict(enumerate(drug_1)))
    assert comparison.difference.mean == pytest.approx(1.58)
    assert (comparison.low, comparison.high) == (pytest.approx(0.7001, abs=1e-4), pytest.approx(2.4599, abs=1e-4))
    assert comparison.p == pytest.approx(0.002833, abs=1e-6) and not comparison.images


@given(st.lists(st.tuples(FIGURES, FIGURES), min_size=3, max_size=8).filter(lambda xs: np.std(np.diff(xs)) > 1e-3))
def test_comparison_is_the_formula_of_students_paired_test(pairs):
    comparison = compare_seeds(*(dict(enumerate(column)) for column in zip(*pairs)))
    differences = -np.diff(pairs)[:, 0]
    mean, error = differences.mean(), differences.std(ddof=1) / math.sqrt(len(pairs))
    reach = stats.t.ppf(0.975, len(pairs) - 1) * error
    p = 2 * stats.t.sf(abs(mean) / error, len(pairs) - 1)
    found = [comparison.p, comparison.low, comparison.high]
    np.testing.assert_allclose(found, [p, mean - reach, mean + reach], rtol=1e-6, atol=1e-9)


def test_only_seeds_of_both_count():
    comparison = compare_seeds({0: 90, 1: 92, 2: 99}, {1: 91, 0: 90, 7: 0})
    assert comparison.difference == Summary(0.5, pytest.approx(math.sqrt(0.5)), 2)


def test_differences_that_never_vary_say_nothing_of_the_scatter():
    same, shifted = {0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.0}
    for first in (same, shifted):
        comparison = compare_seeds(first, same)
        assert math.isnan(comparison.p) and comparison.low == -math.inf and comparison.high == math.inf


def test_too_few_runs_to_compare():
    assert compare_seeds({0: 1.0}, {1: 1.0}) is None
    single = compare_seeds({0: 2.0}, {0: 1.0})
    assert single.difference.mean == 1 and single.high == math.inf and math.isnan(single.p)


# McNemar's test and Holm's correction


def _answers(won, lost, both=20, neither=7):
    first = np.repeat([True, False, True, False], [won, lost, both, neither])
    second = np.repeat([False, True, True, False], [won, lost, both, neither])
    return first, second


@pytest.mark.parametrize(
    'won, lost, p',
    [
        (0, 0, 1),
        (1, 0, 1),
        (5, 0, 2 / 2**5),
        (1, 8, 2 * (1 + 9) / 2**9),
        (2, 6, 2 * (1 + 8 + 28) / 2**8),
        (4, 4, 1),
    ],
)
def test_mcnemar_by_hand(won, lost, p):
    """Twice the smaller tail of the binomial distribution of the images that differ, at most 1."""
    assert mcnemar(*_answers(won, lost)) == McNemar(won, lost, pytest.approx(p))
    assert mcnemar(*_answers(lost, won)).p == pytest.approx(p)


def test_mcnemar_of_a_textbook():
    """Agresti, Categorical Data Analysis: approval 86 and 150 changed; the exact p is that of the binomial sum."""
    p = 2 * sum(math.comb(236, k) for k in range(87)) / 2**236
    assert mcnemar(*_answers(150, 86)).p == pytest.approx(p)


def test_holm_by_hand():
    """Four times the smallest, three times the next, and never below an earlier one."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.4]) == pytest.approx([0.8, 0.8])
    assert holm([0.9, 0.9, 0.02]) == pytest.approx([1, 1, 0.06])
    assert holm([]) == [] and holm([0.3]) == [0.3]


def test_holm_leaves_out_what_makes_no_claim():
    corrected = holm([0.02, math.nan, 0.04])
    assert math.isnan(corrected[1]) and [corrected[0], corrected[2]] == pytest.approx([0.04, 0.04])


@given(P_VALUES)
def test_holm_is_monotone_and_never_below_the_raw_p(p_values):
    corrected = holm(p_values)
    assert len(corrected) == len(p_values)
    for (p, q), (other, changed) in itertools.product(zip(p_values, corrected), repeat=2):
        assert p <= q <= min(len(p_values) * p, 1) or q == pytest.approx(p)
        if p < other:
            assert q <= changed
        elif p == other:
            assert q == changed


@given(P_VALUES)
@settings(max_examples=50)
def test_holm_rejects_as_the_step_down_procedure(p_values):
    """Reject while the next smallest p is at most the level over the number of hypotheses left."""
    rejected = set()
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[position] * (len(p_values) - rank) > 0.05:
            break
        rejected.add(position)
    assert {position for position, p in enumerate(holm(p_values)) if p <= 0.05} == rejected


@pytest.mark.parametrize('seed', range(5))
def test_the_interval_is_that_of_a_mean_of_differences(seed):
    random = np.random.default_rng(seed)
    one, other = random.random((2, 200)) < [[0.8], [0.6]]
    differences = one.astype(float) - other
    difference, half_width = paired_difference(int(np.sum(one & ~other)), int(np.sum(other & ~one)), 200)
    assert difference == pytest.approx(100 * differences.mean())
    assert half_width == pytest.approx(100 * 1.959964 * differences.std() / np.sqrt(200))


def test_images_that_both_have_right_or_wrong_leave_no_interval():
    assert paired_difference(0, 0, 30) == (0, 0)
