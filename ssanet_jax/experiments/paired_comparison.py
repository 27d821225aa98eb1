"""Means, standard deviations and paired comparisons: over seeds, and over test images."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


class Summary(NamedTuple):
    """A metric over several runs."""

    mean: float
    deviation: float  # sample standard deviation; nan for a single run
    count: int


class Comparison(NamedTuple):
    """The difference between two networks over runs with the same seeds."""

    difference: Summary
    low: float  # ends of the 95 % confidence interval of the mean difference
    high: float
    p: float  # two-sided p-value of Student's paired t-test; nan where it is undefined

    @property
    def significant(self) -> bool:
        """Whether the confidence interval excludes 0."""
        return self.low > 0 or self.high < 0


def summarize(values: Sequence[float]) -> Summary:
    """Mean and sample standard deviation (n - 1) of at least one value."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return Summary(float(np.mean(values)), deviation, len(values))


def compare_seeds(first: Mapping[int, float], second: Mapping[int, float]) -> Comparison | None:
    """Student's paired t-test over the seeds that two networks share.

    Args:
      first, second: {seed: metric}.

    Returns:
      First minus second; None if they share no seed. With a single shared seed, or where all differences are equal
      (accuracies change in steps of one image), the scatter is unknown: the interval is infinite and p is nan.
    """
    shared = sorted(first.keys() & second.keys())
    if not shared:
        return None
    pairs = [first[seed] for seed in shared], [second[seed] for seed in shared]
    difference = summarize(np.subtract(*pairs).tolist())
    if len(shared) == 1 or difference.deviation <= 1e-9 * max(abs(difference.mean), 1):
        return Comparison(difference, -math.inf, math.inf, math.nan)
    test = stats.ttest_rel(*pairs)
    interval = test.confidence_interval(CONFIDENCE)
    return Comparison(difference, float(interval.low), float(interval.high), float(test.pvalue))


def compare_images(won: int, lost: int, examples: int) -> tuple[float, float]:
    """The difference in accuracy between two classifiers on the same images.

    Args:
      won, lost: number of images that only the first, or only the second classifier gets right.
      examples: number of all images.

    Returns:
      First minus second in percentage points, and half the width of its 95 % confidence interval over images drawn
      like these: the normal approximation of a mean of paired differences. The interval is too narrow where
      won + lost is below ten or so, and says nothing about other training runs.
    """
    differences = np.repeat([1, -1, 0], [won, lost, examples - won - lost])
    half_width = stats.norm.ppf((1 + CONFIDENCE) / 2) * stats.sem(differences, ddof=0)
    return 100 * (won - lost) / examples, 100 * float(half_width)
