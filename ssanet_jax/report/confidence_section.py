"""Section of the report about how far the predictions can be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssanet_jax.evaluation.calibration import (
    ReliabilityBin,
    expected_calibration_error,
    reliability,
    selective_accuracy,
)
from ssanet_jax.evaluation.prediction import UNSURE_LIMITS
from ssanet_jax.report.inputs import ReportInputs
from ssanet_jax.report.predictions import UNREADABLE
from ssanet_jax.report.rendering import Table, printable
from ssanet_jax.report.svg import HOVER, PLACEHOLDER, UNIT, style_axes, to_svg

_COVERAGES = (0.5, 0.75, 0.9, 1.0)
_SIDE = 260  # of a chart, user units
_MARGINS = (52, 14, 14, 44)  # left, right, top, bottom
_SPLITS = {'train': 'held-out folds of the training images', 'validation': 'the validation images'}


@dataclass(frozen=True)
class ConfidenceSection:
    """How often predictions are right that claim a certain probability."""

    introduction: str
    reliability: Markup
    coverage: Markup
    table: Table
    strangers: str  # how many test images are taken for none of the classes


def confidence_section(inputs: ReportInputs) -> ConfidenceSection | str:
    """Reliability and selective accuracy on the readable test images."""
    predictions = inputs.predictions
    readable = predictions.predicted != UNREADABLE
    if not readable.any():
        return 'No test image can be read.'
    confidence = predictions.confidence[readable]
    correct = predictions.predicted[readable] == predictions.labels[readable]
    coverage, accuracy = selective_accuracy(confidence, correct)
    return ConfidenceSection(
        introduction=_introduction(inputs, expected_calibration_error(confidence, correct)),
        reliability=reliability_chart(reliability(confidence, correct)),
        coverage=coverage_chart(coverage, accuracy),
        table=_coverage_table(confidence, coverage, accuracy),
        strangers=_strangers(None if predictions.novelty is None else predictions.novelty[readable]),
    )


def _introduction(inputs: ReportInputs, error: float) -> str:
    held_out = inputs.run.held_out
    start = (
        'The probabilities are those of the network: there are no held-out images to calibrate them on. Train with '
        'config.data.validation=0.1 to have some. '
        if held_out is None
        else f'The logits are divided by {held_out.temperature:.2f}, the temperature that fits '
        f'{_SPLITS[held_out.split]} best. '
    )
    return (
        f'{start}Expected calibration error on the test images: {100 * error:.1f} percentage points, the mean distance '
        'between the probability of the predicted class and the share of predictions that are right.'
    )


def _strangers(novelty: np.ndarray | None) -> str:
    if novelty is None:
        return ''
    share = 100 * (novelty >= UNSURE_LIMITS.novelty).mean()
    return (
        f'{share:.1f} % of the test images would be called unsure because they may show none of the classes; '
        f'{100 * (1 - UNSURE_LIMITS.novelty):.0f} % are expected of images like those of the training.'
    )


def _coverage_table(confidence: np.ndarray, coverage: np.ndarray, accuracy: np.ndarray) -> Table:
    ranked = np.sort(confidence)[::-1]
    rows = []
    for share in _COVERAGES:
        place = min(int(np.searchsorted(coverage, share - 1e-9)), len(coverage) - 1)
        threshold = ranked[round(coverage[place] * len(ranked)) - 1]
        rows.append([f'{100 * coverage[place]:.0f} %', f'{accuracy[place]:.4f}', f'{threshold:.2f}'])
    return Table(['images answered', 'accuracy among them', 'lowest probability'], rows)


def reliability_chart(bins: Sequence[ReliabilityBin]) -> Markup:
    """Accuracy over confidence: a point per interval, on the diagonal if the network is calibrated."""
    figure, axes = _square('probability of the predicted class', 'accuracy')
    axes.plot([0, 1], [0, 1], color=PLACEHOLDER['rule'], linewidth=1.5)
    color = PLACEHOLDER['c-prediction']
    axes.plot([each.confidence for each in bins], [each.accuracy for each in bins], color=color, linewidth=1.2)
    for each in bins:
        text = f'{each.count} predictions: probability {each.confidence:.2f}, accuracy {each.accuracy:.2f}'
        axes.plot(each.confidence, each.accuracy, 'o', color=color, markersize=6, gid=printable(HOVER + text))
    return to_svg(figure, 'Reliability: accuracy over the probability of the predicted class', 'square')


def coverage_chart(coverage: np.ndarray, accuracy: np.ndarray) -> Markup:
    """Accuracy of the most confident predictions over the share of images that they answer."""
    figure, axes = _square('share of images answered', 'accuracy')
    kept = np.unique(np.linspace(0, len(coverage) - 1, 200).round().astype(int))  # more cannot be seen
    axes.plot(coverage[kept], accuracy[kept], color=PLACEHOLDER['c-prediction'], linewidth=2)
    axes.set_ylim(min(0.5, float(accuracy.min())) // 0.1 * 0.1, 1.02)
    return to_svg(figure, 'Accuracy over the share of images that are answered', 'square')


def _square(x: str, y: str) -> tuple[Figure, Axes]:
    left, right, top, bottom = _MARGINS
    width, height = _SIDE + left + right, _SIDE + top + bottom
    figure = Figure(figsize=(width * UNIT, height * UNIT))
    axes = figure.add_axes((left / width, bottom / height, _SIDE / width, _SIDE / height))
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.grid(color=PLACEHOLDER['rule'], linewidth=0.6)
    style_axes(axes)
    axes.tick_params(length=0, pad=6)
    axes.set_xlabel(x, color=PLACEHOLDER['soft'], fontsize=12)
    axes.set_ylabel(y, color=PLACEHOLDER['soft'], fontsize=12)
    return figure, axes
