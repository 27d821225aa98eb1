"""Predictions by an exported network, whatever runs it."""

import abc
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssanet_jax.artifact.metadata import Metadata
from ssanet_jax.artifact.outputs import OUTPUTS
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.image_predictor import Features, ImagePredictor, NetworkOutputs
from ssanet_jax.evaluation.prediction import UNSURE_LIMITS, UnsureLimits


class ArtifactPredictor(ImagePredictor):
    """Predicts classes and parts of photos with an exported network.

    Args:
      data: the content of the file.
      metadata: what the file says about itself.
      found: the types of the network's outputs by name.
      name: the file's name, for messages.

    Raises:
      UserError: the outputs are not those of an exported network.
    """

    def __init__(self, data: bytes, metadata: Metadata, found: Mapping[str, type[np.generic] | None], name: str):
        calibration = metadata.calibration
        limits = UNSURE_LIMITS
        if calibration is not None:
            limits = UnsureLimits(calibration.novelty_limit, calibration.score_limit)
        super().__init__(metadata.class_names, metadata.preprocessing, limits)
        self.metadata = metadata
        self._name = name
        self._digest = hashlib.sha256(data).hexdigest()
        wrong = [key for key in found if key in OUTPUTS and found[key] != OUTPUTS[key].dtype]
        missing = [key for key, output in OUTPUTS.items() if output.required and key not in found]
        if wrong or missing:
            raise other_interface(name)
        self._outputs = [key for key in OUTPUTS if key in found]

    @abc.abstractmethod
    def _compute(self, images: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Runs the network on uint8 `[n, S, S, 3]`.

        Returns:
          The named outputs.

        Raises:
          UserError: it fails, such as for lack of memory.
        """

    def digest(self) -> str:
        """Identifies the file."""
        return self._digest

    @property
    def detects_novelty(self) -> bool:
        """Whether predictions have `novelty`: the run had held-out images."""
        return 'novelty' in self._outputs

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Runs the network.

        Args:
          images: uint8 `[n, S, S, 3]`.

        Returns:
          All outputs by name; see `docs/export.md`.

        Raises:
          UserError: the network fails, such as for lack of memory.
        """
        results = self._compute(images, self._outputs)
        _check_shapes(results, len(images), self.metadata, self._name)
        return results

    def outputs(self, images: np.ndarray) -> NetworkOutputs:
        """Computes the network for inputs uint8 `[n, S, S, 3]`."""
        found = self.run(images)
        found.setdefault('part_embeddings', found['embedding'][:, None, :][:, :0])
        fields: dict[str, Any] = {name: found.get(name) for name in NetworkOutputs._fields}
        return NetworkOutputs(**fields)

    def embed(self, images: np.ndarray) -> Features:
        """Computes the features of inputs uint8 `[n, S, S, 3]`."""
        found = self.run(images)
        embedding = found['embedding']
        return Features(embedding, found.get('part_embeddings', embedding[:, None, :][:, :0]))


def other_interface(name: str) -> UserError:
    """The error for a network whose inputs or outputs are not those of an export."""
    return UserError(f'cannot use {name}: it has other inputs or outputs than an export: export it again')


def first_line(error: Exception) -> str:
    """The first line of an error of another library, shortened."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _check_shapes(found: Mapping[str, np.ndarray], count: int, metadata: Metadata, name: str) -> None:
    """Raises UserError if an output has another shape than the metadata say."""
    sizes = {'N': count, 'C': len(metadata.class_names), 'K': metadata.parts.num_parts, '4': 4}
    sizes['H'] = len(metadata.parts.heads)
    for key, array in found.items():
        dims = OUTPUTS[key].dims
        if len(dims) != array.ndim or any(size != sizes.get(dim, size) for dim, size in zip(dims, array.shape)):
            raise UserError(f'cannot use {name}: its output {key} has the shape {list(array.shape)}: export it again')
    orientations = found.get('orientations')
    if orientations is not None and not ((orientations >= 0) & (orientations < len(metadata.parts.orientations))).all():
        raise UserError(f'cannot use {name}: its output orientations has values without a name: export it again')
