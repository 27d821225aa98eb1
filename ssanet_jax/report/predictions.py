"""Predictions for every test image, and what they say about mistakes: examples, confused classes, slow images."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from ssanet_jax.data.dataset import Dataset, Source
from ssanet_jax.data.pipeline import eval_batches, list_unreadable
from ssanet_jax.data.preprocessing import preprocess_for_evaluation
from ssanet_jax.distributed import sharding
from ssanet_jax.evaluation.accuracy import make_predict
from ssanet_jax.evaluation.drawing import fit_picture
from ssanet_jax.evaluation.novelty import novelty_detector
from ssanet_jax.image_progress import ImageProgress
from ssanet_jax.models.inference import optimize_for_inference
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.runs.run import Run

UNREADABLE = -1  # the predicted class of an image that could not be read


@dataclass(frozen=True)
class TestPredictions:
    """The predictions for n test images, in the order of the test set.

    Attributes:
      labels: int32 `[n]`.
      predicted: int32 `[n]`; `UNREADABLE` for an image that could not be read.
      confidence: float32 `[n]`, the calibrated probability of the predicted class; 0 for an unreadable image.
      label_probability: float32 `[n]`, that of the true class; 0 for an unreadable image.
      load_seconds: float32 `[n]`, CPU time spent on reading, decoding and resizing each image, without waiting.
      file_names: n names; empty for an unreadable image.
    """

    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    label_probability: np.ndarray
    load_seconds: np.ndarray
    file_names: list[str]
    novelty: np.ndarray | None = None  # float32 [n], see `Prediction.novelty`; 1 for an unreadable image


@dataclass(frozen=True)
class ConfusedPair:
    """`count` of the `total` readable images of class `label` were predicted as class `predicted`.

    `examples` are the positions of those images in the test set, most confident first.
    """

    label: int
    predicted: int
    count: int
    total: int
    examples: list[int]


def predict_test_set(run: Run, dataset: Dataset, mesh: Mesh, console: Console) -> TestPredictions:
    """Predicts every test image once, in one process. No image is kept in memory.

    Args:
      run: a trained run.
      dataset: the data set whose test images are predicted.
      mesh: the devices.
      console: shows the progress.
    """
    data = run.config.data
    timed = _TimedSource(dataset.test, data)
    # The timed source has already resized and cropped: the pipeline must not do so again.
    resized = data.copy_and_resolve_references()
    resized.resize = data.image_size
    model = optimize_for_inference(run.model)
    _, params, stats = split_model(model)
    params, stats = sharding.replicate((params, stats), mesh)
    predict = make_predict(model, run.active, mesh)
    temperature = run.held_out.temperature if run.held_out else 1.0
    detector = novelty_detector(run.held_out)

    @jax.jit
    def score(logits, labels):
        probabilities = jax.nn.softmax(logits.astype(jnp.float32) / temperature)
        of_label = jnp.take_along_axis(probabilities, labels[:, None], 1)[:, 0]
        return logits.argmax(-1), probabilities.max(-1), of_label

    images = len(dataset.test)
    labels = np.asarray(dataset.test.labels, np.int32)
    predicted = np.full(images, UNREADABLE, np.int32)
    confidence, label_probability = np.zeros((2, images), np.float32)
    novelty = np.ones(images, np.float32) if detector else None
    batches = sharding.prefetch_to_device(eval_batches(timed, resized), mesh, ('image', 'label'))
    with ImageProgress(console, images, task='predicting test images') as progress:
        for batch, on_device in batches:
            outputs = predict(params, stats, on_device['image'])
            readable = batch['mask'] & (batch['skipped'] < 0)
            positions = batch['index'][readable]
            scores = jax.device_get(score(outputs.logits, on_device['label']))
            for array, column in zip((predicted, confidence, label_probability), scores):
                array[positions] = column[readable]
            if detector and novelty is not None:
                novelty[positions] = detector(jax.device_get(outputs.logits))[readable]
            progress.advance(int(batch['mask'].sum()))
    return TestPredictions(labels, predicted, confidence, label_probability, timed.seconds, timed.file_names, novelty)


def unreadable_images(dataset: Dataset, predictions: TestPredictions) -> list[str]:
    """One error message per test image that could not be read."""
    return list_unreadable(dataset.test, np.flatnonzero(predictions.predicted == UNREADABLE).tolist())


class _TimedSource:
    """Wraps a source: resizes and crops its images, and records how long each takes and its file name."""

    def __init__(self, source: Source, data: Any):
        self._source, self._data = source, data
        self.labels = source.labels
        self.seconds = np.zeros(len(source), np.float32)
        self.file_names = [''] * len(source)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = int(index)
        # CPU time of this thread: wall time would include waiting for the network.
        start = time.thread_time()
        try:
            example = self._source[index]
            image = preprocess_for_evaluation(example['image'], self._data)
        finally:  # an image that turns out to be unreadable takes time, too
            self.seconds[index] = time.thread_time() - start
        self.file_names[index] = str(example['file'])
        return {'image': image, 'label': example['label']}


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts how often each class was predicted as which.

    Args:
      labels, predicted: int `[n]`; images whose `predicted` is `UNREADABLE` are left out.
      num_classes: N.

    Returns:
      int `[N, N]`; rows are true classes, columns predicted ones.
    """
    readable = predicted != UNREADABLE
    pairs = labels[readable].astype(np.int64) * num_classes + predicted[readable]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def most_confused(predictions: TestPredictions, num_classes: int, count: int = 10) -> list[ConfusedPair]:
    """The most frequent confusions, sorted by count, then by share of the class, then by class index."""
    matrix = confusion_matrix(predictions.labels, predictions.predicted, num_classes)
    totals = matrix.sum(1)
    wrong = matrix * ~np.eye(num_classes, dtype=bool)
    order = sorted(np.argwhere(wrong).tolist(), key=lambda pair: (-wrong[*pair], totals[pair[0]], *pair))
    return [
        ConfusedPair(
            label,
            predicted,
            int(wrong[label, predicted]),
            int(totals[label]),
            _examples_of(predictions, label, predicted),
        )
        for label, predicted in order[:count]
    ]


def hardest_examples(predictions: TestPredictions, count: int = 10) -> list[int]:
    """Positions of the misclassified images with the lowest probability of the true class, lowest first."""
    wrong = np.flatnonzero((predictions.predicted != predictions.labels) & (predictions.predicted != UNREADABLE))
    return wrong[np.argsort(predictions.label_probability[wrong], kind='stable')][:count].tolist()


def slowest_images(predictions: TestPredictions, count: int = 10) -> list[int]:
    """Positions of the images that took the most CPU time to load, slowest first."""
    return np.argsort(-predictions.load_seconds, kind='stable')[:count].tolist()


def class_accuracy(predictions: TestPredictions, num_classes: int) -> np.ndarray:
    """Accuracy of each class, float `[N]`; NaN for a class without test images.

    An unreadable image counts as wrong, as in every evaluation.
    """
    images = np.bincount(predictions.labels, minlength=num_classes)
    correct = np.bincount(predictions.labels[predictions.predicted == predictions.labels], minlength=num_classes)
    return np.divide(correct, images, out=np.full(num_classes, np.nan), where=images > 0)


def confused_pair_images(
    pairs: Sequence[ConfusedPair], predictions: TestPredictions, dataset: Dataset, side: int
) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """Two images for each confused pair, chosen by the predictions.

    The first is the most confident mistake. The second is the readable image of the predicted class whose true class
    has the highest probability.

    Args:
      pairs: the run's confused pairs of classes.
      predictions: the run's predictions for the test set.
      dataset: the data set that was predicted.
      side: longer side of the images returned, pixels.

    Returns:
      uint8 `[H, W, 3]` each; the second is None if the class has no readable image.
    """
    load = lambda index: fit_picture(dataset.test[index]['image'], side)[0]
    images = []
    for pair in pairs:
        others = np.flatnonzero((predictions.labels == pair.predicted) & (predictions.predicted != UNREADABLE))
        best = others[np.argmax(predictions.label_probability[others])] if len(others) else None
        images.append((load(pair.examples[0]), None if best is None else load(int(best))))
    return images


def _examples_of(predictions: TestPredictions, label: int, predicted: int) -> list[int]:
    found = np.flatnonzero((predictions.labels == label) & (predictions.predicted == predicted))
    return found[np.argsort(-predictions.confidence[found], kind='stable')].tolist()
