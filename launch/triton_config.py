"""Prints the configuration with which NVIDIA's Triton Inference Server serves an exported ONNX file (docs/serving.md).

    mkdir -p models/birds/1 && cp birds.onnx models/birds/1/model.onnx
    python launch/triton_config.py birds.onnx > models/birds/config.pbtxt

Needs onnxruntime, which reads the names and shapes of the inputs and outputs from the file.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import onnxruntime

from ssanet_jax.artifact.model_file import read_model_file
from ssanet_jax.artifact.onnx_file import OnnxFile

TYPES = {
    'tensor(uint8)': 'TYPE_UINT8',
    'tensor(float)': 'TYPE_FP32',
    'tensor(int32)': 'TYPE_INT32',
    'tensor(bool)': 'TYPE_BOOL',
}


def to_config(path: Path, max_batch: int) -> str:
    """The content of config.pbtxt.

    Args:
      path: an ONNX file of `ssanet export`.
      max_batch: the most images that Triton computes at once.
    """
    file = read_model_file(path)
    if not isinstance(file, OnnxFile):
        raise SystemExit(f'error: {path} is no ONNX file')
    session = onnxruntime.InferenceSession(file.data, providers=['CPUExecutionProvider'])
    return f"""backend: "onnxruntime"
max_batch_size: {max_batch}
{_tensors('input', session.get_inputs())}
{_tensors('output', session.get_outputs())}
dynamic_batching {{ max_queue_delay_microseconds: 2000 }}
"""


def _tensors(kind: str, tensors: Sequence[onnxruntime.NodeArg]) -> str:
    return f'{kind} [\n' + ',\n'.join(map(_tensor, tensors)) + '\n]'


def _tensor(tensor: onnxruntime.NodeArg) -> str:
    dims = tensor.shape[1:]  # Triton adds the batch
    # Triton has no tensors without dimensions.
    shape = f'dims: {dims}' if dims else 'dims: [1], reshape: { shape: [] }'
    return f'  {{ name: "{tensor.name}", data_type: {TYPES[tensor.type]}, {shape} }}'


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', type=Path)
    parser.add_argument('--max-batch', type=int, default=8)
    given = parser.parse_args()
    print(to_config(given.model, given.max_batch), end='')
