"""The figures of the benchmark on strangers, by counting pairs."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.novelty import auroc, false_positive_rate

SCORES = st.lists(st.integers(0, 5), min_size=1, max_size=12).map(np.array)


@given(SCORES, SCORES)
def test_auroc_is_the_share_of_pairs_in_order(known, unknown):
    wins = [(other > one) + 0.5 * (other == one) for one in known for other in unknown]
    np.testing.assert_allclose(auroc(known, unknown), np.mean(wins))


def test_strangers_that_pass():
    known = np.arange(101)  # 95 % of them are at most 95
    assert false_positive_rate(known, np.array([0, 95, 96, 200])) == 0.5
