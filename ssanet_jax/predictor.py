"""The public Python API: a trained network as a function of photos.

model = ssanet_jax.load('runs/cub')
for prediction in model.predict(['wren.jpg', 'more_photos/']):
    print(prediction.path, prediction.label, prediction.score, prediction.boxes)
"""

import hashlib
import itertools
import logging
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import scipy.special
from ml_collections import ConfigDict

from ssanet_jax.cpu_limit import available_cpus
from ssanet_jax.data.image_inputs import ImageInput, expand_folders, network_input, read_image
from ssanet_jax.data.transforms import to_source_pixels
from ssanet_jax.distributed import sharding
from ssanet_jax.distributed.candidate_map import candidate_map
from ssanet_jax.errors import UnreadableImage, UserError
from ssanet_jax.evaluation.neighbors import Neighbor, nearest_images
from ssanet_jax.evaluation.novelty import novelty_detector
from ssanet_jax.evaluation.part_logits import PartLogits, part_logits
from ssanet_jax.evaluation.prediction import ORIENTATIONS, Evidence, Prediction
from ssanet_jax.filesystem.paths import user_path
from ssanet_jax.models.candidates import scale_factors
from ssanet_jax.models.inference import optimize_for_inference
from ssanet_jax.models.outputs import Outputs, PartFeatures
from ssanet_jax.models.ssanet import SSANet, merge_model, split_model
from ssanet_jax.runs.feature_index import FeatureIndex
from ssanet_jax.runs.held_out import HeldOutPredictions
from ssanet_jax.runs.run import Run, load_run

OnError = Literal['raise', 'skip'] | Callable[[UnreadableImage], None]

_log = logging.getLogger(__name__)


class Features(NamedTuple):
    """Features of n images."""

    image: np.ndarray  # float32 [n, C], the average of the image's feature map
    parts: np.ndarray  # float32 [n, K, D], the average of each part's map at the chosen scale; K = 0 without parts


class _Input(NamedTuple):
    """An image, ready for the network."""

    image: np.ndarray  # uint8 [S, S, 3]
    shape: tuple[int, int]  # height and width of the source image
    path: str | None
    read_photo: Callable[[], np.ndarray]  # reads the source image again


class _Response(NamedTuple):
    """The results for a batch, computed on the devices."""

    outputs: Outputs
    terms: PartLogits
    image_features: Any  # float16 [B, C]
    part_features: Any  # float16 [B, K, D]


class Predictor:
    """Predicts classes and parts of photos with a trained network.

    Args:
      model: the network; it stays as it is.
      active: the groups that take part in the prediction.
      config: the configuration that the network was trained with.
      class_names: the name of each class.
      held_out: predictions for images that the network was not trained on. With them, probabilities are calibrated,
        and predictions have `novelty` and `unsure`.
      read_index: reads the features of the training images, for `index` and `neighbors`.
    """

    def __init__(
        self,
        model: SSANet,
        active: Collection[str],
        config: ConfigDict,
        class_names: Sequence[str],
        held_out: HeldOutPredictions | None = None,
        read_index: Callable[[], FeatureIndex] | None = None,
    ):
        self.config = config
        self.class_names = tuple(class_names)
        self.active = frozenset(active)
        self._scale_factors = scale_factors(model.num_scales, model.alpha)
        self._graph, self._params, self._stats = split_model(optimize_for_inference(model))
        self._compiled: dict[tuple[str, int], Callable[[np.ndarray], Any]] = {}
        self._held_out = held_out
        self._temperature = held_out.temperature if held_out else 1.0
        self._novelty = novelty_detector(held_out)
        self._read_index = read_index

    @classmethod
    def from_run(cls, run: Run) -> 'Predictor':
        """The network of a run that `load_run` has read."""
        return cls(run.model, run.active, run.config, run.class_names, run.held_out, run.read_index)

    def digest(self) -> str:
        """Identifies what predictions depend on: weights, settings, names of classes and held-out predictions."""
        settings = [self.config.to_json_best_effort(sort_keys=True), sorted(self.active), self.class_names]
        digest = hashlib.sha256(repr([*settings, self._temperature]).encode(errors='surrogatepass'))
        held_out = self._held_out.log_probabilities if self._held_out else ()
        for leaf in jax.tree.leaves((self._params, self._stats, held_out)):
            digest.update(np.ascontiguousarray(leaf).view(np.uint8).data)
        return digest.hexdigest()

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
        respond = self._compile(_respond, batch_size)
        for batch in _batches(self._inputs(images, batch_size, on_error), batch_size):
            yield from self._predictions(batch, respond(_padded(batch, batch_size)))

    def features(
        self, images: ImageInput | Iterable[ImageInput], *, batch_size: int = 8, on_error: OnError = 'raise'
    ) -> Features:
        """Describes images and their parts by vectors, for retrieval, clustering or another classifier.

        Args:
          images, batch_size, on_error: as for `predict`.
        """
        extract = self._compile(_extract, batch_size)
        rows = []
        for batch in _batches(self._inputs(images, batch_size, on_error), batch_size):
            found = extract(_padded(batch, batch_size))
            rows.append([value[: len(batch)] for value in found])
        if not rows:
            return Features(np.zeros((0, 0), np.float32), np.zeros((0, 0, 0), np.float32))
        return Features(*(np.concatenate(column) for column in zip(*rows)))

    @cached_property
    def index(self) -> FeatureIndex:
        """The features of the training images.

        Raises:
          UserError: there is no index of this network, or it is damaged.
        """
        if self._read_index is None:
            raise UserError('this network has no work directory, so it has no index of training images')
        return self._read_index()

    def neighbors(
        self, prediction: Prediction, part: int | None = None, k: int = 3, label: int | None = None
    ) -> list[Neighbor]:
        """The training images that resemble an image most, by the cosine of their features.

        Args:
          prediction: of this network for the image.
          part: compare this part, from 0, instead of the whole image.
          k: number of neighbors.
          label: consider only images of this class, an index of `class_names`.

        Returns:
          At most k neighbors, most similar first.

        Raises:
          UserError: there is no index of this network, or it is damaged.
          ValueError: there is no such part.
        """
        return nearest_images(self.index, prediction.features(part), part, k, label)

    def _compile(
        self, function: Callable[[SSANet, PartFeatures, frozenset[str]], Any], batch_size: int
    ) -> Callable[[np.ndarray], Any]:
        """`function` of the features of a batch of inputs, compiled once per batch size."""
        if batch_size < 1:
            raise ValueError(f'batch_size must be at least 1; got {batch_size}')
        key = function.__name__, batch_size
        if key not in self._compiled:
            # Every process predicts for itself.
            mesh = sharding.make_mesh(jax.local_devices(), images=batch_size)
            params, stats = sharding.replicate((self._params, self._stats), mesh)

            @jax.jit
            def call(params, stats, images):
                model = merge_model(self._graph, params, stats)
                features = model.extract_features(
                    sharding.constrain_batch(images, mesh),
                    active=self.active,
                    map_candidates=partial(candidate_map, mesh=mesh),
                )
                return function(model, features, self.active)

            self._compiled[key] = lambda images: jax.device_get(call(params, stats, images))
        return self._compiled[key]

    def _inputs(
        self, images: ImageInput | Iterable[ImageInput], batch_size: int, on_error: OnError
    ) -> Iterator[_Input]:
        """The network's inputs in order, prepared by threads at most two batches ahead."""
        singles = expand_folders(images)
        pool = ThreadPoolExecutor(min(batch_size, available_cpus()))
        pending: deque[Future[_Input]] = deque()
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

    def _read(self, image: ImageInput) -> _Input:
        read = partial(read_image, image, self.config.data.get('bit_depth', 0))
        pixels = read()
        path = os.fspath(image) if isinstance(image, (str, os.PathLike)) else None
        return _Input(network_input(pixels, self.config.data), pixels.shape[:2], path, read)

    def _predictions(self, batch: Sequence[_Input], response: Any) -> Iterator[Prediction]:
        """Converts the results for a batch to predictions.

        Args:
          batch: the inputs, without the padding of the batch.
          response: a `_Response` on the host, with NumPy arrays in place of JAX's.
        """
        outputs, terms = response.outputs, response.terms
        calibrated = scipy.special.softmax(outputs.logits / self._temperature, axis=-1)
        novelty = self._novelty(outputs.logits) if self._novelty else None
        scaled = 'scale_mining' in self.active
        for i, given in enumerate(batch):
            probabilities = calibrated[i].astype(np.float32)
            index = int(outputs.logits[i].argmax())
            boxes = proposals = np.zeros((0, 4), np.float32)
            if outputs.boxes is not None:
                boxes = outputs.aligned_boxes[i]
                proposals = outputs.boxes[i, : len(boxes)]
            yield Prediction(
                label=self.class_names[index],
                class_index=index,
                score=float(probabilities[index]),
                probabilities=probabilities,
                class_names=self.class_names,
                boxes=to_source_pixels(boxes, given.shape, self.config.data).astype(np.float32),
                scales=self._scale_factors[outputs.aligned_scale[i]] if scaled else np.zeros(0, np.float32),
                orientations=tuple(ORIENTATIONS[o] for o in outputs.orientation[i])
                if outputs.orientation is not None
                else (),
                evidence=self._evidence(index, outputs.logits[i], terms.parts[i], terms.image[i], terms.bias),
                path=given.path,
                image=given.image,
                input_boxes=boxes,
                input_proposals=proposals,
                present=tuple(outputs.present[i].tolist()) if outputs.present is not None else (),
                angle=float(outputs.image_angle[i]) if outputs.image_angle is not None else None,
                novelty=float(novelty[i]) if novelty is not None else None,
                source_size=given.shape,
                image_features=response.image_features[i],
                part_features=response.part_features[i],
                read_photo=given.read_photo,
            )

    def _evidence(
        self, index: int, logits: np.ndarray, parts: np.ndarray, image: np.ndarray, bias: np.ndarray
    ) -> Evidence:
        """Compares each term of the logits for the predicted class with that for the runner-up.

        Args:
          index: index of the predicted class.
          logits: `[N]`, the sum of the terms.
          parts: `[K, N]`, the terms of the parts.
          image: `[N]`, the term of the image.
          bias: `[N]`, the biases of the heads that read parts.
        """
        order = np.argsort(-logits, kind='stable')
        others = order[order != index]
        second = int(others[0]) if len(others) else index
        over = lambda term: term[..., index] - term[..., second]
        return Evidence(
            runner_up=self.class_names[second] if len(others) else '',
            parts=tuple(over(parts).tolist()),
            image=float(over(image)),
            bias=float(over(bias)),
        )


def load(workdir: str | os.PathLike[str]) -> Predictor:
    """Loads the network of a trained run, ready to predict.

    Args:
      workdir: the run's work directory.

    Raises:
      UserError: it holds no run, or no checkpoint that can be read.
    """
    return Predictor.from_run(load_run(user_path(workdir, 'workdir')))


def _respond(model: SSANet, features: PartFeatures, active: frozenset[str]) -> _Response:
    outputs = model.classify(features, active=active)
    vectors = features.image.astype('float16'), features.part_vectors().astype('float16')
    return _Response(outputs, part_logits(model, features, outputs, active), *vectors)


def _extract(model: SSANet, features: PartFeatures, active: frozenset[str]) -> Any:
    """The arrays of `Features`, on the devices."""
    del model, active
    return features.image.astype('float32'), features.part_vectors().astype('float32')


def _batches(inputs: Iterator[_Input], size: int) -> Iterator[list[_Input]]:
    while batch := list(itertools.islice(inputs, size)):
        yield batch


def _padded(batch: Sequence[_Input], size: int) -> np.ndarray:
    """uint8 `[size, S, S, 3]`: the images, and the last one again where they are fewer."""
    images = [given.image for given in batch]
    return np.stack([*images, *[images[-1]] * (size - len(images))])
