"""The public Python API: a trained network as a function of photos.

model = ssanet_jax.load('runs/cub')
for prediction in model.predict(['wren.jpg', 'more_photos/']):
    print(prediction.path, prediction.label, prediction.score, prediction.boxes)
"""

import hashlib
import os
from collections.abc import Callable, Collection, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.special
from ml_collections import ConfigDict

from ssanet_jax.data.preprocessing import InputSettings
from ssanet_jax.distributed import sharding
from ssanet_jax.distributed.candidate_map import candidate_map
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.image_predictor import Features, ImagePredictor, NetworkOutputs
from ssanet_jax.evaluation.neighbors import Neighbor, nearest_images
from ssanet_jax.evaluation.novelty import novelty_detector
from ssanet_jax.evaluation.part_logits import PartLogits, part_logits
from ssanet_jax.evaluation.prediction import Prediction
from ssanet_jax.filesystem.paths import user_path
from ssanet_jax.models.candidates import scale_factors
from ssanet_jax.models.inference import optimize_for_inference
from ssanet_jax.models.outputs import Outputs, PartFeatures
from ssanet_jax.models.ssanet import SSANet, merge_model, split_model
from ssanet_jax.runs.feature_index import FeatureIndex
from ssanet_jax.runs.held_out import HeldOutPredictions
from ssanet_jax.runs.run import Run, load_run


class _Response(NamedTuple):
    """The results for a batch, computed on the devices."""

    outputs: Outputs
    terms: PartLogits
    image_features: Any  # float16 [B, C]
    part_features: Any  # float16 [B, K, D]


class Predictor(ImagePredictor):
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
        super().__init__(class_names, InputSettings.from_config(config.data))
        self.config = config
        self.active = frozenset(active)
        self.scale_factors = scale_factors(model.num_scales, model.alpha)
        self._graph, self._params, self._stats = split_model(optimize_for_inference(model))
        self._compiled: dict[tuple[str, int], Callable[[np.ndarray], Any]] = {}
        self._held_out = held_out
        self.temperature = held_out.temperature if held_out else 1.0
        self.novelty = novelty_detector(held_out)
        self._read_index = read_index

    @classmethod
    def from_run(cls, run: Run) -> 'Predictor':
        """The network of a run that `load_run` has read."""
        return cls(run.model, run.active, run.config, run.class_names, run.held_out, run.read_index)

    @property
    def network(self) -> SSANet:
        """The network, optimized for prediction."""
        return merge_model(self._graph, self._params, self._stats)

    def digest(self) -> str:
        """Identifies what predictions depend on: weights, settings, names of classes and held-out predictions."""
        settings = [self.config.to_json_best_effort(sort_keys=True), sorted(self.active), self.class_names]
        digest = hashlib.sha256(repr([*settings, self.temperature]).encode(errors='surrogatepass'))
        held_out = self._held_out.log_probabilities if self._held_out else ()
        for leaf in jax.tree.leaves((self._params, self._stats, held_out)):
            digest.update(np.ascontiguousarray(leaf).view(np.uint8).data)
        return digest.hexdigest()

    @property
    def detects_novelty(self) -> bool:
        """Whether predictions have `novelty`: the run has held-out images."""
        return self.novelty is not None

    def outputs(self, images: np.ndarray) -> NetworkOutputs:
        """Computes the network; it is compiled once per number of images."""
        response = self._compile(_respond, len(images))(images)
        outputs, terms = response.outputs, response.terms
        count = 0 if outputs.aligned_boxes is None else outputs.aligned_boxes.shape[1]
        return NetworkOutputs(
            logits=outputs.logits,
            probabilities=scipy.special.softmax(outputs.logits / self.temperature, axis=-1),
            image_logits=terms.image,
            bias_logits=np.broadcast_to(terms.bias, outputs.logits.shape),
            part_logits=np.stack(list(terms.parts.values()), 1) if terms.parts else None,
            boxes=outputs.aligned_boxes,
            proposals=None if outputs.boxes is None else outputs.boxes[:, :count],
            present=outputs.present,
            scales=self.scale_factors[outputs.aligned_scale] if 'scale_mining' in self.active else None,
            orientations=outputs.orientation,
            angle=outputs.image_angle,
            novelty=self.novelty(outputs.logits) if self.novelty else None,
            embedding=response.image_features,
            part_embeddings=response.part_features,
        )

    def embed(self, images: np.ndarray) -> Features:
        """Computes the features of inputs; the network is compiled once per number of images."""
        return Features(*self._compile(_extract, len(images))(images))

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


def _extract(model: SSANet, features: PartFeatures, active: frozenset[str]) -> tuple[jax.Array, jax.Array]:
    del model, active
    return features.image.astype('float32'), features.part_vectors().astype('float32')
