"""Statistics of paired comparisons: crossed bootstrap over seeds and images, McNemar's test, Holm's correction.

Pure functions of arrays; `run_comparison.py` applies them to runs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 10_000


@dataclass(frozen=True)
class Summary:
    """A metric over several runs."""

    mean: float
    deviation: float  # sample standard deviation; nan for a single run
    count: int


@dataclass(frozen=True)
class Comparison:
    """The difference between two networks, first minus second."""

    difference: Summary  # over the seeds, each with a run of both networks
    low: float  # ends of the 95 % confidence interval of the mean difference
    high: float
    p: float  # two-sided; nan where it is undefined
    images: int  # number of images that were resampled; 0 if the comparison is over seeds alone


@dataclass(frozen=True)
class McNemar:
    """McNemar's exact test of two single classifiers."""

    won: int  # images that only the first classifies correctly
    lost: int  # images that only the second classifies correctly
    p: float  # two-sided


def summarize(values: Sequence[float]) -> Summary:
    """Mean and sample standard deviation (n - 1) of at least one value."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return Summary(float(np.mean(values)), deviation, len(values))


def crossed_bootstrap(differences: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Resamples the mean of a matrix of paired differences over its rows and its columns.

    With the means r_s of the rows (seeds), c_i of the columns (images) and m of all, a resample is

        sum_s u_s r_s + sum_i v_i c_i - m,

    where u and v are the shares of each seed and each image in independent draws with replacement. R - 1 of R seeds
    are drawn, which makes the variance over seeds unbiased, and n of n images. A single seed is not resampled.

    The sum is the crossed ("pigeonhole") bootstrap sum_si u_s v_i d_si of Owen (The pigeonhole bootstrap, Annals of
    Applied Statistics 1(2), 2007) without its last term, the interaction of seeds and images. The row means and the
    column means both contain the interaction, so that its variance counts twice here and three times there. As there,
    the variance is too large rather than too small.

    Args:
      differences: `[R, n]`, R seeds and n images. Time and memory grow with the number of distinct column means, which
        is at most 2 R + 1 for differences of correct predictions.
      resamples: number B of resamples.
      seed: seed of the random numbers.

    Returns:
      The resampled means, float64 `[B]`.
    """
    num_seeds, num_images = differences.shape
    random = np.random.default_rng(seed)
    # Images with equal means are drawn together: a resample is a product with multinomial counts.
    values, counts = np.unique(differences.mean(0), return_counts=True)
    drawn = random.multinomial(num_images, counts / num_images, size=resamples)  # [B, distinct values]
    means = drawn @ values / num_images  # [B]
    if num_seeds == 1:
        return means
    drawn = random.multinomial(num_seeds - 1, np.full(num_seeds, 1 / num_seeds), size=resamples)  # [B, R]
    return means + drawn @ differences.mean(1) / (num_seeds - 1) - differences.mean()


def compare_predictions(differences: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Compares two networks by a bootstrap over seeds and images (`crossed_bootstrap`).

    The interval lies between the 2.5 % and 97.5 % percentiles of the resampled means (Efron & Tibshirani, An
    Introduction to the Bootstrap, 1993, chapter 13), after their distances from the mean are multiplied by the ratio
    of the quantiles of Student's t and the normal distribution (the expanded percentile interval of Hesterberg, What
    Teachers Should Know About the Bootstrap, The American Statistician 69(4), 2015): percentiles of two to ten seeds
    alone are too narrow. The degrees of freedom follow Satterthwaite (1946) from the variances of the row and column
    means. The p-value is twice the smaller share of the expanded resamples on either side of 0, at least
    2 / (resamples + 1).

    In simulations (`tests/experiments/test_paired_comparison.py`) the interval covers the true difference in 93 to 99 %
    of the cases with three or more seeds. With two seeds it may cover less than 90 % if seeds differ much more than the
    test images explain. With one seed it says nothing about other training runs.

    Args:
      differences: `[R, n]`, the first network's score minus the second's, of each seed and image; n is at least 2.
      resamples: number of resamples.
      seed: seed of the random numbers.

    Raises:
      ValueError: there are fewer than two images.
    """
    num_images = differences.shape[1]
    if num_images < 2:
        raise ValueError(f'a bootstrap over images needs at least 2, not {num_images}')
    mean = float(differences.mean())
    means = crossed_bootstrap(differences, resamples, seed)
    means = mean + _expansion(differences) * (means - mean)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    rounding = 1e-9 * np.abs(differences).max()
    smaller = min(np.sum(means <= rounding), np.sum(means >= -rounding))
    p = min(2 * (int(smaller) + 1) / (resamples + 1), 1.0)
    return Comparison(summarize(differences.mean(1).tolist()), float(low), float(high), p, num_images)


def _expansion(differences: np.ndarray) -> float:
    """The ratio of the quantiles of Student's t, with Satterthwaite's degrees of freedom, and the normal distribution.

    Args:
      differences: `[R, n]`.
    """
    num_seeds, num_images = differences.shape
    parts = [(differences.mean(0).var(ddof=1) / num_images, num_images - 1)]
    if num_seeds > 1:
        parts.append((differences.mean(1).var(ddof=1) / num_seeds, num_seeds - 1))
    variance = sum(part for part, _ in parts)
    if not variance:
        return 1.0
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    upper = (1 + CONFIDENCE) / 2
    return float(stats.t.ppf(upper, freedom) / stats.norm.ppf(upper))


def compare_seeds(first: Mapping[int, float], second: Mapping[int, float]) -> Comparison | None:
    """Student's paired t-test over the seeds that two networks share, for metrics without a value per image.

    Args:
      first, second: {seed: metric}.

    Returns:
      First minus second; None if they share no seed. With a single shared seed, or where all differences are equal,
      the scatter is unknown: the interval is infinite and p is nan.
    """
    shared = sorted(first.keys() & second.keys())
    if not shared:
        return None
    pairs = [first[seed] for seed in shared], [second[seed] for seed in shared]
    difference = summarize(np.subtract(*pairs).tolist())
    if len(shared) == 1 or difference.deviation <= 1e-9 * max(abs(difference.mean), 1):
        return Comparison(difference, -math.inf, math.inf, math.nan, 0)
    test = stats.ttest_rel(*pairs)
    interval = test.confidence_interval(CONFIDENCE)
    return Comparison(difference, float(interval.low), float(interval.high), float(test.pvalue), 0)


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """McNemar's test (Psychometrika 12(2), 1947) in its exact form: a binomial test of the images that differ.

    It compares two single classifiers on images like these. It says nothing about other training runs.

    Args:
      first, second: whether each classifier is correct, bool `[n]`, for the same images.
    """
    won, lost = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    return McNemar(won, lost, float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction (Scandinavian Journal of Statistics 6(2), 1979) of a family of p-values.

    Rejecting the hypotheses whose corrected p is below a level bounds by that level the probability of any false
    rejection in the family.

    Args:
      p_values: the p-values; nan makes no claim, and stays nan.

    Returns:
      The corrected p-values, in the same order, each at least as large as before and at most 1.
    """
    claims = sorted((p, position) for position, p in enumerate(p_values) if not math.isnan(p))
    corrected = [math.nan] * len(p_values)
    largest = 0.0
    for rank, (p, position) in enumerate(claims):
        largest = max(largest, min((len(claims) - rank) * p, 1.0))
        corrected[position] = largest
    return corrected


def paired_difference(won: int, lost: int, examples: int) -> tuple[float, float]:
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
