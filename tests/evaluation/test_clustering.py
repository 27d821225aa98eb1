"""Agreement of labelings: by hand, by loops over items and pairs, under renumbering, and against scikit-learn."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssanet_jax.evaluation.clustering import adjusted_rand_index, contingency_table, normalized_mutual_information

LABELINGS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=40)


def scores(first, second):
    table = contingency_table(np.array(first), np.array(second))
    return normalized_mutual_information(table), adjusted_rand_index(table)


def mutual_information(first, second):
    n = len(first)
    total = 0.0
    for a in set(first):
        for b in set(second):
            both = sum(x == a and y == b for x, y in zip(first, second)) / n
            if both:
                total += both * math.log(both * n * n / (list(first).count(a) * list(second).count(b)))
    return total


def nmi_by_loops(first, second):
    entropies = mutual_information(first, first), mutual_information(second, second)
    return 1.0 if not any(entropies) else 2 * mutual_information(first, second) / sum(entropies)


def ari_by_pairs(first, second):
    together, only_first, only_second, apart = 0, 0, 0, 0
    for i, j in itertools.permutations(range(len(first)), 2):
        same_first, same_second = first[i] == first[j], second[i] == second[j]
        together += same_first and same_second
        only_first += same_first and not same_second
        only_second += same_second and not same_first
        apart += not same_first and not same_second
    if not only_first and not only_second:
        return 1.0
    return (
        2
        * (together * apart - only_first * only_second)
        / ((together + only_second) * (only_second + apart) + (together + only_first) * (only_first + apart))
    )


def test_by_hand():
    """For two labels each of two items: independent, identical, and one label split in two."""
    assert contingency_table(np.array([5, 5, 7]), np.array([-1, 0, 0])).tolist() == [[1, 1], [0, 1]]
    assert scores([0, 0, 1, 1], [0, 1, 0, 1]) == pytest.approx((0, -0.5))
    assert scores([0, 0, 1, 1], [9, 9, 4, 4]) == pytest.approx((1, 1))
    # Mutual information 1 bit, entropies 1 and 1.5 bits; 1 pair of 2 together, 1 expected of 6.
    assert scores([0, 0, 1, 1], [0, 0, 1, 2]) == pytest.approx((1 / 1.25, (1 - 2 / 6) / (1.5 - 2 / 6)))
    assert scores([3, 3, 3], [0, 1, 2]) == (0, 0) and scores([3, 3, 3], [2, 2, 2]) == (1, 1)
    assert scores([], []) == (1, 1) and scores([1], [2]) == (1, 1)


@settings(deadline=None)
@given(LABELINGS)
def test_by_loops(pairs):
    first, second = zip(*pairs)
    nmi, ari = scores(first, second)
    assert nmi == pytest.approx(nmi_by_loops(first, second), abs=1e-9)
    assert ari == pytest.approx(ari_by_pairs(first, second), abs=1e-9)
    assert 0 <= nmi <= 1 and ari <= 1


@settings(deadline=None)
@given(LABELINGS, st.permutations(range(5)), st.permutations(range(4)), st.randoms())
def test_the_numbering_and_the_order_do_not_matter(pairs, of_first, of_second, random):
    renumbered = [(of_first[a], of_second[b]) for a, b in pairs]
    random.shuffle(renumbered)
    expected = scores(*zip(*pairs))
    assert scores(*zip(*renumbered)) == pytest.approx(expected, abs=1e-9)
    assert scores(*reversed(list(zip(*pairs)))) == pytest.approx(expected, abs=1e-9), 'symmetric'


def test_against_scikit_learn():
    metrics = pytest.importorskip('sklearn.metrics')
    random = np.random.default_rng(0)
    for agreed in range(20):
        first, second = random.integers(1 + agreed % 6, size=50), random.integers(1 + agreed % 5, size=50)
        second[:agreed] = first[:agreed]
        expected = metrics.normalized_mutual_info_score(second, first), metrics.adjusted_rand_score(second, first)
        assert scores(first, second) == pytest.approx(expected, abs=1e-9)


def test_many_items():
    """Counts of pairs that exceed 32 bits; random labels do not agree."""
    random = np.random.default_rng(0)
    nmi, ari = scores(random.integers(4, size=300_000), random.integers(15, size=300_000))
    assert nmi < 1e-3 and abs(ari) < 1e-3
