"""Photos in, predictions out, whatever computes the network."""

import abc
import itertools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from ssanet_jax.cpu_limit import available_cpus
from ssanet_jax.data.image_inputs import ImageInput, expand_folders, network_input, read_image
from ssanet_jax.data.preprocessing import InputSettings, to_source_pixels
from ssanet_jax.errors import UnreadableImage
from ssanet_jax.evaluation.prediction import ORIENTATIONS, UNSURE_LIMITS, Evidence, Prediction, UnsureLimits

OnError = Literal['raise', 'skip'] | Callable[[UnreadableImage], None]

_log = logging.getLogger(__name__)


class Features(NamedTuple):
    """Features of n images."""

    image: np.ndarray  # float32 [n, C], the average of the image's feature map
    parts: np.ndarray  # float32 [n, K, D], the average of each part's map at the chosen scale; K = 0 without parts


class NetworkInput(NamedTuple):
    """An image, ready for the network."""

    image: np.ndarray  # uint8 [S, S, 3]
    shape: tuple[int, int]  # height and width of the source image
    path: str | None
    read_photo: Callable[[], np.ndarray]  # reads the source image again


class NetworkOutputs(NamedTuple):
    """What a network says about n images; `docs/export.md` describes the fields."""

    logits: np.ndarray  # [n, N]
    probabilities: np.ndarray  # [n, N], calibrated
    image_logits: np.ndarray  # [n, N]
    bias_logits: np.ndarray  # [n, N]
    part_logits: np.ndarray | None = None  # [n, H, K, N]
    boxes: np.ndarray | None = None  # [n, K, 4]
    proposals: np.ndarray | None = None  # [n, K, 4]
    present: np.ndarray | None = None  # bool [n, K]
    scales: np.ndarray | None = None  # [n, K]
    orientations: np.ndarray | None = None  # int [n, K]
    angle: np.ndarray | None = None  # [n], degrees
    novelty: np.ndarray | None = None  # [n]
    embedding: np.ndarray | None = None  # [n, C]
    part_embeddings: np.ndarray | None = None  # [n, K, D]


class ImagePredictor(abc.ABC):
    """Predicts classes and parts of photos.

    Args:
      class_names: the name of each class.
      inputs: how photos become inputs of the network.
      limits: from where on predictions are unsure.
    """

    def __init__(self, class_names: Sequence[str], inputs: InputSettings, limits: UnsureLimits = UNSURE_LIMITS):
        self.class_names = tuple(class_names)
        self.inputs = inputs
        self._limits = limits

    @abc.abstractmethod
    def digest(self) -> str:
        """Identifies what predictions depend on: weights, settings, names of classes and held-out predictions."""

    @property
    @abc.abstractmethod
    def detects_novelty(self) -> bool:
        """Whether predictions have `novelty`: there were held-out images to compare with."""

    @abc.abstractmethod
    def outputs(self, images: np.ndarray) -> NetworkOutputs:
        """Computes the network for inputs uint8 `[n, S, S, 3]`."""

    @abc.abstractmethod
    def embed(self, images: np.ndarray) -> Features:
        """Computes the features of inputs uint8 `[n, S, S, 3]`."""

    def predict(
        self, images: ImageInput | Iterable[ImageInput], *, batch_size: int = 8, on_error: OnError = 'raise'
    ) -> Iterator[Prediction]:
        """Predicts the class of each image, and finds its parts.

        The network is compiled once per batch size: a last batch that is not full is padded. Files are read, decoded
        and resized by threads while the device computes, at most a few batches ahead.

        Args:
          images: one of the following, or any number of them: the path of an image or of a folder of images (searched
            with its subfolders, sorted), a uint8 array `[H, W, 3]` (RGB), a Pillow image.
          batch_size: images per call of the compiled network; 1 answers soonest for single images. On several devices,
            those that a batch leaves without an image share the regions of the others.
          on_error: for an image that cannot be read: 'raise', 'skip' (with a warning in the log), or a function, which
            is called with the error before the image is skipped.

        Yields:
          A `Prediction` for each image, in order.

        Raises:
          UnreadableImage: an image cannot be read, with `on_error='raise'`.
          UserError: a folder without images.
          ValueError: an array of another type or shape, or `batch_size` below 1.
        """
        if batch_size < 1:
            raise ValueError(f'batch_size must be at least 1; got {batch_size}')
        for batch in _batches(self._inputs(images, batch_size, on_error), batch_size):
            yield from self.predictions(batch, self.outputs(_padded(batch, batch_size)))

    def features(
        self, images: ImageInput | Iterable[ImageInput], *, batch_size: int = 8, on_error: OnError = 'raise'
    ) -> Features:
        """Describes images and their parts by vectors, for retrieval, clustering or another classifier.

        Args:
          images, batch_size, on_error: as for `predict`.
        """
        if batch_size < 1:
            raise ValueError(f'batch_size must be at least 1; got {batch_size}')
        rows = []
        for batch in _batches(self._inputs(images, batch_size, on_error), batch_size):
            rows.append([value[: len(batch)] for value in self.embed(_padded(batch, batch_size))])
        if not rows:
            return Features(np.zeros((0, 0), np.float32), np.zeros((0, 0, 0), np.float32))
        return Features(*(np.concatenate(column) for column in zip(*rows)))

    def _inputs(
        self, images: ImageInput | Iterable[ImageInput], batch_size: int, on_error: OnError
    ) -> Iterator[NetworkInput]:
        """The network's inputs in order, prepared by threads at most two batches ahead."""
        singles = expand_folders(images)
        pool = ThreadPoolExecutor(min(batch_size, available_cpus()))
        pending: deque[Future[NetworkInput]] = deque()
        try:
            while True:
                for image in itertools.islice(singles, 2 * batch_size - len(pending)):
                    pending.append(pool.submit(self._read, image))
                if not pending:
                    return
                try:
                    ready = pending.popleft().result()
                except UnreadableImage as error:
                    if on_error == 'raise':
                        raise
                    if on_error == 'skip':
                        _log.warning('skipped: %s', error)
                    else:
                        on_error(error)
                    continue
                yield ready
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, image: ImageInput) -> NetworkInput:
        read = partial(read_image, image, self.inputs.bit_depth)
        pixels = read()
        path = os.fspath(image) if isinstance(image, (str, os.PathLike)) else None
        return NetworkInput(network_input(pixels, self.inputs), pixels.shape[:2], path, read)

    def predictions(self, batch: Sequence[NetworkInput], outputs: NetworkOutputs) -> Iterator[Prediction]:
        """Converts the results for a batch to predictions; the padding of the batch is left out."""
        none = np.zeros((0, 4), np.float32)
        for i, given in enumerate(batch):
            index = int(outputs.logits[i].argmax())
            boxes = none if outputs.boxes is None else outputs.boxes[i]
            probabilities = outputs.probabilities[i].astype(np.float32)
            yield Prediction(
                label=self.class_names[index],
                class_index=index,
                score=float(probabilities[index]),
                probabilities=probabilities,
                class_names=self.class_names,
                boxes=to_source_pixels(boxes, given.shape, self.inputs).astype(np.float32),
                scales=outputs.scales[i] if outputs.scales is not None else np.zeros(0, np.float32),
                orientations=tuple(ORIENTATIONS[o] for o in outputs.orientations[i])
                if outputs.orientations is not None
                else (),
                evidence=self._evidence(index, outputs, i),
                path=given.path,
                image=given.image,
                input_boxes=boxes,
                input_proposals=none if outputs.proposals is None else outputs.proposals[i],
                present=tuple(outputs.present[i].tolist()) if outputs.present is not None else (),
                angle=float(outputs.angle[i]) if outputs.angle is not None else None,
                novelty=float(outputs.novelty[i]) if outputs.novelty is not None else None,
                source_size=given.shape,
                image_features=None if outputs.embedding is None else outputs.embedding[i].astype(np.float16),
                part_features=None
                if outputs.part_embeddings is None
                else outputs.part_embeddings[i].astype(np.float16),
                read_photo=given.read_photo,
                limits=self._limits,
            )

    def _evidence(self, index: int, outputs: NetworkOutputs, i: int) -> Evidence:
        """Compares each term of the logits of image `i` for the predicted class with that for the runner-up.

        Args:
          index: index of the predicted class.
          outputs: the results for a batch.
          i: index of the image.
        """
        order = np.argsort(-outputs.logits[i], kind='stable')
        others = order[order != index]
        second = int(others[0]) if len(others) else index
        over = lambda term: term[..., index] - term[..., second]
        return Evidence(
            runner_up=self.class_names[second] if len(others) else '',
            parts=() if outputs.part_logits is None else tuple(over(outputs.part_logits[i].sum(0)).tolist()),
            image=float(over(outputs.image_logits[i])),
            bias=float(over(outputs.bias_logits[i])),
        )


def _batches(inputs: Iterator[NetworkInput], size: int) -> Iterator[list[NetworkInput]]:
    """Groups inputs; the last batch may be smaller."""
    while batch := list(itertools.islice(inputs, size)):
        yield batch


def _padded(batch: Sequence[NetworkInput], size: int) -> np.ndarray:
    """uint8 `[size, S, S, 3]`: the images, and the last one again where they are fewer."""
    images = [given.image for given in batch]
    return np.stack([*images, *[images[-1]] * (size - len(images))])
