"""Calibration: whether predictions with probability p are right in a share p of the cases.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
Platt, "Probabilistic Outputs for Support Vector Machines", Advances in Large Margin Classifiers, 1999.
"""

from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.special

NUM_BINS = 15
_LOG_TEMPERATURES = (-5.0, 5.0)


class ReliabilityBin(NamedTuple):
    """The predictions whose confidence lies in one interval."""

    count: int
    confidence: float  # mean probability of the predicted class
    accuracy: float  # share of the predictions that are right


def smoothed_targets(labels: np.ndarray, num_classes: int, num_images: int | None = None) -> np.ndarray:
    """Targets of a fit to held-out images that leave room for an error which these happen not to show.

    If every image is classified correctly, infinite logits predict the labels best. Platt (1999) fits two classes to
    what n images support instead. Here, for N classes, the n images count as if one more had a label of any class with
    the same probability: of n right answers, the fit concludes an accuracy of (n + 1 / N) / (n + 1).

    Args:
      labels: int `[m]`.
      num_classes: N.
      num_images: n, the number of images that the m examples show; m if None.

    Returns:
      float `[m, N]`, `(1 - eps) * onehot + eps / N`.
    """
    eps = 1 / ((len(labels) if num_images is None else num_images) + 1)
    targets = np.full((len(labels), num_classes), eps / num_classes)
    targets[np.arange(len(labels)), labels] += 1 - eps
    return targets


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T that minimizes the cross-entropy of `softmax(logits / T)` with `smoothed_targets`.

    Args:
      logits: float `[n, N]`, of images that the network was not trained on.
      labels: int `[n]`.

    Returns:
      T > 0. Above 1, the network is too sure of itself.

    Raises:
      ValueError: there are no examples.
    """
    if not len(labels):
        raise ValueError('no examples to fit a temperature to')
    logits = np.asarray(logits, np.float64)
    targets = smoothed_targets(labels, logits.shape[-1])

    def cross_entropy(log_temperature: float) -> float:
        log_probabilities = scipy.special.log_softmax(logits / np.exp(log_temperature), axis=-1)
        return -float((targets * log_probabilities).sum(-1).mean())

    found = scipy.optimize.minimize_scalar(cross_entropy, bounds=_LOG_TEMPERATURES, method='bounded')
    return float(np.exp(found.x))  # pyright: ignore[reportAttributeAccessIssue]


def reliability(confidence: np.ndarray, correct: np.ndarray, num_bins: int = NUM_BINS) -> list[ReliabilityBin]:
    """Groups predictions by their confidence, in intervals of equal width.

    Args:
      confidence: float `[n]`, the probability of the predicted class.
      correct: bool `[n]`, whether the prediction is right.
      num_bins: number of intervals between 0 and 1.

    Returns:
      The intervals that hold predictions, lowest confidence first.
    """
    bins = np.clip(np.ceil(np.asarray(confidence) * num_bins).astype(int) - 1, 0, num_bins - 1)
    groups = [bins == index for index in range(num_bins)]
    return [
        ReliabilityBin(int(group.sum()), float(confidence[group].mean()), float(correct[group].mean()))
        for group in groups
        if group.any()
    ]


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, num_bins: int = NUM_BINS) -> float:
    """The mean distance between confidence and accuracy over the intervals of `reliability`, weighted by their counts.

    0 for a calibrated network. Arguments as for `reliability`; nan without predictions.
    """
    bins = reliability(confidence, correct, num_bins)
    if not bins:
        return float('nan')
    counts = np.array([each.count for each in bins])
    gaps = np.array([abs(each.confidence - each.accuracy) for each in bins])
    return float(counts @ gaps / counts.sum())


def selective_accuracy(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy among the most confident predictions (Geifman and El-Yaniv, "Selective Classification", NIPS 2017).

    Args:
      confidence: float `[n]`; any score that is higher for predictions to be trusted.
      correct: bool `[n]`.

    Returns:
      Coverage, the share of images that are answered, and the accuracy among those, float `[m]` each, lowest coverage
      first. Predictions of equal confidence are answered together, so m <= n.
    """
    order = np.argsort(-np.asarray(confidence), kind='stable')
    ranked = np.asarray(confidence)[order]
    last = np.append(ranked[1:] != ranked[:-1], True) if len(ranked) else np.zeros(0, bool)
    answered = np.arange(1, len(order) + 1)
    accuracy = np.cumsum(np.asarray(correct)[order]) / answered
    return (answered / max(len(order), 1))[last], accuracy[last]
