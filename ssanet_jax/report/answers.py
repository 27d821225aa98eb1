"""What the network gets wrong in the test set: which images, which classes for which, and how long reading takes."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import track

from ssanet_jax.data.dataset import Dataset, Source
from ssanet_jax.data.pipeline import eval_batches, num_steps
from ssanet_jax.data.transforms import preprocess_for_evaluation
from ssanet_jax.distributed import sharding
from ssanet_jax.evaluation.accuracy import make_predict
from ssanet_jax.models.inference import optimize_for_inference
from ssanet_jax.models.ssanet import split_model
from ssanet_jax.runs.run import Run

UNREAD = -1  # the answer to an image that could not be read


class Answers(NamedTuple):
    """What the network says of n test images, in their order."""

    labels: np.ndarray  # int32 [n]
    predicted: np.ndarray  # int32 [n]; -1 where the image could not be read
    confidence: np.ndarray  # float32 [n], probability of the predicted class; 0 where the image could not be read
    right_probability: np.ndarray  # float32 [n], probability of the right class; 0 where it could not be read
    seconds: np.ndarray  # float32 [n], of a processor, spent reading, decoding and preparing the image; no waiting
    files: list[str]  # names; empty where the image could not be read


class Confusion(NamedTuple):
    """Of class `label`, `count` of `total` images that can be read were called `predicted`."""

    label: int
    predicted: int
    count: int
    total: int
    examples: list[int]  # those images: positions in the test set, the one the network was surest of first


def answer_all(run: Run, dataset: Dataset, mesh: Mesh, console: Console) -> Answers:
    """Asks the network about every test image, once, in one process; no image is kept.

    Args:
      run: a trained run.
      dataset: whose test images are asked about.
      mesh: the devices.
      console: shows the progress.
    """
    data = run.config.data
    timed = _Timed(dataset.test, data)
    # The timed source has resized and cropped already, so nothing of that is left to the pipeline.
    ready = data.copy_and_resolve_references()
    ready.resize = data.image_size
    model = optimize_for_inference(run.model)
    _, params, stats = split_model(model)
    params, stats = sharding.replicate((params, stats), mesh)
    predict = make_predict(model, run.active, mesh)

    @jax.jit
    def judge(logits, labels):
        probabilities = jax.nn.softmax(logits.astype(jnp.float32))
        right = jnp.take_along_axis(probabilities, labels[:, None], 1)[:, 0]
        return logits.argmax(-1), probabilities.max(-1), right

    images = len(dataset.test)
    labels = np.asarray(dataset.test.labels, np.int32)
    predicted = np.full(images, UNREAD, np.int32)
    confidence, right_probability = np.zeros((2, images), np.float32)
    batches = sharding.prefetch_to_device(eval_batches(timed, ready), mesh, ('image', 'label'))
    steps = num_steps(1, images, data.eval_batch_size)
    for batch, on_device in track(batches, 'looking for mistakes', total=steps, console=console, transient=True):
        outputs = predict(params, stats, on_device['image'])
        there = batch['mask'] & (batch['skipped'] < 0)
        places = batch['index'][there]
        columns = jax.device_get(judge(outputs.logits, on_device['label']))
        for array, column in zip((predicted, confidence, right_probability), columns):
            array[places] = column[there]
    return Answers(labels, predicted, confidence, right_probability, timed.seconds, timed.files)


class _Timed:
    """A source of images as the network takes them, that notes how long each one took and its name."""

    def __init__(self, source: Source, data: Any):
        self._source, self._data = source, data
        self.labels = source.labels
        self.seconds = np.zeros(len(source), np.float32)
        self.files = [''] * len(source)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        index = int(index)
        # Of this thread alone: by the clock on the wall, an image is slow that waits while the network computes.
        start = time.thread_time()
        try:
            example = self._source[index]
            image = preprocess_for_evaluation(example['image'], self._data)
        finally:  # finding out that an image cannot be read takes its time too
            self.seconds[index] = time.thread_time() - start
        self.files[index] = str(example['file'])
        return {'image': image, 'label': example['label']}


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """How often each class was called what.

    Args:
      labels, predicted: int `[n]`; where `predicted` is -1 the image could not be read, and is left out.
      classes: N.

    Returns:
      int `[N, N]`, rows the truth.
    """
    read = predicted != UNREAD
    pairs = labels[read].astype(np.int64) * classes + predicted[read]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def most_confused(answers: Answers, classes: int, count: int = 10) -> list[Confusion]:
    """The most frequent mistakes: by number, then by share of the class, then in the order of the classes."""
    matrix = confusion_matrix(answers.labels, answers.predicted, classes)
    totals = matrix.sum(1)
    wrong = matrix * ~np.eye(classes, dtype=bool)
    order = sorted(np.argwhere(wrong).tolist(), key=lambda pair: (-wrong[*pair], totals[pair[0]], *pair))
    return [
        Confusion(
            label, predicted, int(wrong[label, predicted]), int(totals[label]), _taken_for(answers, label, predicted)
        )
        for label, predicted in order[:count]
    ]


def wrongest(answers: Answers, count: int = 10) -> list[int]:
    """Positions of the wrong answers that give the right class the smallest probability, the smallest first."""
    wrong = np.flatnonzero((answers.predicted != answers.labels) & (answers.predicted != UNREAD))
    return wrong[np.argsort(answers.right_probability[wrong], kind='stable')][:count].tolist()


def slowest(answers: Answers, count: int = 10) -> list[int]:
    """Positions of the images that kept a processor longest, to read, decode and prepare; the slowest first."""
    return np.argsort(-answers.seconds, kind='stable')[:count].tolist()


def class_accuracy(answers: Answers, classes: int) -> np.ndarray:
    """Share of right answers of each class, float `[N]`; nan for one without test images.

    As in every evaluation, an image that cannot be read counts as wrong.
    """
    images = np.bincount(answers.labels, minlength=classes)
    right = np.bincount(answers.labels[answers.predicted == answers.labels], minlength=classes)
    return np.divide(right, images, out=np.full(classes, np.nan), where=images > 0)


def confusion_images(
    confusions: Sequence[Confusion], answers: Answers, dataset: Dataset, data: Any
) -> list[tuple[np.ndarray, np.ndarray | None]]:
    """An image of each confusion, and one of the class it was taken for, neither picked by hand.

    The first is the mistake of which the network was the surest. The second is, of the images of the other class that
    can be read, the one that it recognises best.

    Args:
      confusions, answers: of the run.
      dataset: that was asked about.
      data: the `data` section of the run's config.

    Returns:
      Pairs of the network's inputs, uint8 `[S, S, 3]`; the second is None for a class without such an image.
    """
    show = lambda index: preprocess_for_evaluation(dataset.test[index]['image'], data)
    pairs = []
    for confusion in confusions:
        others = np.flatnonzero((answers.labels == confusion.predicted) & (answers.predicted != UNREAD))
        best = others[np.argmax(answers.right_probability[others])] if len(others) else None
        pairs.append((show(confusion.examples[0]), None if best is None else show(int(best))))
    return pairs


def _taken_for(answers: Answers, label: int, predicted: int) -> list[int]:
    found = np.flatnonzero((answers.labels == label) & (answers.predicted == predicted))
    return found[np.argsort(-answers.confidence[found], kind='stable')].tolist()
