"""Means, deviations and paired comparisons over seeds."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


class Summary(NamedTuple):
    """A figure over several runs."""

    mean: float
    deviation: float  # of the sample; nan for a single run
    count: int


class Comparison(NamedTuple):
    """One network less another, run by run with the same seed."""

    difference: Summary
    low: float  # the interval that holds the true mean with 95 % confidence
    high: float
    p: float  # two-sided, of Student's paired t-test; nan where it is not defined

    @property
    def beyond_scatter(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def summarise(values: Sequence[float]) -> Summary:
    """Mean and sample deviation (n - 1) of at least one value."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return Summary(float(np.mean(values)), spread, len(values))


def compare(these: Mapping[int, float], those: Mapping[int, float]) -> Comparison | None:
    """Compares two networks by the seeds that both have.

    Args:
      these, those: {seed: figure}.

    Returns:
      These less those; None where they have no seed in common. With one common seed, or where all differences are
      equal (accuracies are steps of one image), nothing is known of the scatter: the interval is all numbers, p is nan.
    """
    common = sorted(these.keys() & those.keys())
    if not common:
        return None
    difference = summarise([these[seed] - those[seed] for seed in common])
    if len(common) == 1 or difference.deviation <= 1e-9 * max(abs(difference.mean), 1):
        return Comparison(difference, -math.inf, math.inf, math.nan)
    error = difference.deviation / math.sqrt(len(common))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(common) - 1)) * error
    p = 2 * float(stats.t.sf(abs(difference.mean) / error, len(common) - 1))
    return Comparison(difference, difference.mean - reach, difference.mean + reach, p)
