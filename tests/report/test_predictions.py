"""Predictions for the test set and its mistakes, against loops and hand-made cases; one image is broken."""

import io

import cv2
import numpy as np
import pytest
from rich.console import Console

from ssanet_jax.data.dataset import Dataset
from ssanet_jax.data.preprocessing import preprocess_for_evaluation
from ssanet_jax.distributed import sharding
from ssanet_jax.errors import UnreadableImage
from ssanet_jax.evaluation.drawing import fit_picture
from ssanet_jax.models.groups import GROUPS
from ssanet_jax.predictor import Predictor
from ssanet_jax.report import predictions as module
from ssanet_jax.report.predictions import (
    class_accuracy,
    confused_pair_images,
    confusion_matrix,
    hardest_examples,
    most_confused,
    predict_test_set,
    slowest_images,
)
from ssanet_jax.runs.run import Run, build_model

QUIET = Console(file=io.StringIO())


class Photos:
    """Images of many shapes and colors; some may be broken."""

    def __init__(self, count=11, broken=(), classes=3):
        random = np.random.default_rng(4)
        self.labels = (np.arange(count) % classes).astype(np.int32)
        patches = random.integers(0, 256, (count, 3, 3, 3), np.uint8)
        self.images = [cv2.resize(patch, tuple(random.integers(40, 120, 2).tolist())) for patch in patches]
        self.broken, self.reads = broken, np.zeros(count, int)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.reads[index] += 1
        if index in self.broken:
            raise UnreadableImage(f'photo {index} cannot be read')
        return {'image': self.images[index], 'label': self.labels[index], 'file': f'photo {index}'}


def predictions(labels, predicted, confidence=None, of_label=None, seconds=None):
    count = len(labels)
    fill = lambda values: np.full(count, 0.5, np.float32) if values is None else np.float32(values)
    names = [f'{index}' for index in range(count)]
    scores = fill(confidence), fill(of_label), fill(seconds)
    return module.TestPredictions(np.int32(labels), np.int32(predicted), *scores, names)


def test_predictions_equal_those_of_the_predictor(tiny_config):
    tiny_config.data.update(resize=72, interpolation='bilinear', eval_batch_size=4)
    model = build_model(tiny_config, 3, pretrained=False)
    source = Photos(broken=(6,))
    names = ('wren', 'robin', 'owl')
    predict = lambda: Predictor(model, GROUPS, tiny_config, names).predict(source.images)
    # Untrained predictions are nearly equal: larger weights and a centered bias make them differ.
    model.oriented_pooling.weights[...] = 300 * model.oriented_pooling.weights[...]
    answered = np.stack([one.probabilities for one in predict()])
    model.oriented_pooling.bias[...] = -np.log(answered).mean(0)
    run = Run(tiny_config, names, model, frozenset(GROUPS), 'part_tuning', True)
    dataset = Dataset('photos', run.class_names, source, source)

    found = predict_test_set(run, dataset, sharding.make_mesh(images=4), QUIET)

    assert (source.reads == 1).all(), 'every image once'
    expected = list(predict())
    for index, one in enumerate(expected):
        if index in source.broken:
            assert found.predicted[index] == -1 and found.confidence[index] == found.label_probability[index] == 0
            assert found.file_names[index] == ''
            continue
        assert found.predicted[index] == one.class_index
        assert found.confidence[index] == pytest.approx(one.probabilities.max(), abs=1e-4)
        assert found.label_probability[index] == pytest.approx(one.probabilities[source.labels[index]], abs=1e-4)
        assert found.file_names[index] == f'photo {index}'
    assert len({one.label for one in expected}) > 1 and np.ptp(found.confidence) > 0.01, 'a test that can fail'
    assert (found.labels == source.labels).all()
    assert (found.load_seconds > 0).all() and found.load_seconds.dtype == found.confidence.dtype == np.float32


def test_load_time_is_that_of_the_image(tiny_config, monkeypatch):
    """Reading photo i advances the clock by i."""
    tiny_config.data.interpolation = 'bilinear'

    class Clock:
        now = 0.0

        def thread_time(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, 'time', clock)

    class Slow(Photos):
        def __getitem__(self, index):
            clock.now += index
            return super().__getitem__(index)

    timed = module._TimedSource(Slow(broken=(2,)), tiny_config.data)
    for index in (3, 5):
        image = timed[index]['image']
        assert (image == preprocess_for_evaluation(timed._source.images[index], tiny_config.data)).all()
    with pytest.raises(UnreadableImage):
        timed[2]
    assert timed.seconds.tolist() == [0, 0, 2, 3, 0, 5, 0, 0, 0, 0, 0]


def test_the_matrix_by_a_loop():
    random = np.random.default_rng(0)
    labels, predicted = random.integers(0, 5, 200), random.integers(-1, 5, 200)
    expected = np.zeros((5, 5), int)
    for label, answer in zip(labels, predicted):
        if answer >= 0:
            expected[label, answer] += 1
    assert (confusion_matrix(labels, predicted, 5) == expected).all()
    assert confusion_matrix(labels[:0], predicted[:0], 3).tolist() == [[0] * 3] * 3


def test_the_most_confused_by_count_then_share_then_order():
    # Class 0: 2 of 4 are predicted as 1. Class 1: 2 of 3 readable ones as 2. Classes 2 and 3: 1 of 2 each as 0.
    labels = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3]
    predicted = [1, 0, 1, 0, 2, 2, 1, -1, 0, 2, 3, 0]
    confidence = [0.4, 0.9, 0.8, 0.9, 0.7, 0.7, 0.5, 0, 0.6, 0.5, 0.5, 0.5]
    found = most_confused(predictions(labels, predicted, confidence), 4)
    assert [(one.label, one.predicted, one.count, one.total) for one in found] == [
        (1, 2, 2, 3),
        (0, 1, 2, 4),
        (2, 0, 1, 2),
        (3, 0, 1, 2),
    ]
    assert [one.examples for one in found] == [[4, 5], [2, 0], [8], [11]], 'most confident first'
    assert len(most_confused(predictions(labels, predicted), 4, count=2)) == 2
    assert most_confused(predictions([0, 1], [0, 1]), 2) == []


def test_hardest_examples_and_slowest_images():
    right = [0.3, 0.01, 0.2, 0.0, 0.01, 0.9]
    some = predictions([0, 0, 0, 1, 1, 1], [1, 2, 1, -1, 0, 1], of_label=right, seconds=[3, 1, 5, 3, 9, 0])
    assert hardest_examples(some) == [1, 4, 2, 0], 'ties in order; neither correct predictions nor unreadable images'
    assert hardest_examples(some, 2) == [1, 4]
    assert slowest_images(some) == [4, 2, 0, 3, 1, 5] and slowest_images(some, 2) == [4, 2]
    assert all(isinstance(index, int) for index in hardest_examples(some) + slowest_images(some))


def test_accuracy_of_each_class():
    accuracy = class_accuracy(predictions([0, 0, 0, 0, 2, 2], [0, 0, 1, -1, 2, 2]), 4)
    assert accuracy[[0, 2]].tolist() == [0.5, 1] and np.isnan(accuracy[[1, 3]]).all()


def test_images_of_a_pair_are_the_most_confident_mistake_and_the_best_recognized():
    source = Photos(count=8, classes=2)  # 0 1 0 1 0 1 0 1
    source.labels[7] = 0
    dataset = Dataset('photos', ('wren', 'robin', 'owl'), source, source)
    found = predictions(
        source.labels,
        [1, 1, 1, 1, 0, -1, 2, 0],
        confidence=[0.6, 0.9, 0.8, 0.5, 0.9, 0, 0.7, 0.9],
        of_label=[0.1, 0.4, 0.1, 0.5, 0.9, 0.6, 0.1, 0.9],
    )
    confused = most_confused(found, 3)
    assert [(one.label, one.predicted, one.count) for one in confused] == [(0, 1, 2), (0, 2, 1)]
    pairs = confused_pair_images(confused, found, dataset, 50)
    show = lambda index: fit_picture(source.images[index], 50)[0]
    assert (pairs[0][0] == show(2)).all() and (pairs[0][1] == show(3)).all(), '5 is unreadable'
    assert (pairs[1][0] == show(6)).all() and pairs[1][1] is None, 'no image of class owl'
