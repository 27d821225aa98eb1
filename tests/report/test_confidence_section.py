"""The section on confidence: its figures by hand, its charts as the page shows them."""

import re
from types import SimpleNamespace

import numpy as np

from ssanet_jax.evaluation.calibration import ReliabilityBin
from ssanet_jax.report import predictions as test_predictions
from ssanet_jax.report.confidence_section import confidence_section, coverage_chart, reliability_chart


def inputs(predicted, confidence, novelty=None, held_out=None):
    """A report on images of class 0."""
    count = len(predicted)
    predictions = test_predictions.TestPredictions(
        labels=np.zeros(count, np.int32),
        predicted=np.array(predicted, np.int32),
        confidence=np.array(confidence, np.float32),
        label_probability=np.zeros(count, np.float32),
        load_seconds=np.zeros(count, np.float32),
        file_names=[''] * count,
        novelty=None if novelty is None else np.array(novelty, np.float32),
    )
    return SimpleNamespace(predictions=predictions, run=SimpleNamespace(held_out=held_out))


def test_figures_by_hand():
    found = confidence_section(inputs([0, 0, 1, test_predictions.UNREADABLE], [0.9, 0.8, 0.6, 0]))
    assert 'no held-out images to calibrate them on' in found.introduction
    # One prediction per interval: (0.1 + 0.2 + 0.6) / 3. The unreadable image claims nothing.
    assert 'on the test images: 30.0 percentage points' in found.introduction
    assert found.strangers == ''
    assert [row[:2] for row in found.table.rows] == [
        ['67 %', '1.0000'],
        ['100 %', '0.6667'],
        ['100 %', '0.6667'],
        ['100 %', '0.6667'],
    ]
    assert [row[2] for row in found.table.rows] == ['0.80', '0.60', '0.60', '0.60']


def test_held_out_images_and_strangers():
    held_out = SimpleNamespace(temperature=1.5, split='validation')
    found = confidence_section(
        inputs([0, 0, 1, test_predictions.UNREADABLE], [0.9, 0.8, 0.6, 0], [0.2, 0.96, 0.1, 1], held_out)
    )
    assert 'divided by 1.50, the temperature that fits the validation images best' in found.introduction
    assert found.strangers.startswith('33.3 % of the test images')


def test_no_image_can_be_read():
    assert confidence_section(inputs([test_predictions.UNREADABLE], [0.0])) == 'No test image can be read.'


def test_each_interval_is_a_point_that_tells_its_numbers():
    chart = reliability_chart([ReliabilityBin(3, 0.25, 1 / 3), ReliabilityBin(7, 0.9, 0.86)])
    assert re.findall(r'<title>(\d+) predictions: probability ([\d.]+), accuracy ([\d.]+)', chart) == [
        ('3', '0.25', '0.33'),
        ('7', '0.90', '0.86'),
    ]


def test_a_curve_of_many_images_stays_small():
    few, many = (coverage_chart(np.linspace(1 / n, 1, n), np.linspace(1, 0.8, n)) for n in (200, 20_000))
    assert len(many) < 1.2 * len(few)
