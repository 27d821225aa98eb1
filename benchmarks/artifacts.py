"""Exported networks as workloads: the ONNX file of a predictor, run by onnxruntime and by OpenVINO."""

import importlib.util
from typing import NamedTuple

import numpy as np

from ssanet_jax.artifact.onnx_file import OnnxFile, check_content
from ssanet_jax.artifact.onnx_predictor import OnnxPredictor
from ssanet_jax.cpu_limit import available_cpus
from ssanet_jax.errors import UserError
from ssanet_jax.experiments.timing import Workload
from ssanet_jax.predictor import Predictor

ONNXRUNTIME, OPENVINO = 'onnxruntime', 'OpenVINO'


class Runtimes(NamedTuple):
    """The same computation in each runtime."""

    workloads: dict[str, Workload]
    missing: dict[str, str]  # runtimes that cannot be timed, and why


def export(predictor: Predictor, images: np.ndarray, weights: str) -> OnnxFile:
    """The ONNX file of a predictor, compared with it on two of the images uint8 `[n, S, S, 3]`.

    Raises:
      UserError: onnx or onnxruntime is not installed, or the export failed.
    """
    try:
        from ssanet_jax.export.checking import CheckImages
        from ssanet_jax.export.onnx_export import export_onnx
    except ImportError as error:
        raise UserError(f"{error}: pip install -e '.[export]'") from error
    content, _ = export_onnx(predictor, 'benchmark', weights, CheckImages(images[:2], 'noise'))
    return OnnxFile(content, check_content(content, 'the export'))


def runtimes(file: OnnxFile, images: np.ndarray) -> Runtimes:
    """All outputs for a batch of images uint8 `[n, S, S, 3]`, by every runtime that is installed."""
    exported = OnnxPredictor(file)
    workloads: dict[str, Workload] = {ONNXRUNTIME: lambda: exported.outputs(images)}
    if importlib.util.find_spec('openvino') is None:
        return Runtimes(workloads, {OPENVINO: 'OpenVINO is not installed: pip install openvino'})
    import openvino

    core = openvino.Core()
    # In float32, as the others: by default it computes in bfloat16 on CPUs that have it.
    settings = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': available_cpus()}
    compiled = core.compile_model(core.read_model(file.data), 'CPU', settings)
    return Runtimes(workloads | {OPENVINO: lambda: compiled(images)}, {})
