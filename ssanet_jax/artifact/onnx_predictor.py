"""Predictions by an ONNX file and onnxruntime, without JAX."""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ssanet_jax.artifact.artifact_predictor import ArtifactPredictor, first_line, other_interface
from ssanet_jax.artifact.onnx_file import OnnxFile
from ssanet_jax.artifact.outputs import INPUT
from ssanet_jax.cpu_limit import available_cpus
from ssanet_jax.errors import UserError

_SILENT = 4  # onnxruntime logs fatal errors only; others are raised
_NUMBERS = {'tensor(float)': np.float32, 'tensor(int32)': np.int32, 'tensor(bool)': np.bool_}


class OnnxPredictor(ArtifactPredictor):
    """Predicts classes and parts of photos with onnxruntime.

    Args:
      file: the checked file.
      name: its name, for messages.

    Raises:
      UserError: onnxruntime is not installed, or cannot run the network.
    """

    def __init__(self, file: OnnxFile, name: str = 'the model'):
        self._session = _start(file.data, name)
        size = file.metadata.preprocessing.image_size
        inputs = [(one.name, one.type, list(one.shape[1:])) for one in self._session.get_inputs()]
        if inputs != [(INPUT, 'tensor(uint8)', [size, size, 3])]:
            raise other_interface(name)
        found = {one.name: _NUMBERS.get(one.type) for one in self._session.get_outputs()}
        super().__init__(file.data, file.metadata, found, name)

    def _compute(self, images: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        try:
            found = self._session.run(list(names), {INPUT: images})
        except Exception as error:  # onnxruntime's errors have no common class but this
            raise UserError(f'onnxruntime cannot run {self._name} ({first_line(error)}): export it again') from error
        return dict(zip(names, found))


def _start(data: bytes, name: str) -> Any:
    try:
        import onnxruntime  # an optional package
    except ImportError as error:
        raise UserError(f"{name} needs onnxruntime ({error}): in a checkout, pip install -e '.[export]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cpus()
    options.log_severity_level = _SILENT
    # onnxruntime's own fallback to the CPU prints several lines.
    start = lambda providers: onnxruntime.InferenceSession(data, options, providers=providers, enable_fallback=0)
    try:
        with contextlib.suppress(Exception):
            return start(onnxruntime.get_available_providers())
        return start(['CPUExecutionProvider'])
    except Exception as error:  # as in `_compute`
        raise UserError(f'onnxruntime cannot read {name} ({first_line(error)}): export it again') from error
