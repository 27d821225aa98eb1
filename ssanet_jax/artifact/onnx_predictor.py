"""Predictions by an exported network and onnxruntime, without JAX."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from ssanet_jax.artifact.metadata import Metadata
from ssanet_jax.artifact.onnx_file import OnnxFile, read_onnx_file
from ssanet_jax.artifact.outputs import INPUT, OUTPUTS
from ssanet_jax.cpu_limit import available_cpus
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.image_predictor import Features, ImagePredictor, NetworkOutputs
from ssanet_jax.evaluation.prediction import UNSURE_LIMITS, UnsureLimits
from ssanet_jax.filesystem.paths import user_path

_SILENT = 4  # onnxruntime logs fatal errors only; others are raised
_NUMBERS = {'tensor(float)': np.float32, 'tensor(int32)': np.int32, 'tensor(bool)': np.bool_}


class OnnxPredictor(ImagePredictor):
    """Predicts classes and parts of photos with an exported network.

    Args:
      file: the checked file.
      name: its name, for messages.

    Raises:
      UserError: onnxruntime is not installed, or cannot run the network.
    """

    def __init__(self, file: OnnxFile, name: str = 'the model'):
        metadata = file.metadata
        calibration = metadata.calibration
        limits = UNSURE_LIMITS
        if calibration is not None:
            limits = UnsureLimits(calibration.novelty_limit, calibration.score_limit)
        super().__init__(metadata.class_names, metadata.preprocessing, limits)
        self.metadata = metadata
        self._name = name
        self._digest = hashlib.sha256(file.data).hexdigest()
        self._session = _start(file.data, name)
        self._outputs = _check_outputs(self._session, metadata, name)

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
          UserError: onnxruntime fails, such as for lack of memory.
        """
        try:
            found = self._session.run(self._outputs, {INPUT: images})
        except Exception as error:  # onnxruntime's errors have no common class but this
            raise UserError(f'onnxruntime cannot run {self._name} ({_first_line(error)}): export it again') from error
        results = dict(zip(self._outputs, found))
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


def load_model(path: str | os.PathLike[str]) -> OnnxPredictor:
    """Loads an exported network, ready to predict.

    Args:
      path: a file that `ssanet export` wrote.

    Raises:
      UserError: the file cannot be read, or is another; or onnxruntime is not installed.
    """
    given: Path = user_path(path, 'model')
    return OnnxPredictor(read_onnx_file(given), str(given))


def _start(data: bytes, name: str) -> Any:
    try:
        import onnxruntime  # an optional package
    except ImportError as error:
        raise UserError(f'{name} needs onnxruntime ({error}): pip install "ssanet-jax[export]"') from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cpus()
    options.log_severity_level = _SILENT
    try:
        return onnxruntime.InferenceSession(data, options, providers=onnxruntime.get_available_providers())
    except Exception as error:  # as in `run`
        raise UserError(f'onnxruntime cannot read {name} ({_first_line(error)}): export it again') from error


def _check_outputs(session: Any, metadata: Metadata, name: str) -> list[str]:
    """The names of the outputs, if they are those of an exported network."""
    size = metadata.preprocessing.image_size
    inputs = [(one.name, one.type, list(one.shape[1:])) for one in session.get_inputs()]
    found = {one.name: one for one in session.get_outputs()}
    wrong = [key for key, one in found.items() if key in OUTPUTS and _NUMBERS.get(one.type) != OUTPUTS[key].dtype]
    missing = [key for key, output in OUTPUTS.items() if output.required and key not in found]
    if inputs != [(INPUT, 'tensor(uint8)', [size, size, 3])] or wrong or missing:
        raise UserError(f'cannot use {name}: it has other inputs or outputs than an export: export it again')
    return [key for key in OUTPUTS if key in found]


def _check_shapes(found: dict[str, np.ndarray], count: int, metadata: Metadata, name: str) -> None:
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


def _first_line(error: Exception) -> str:
    return str(error).partition('\n')[0][:200]
