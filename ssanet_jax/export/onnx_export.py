"""Export of a trained network to an ONNX file."""

import numpy as np
import onnx

from ssanet_jax.artifact.checksum import PLACEHOLDER, seal
from ssanet_jax.artifact.metadata import CHECKSUM, Metadata
from ssanet_jax.artifact.onnx_file import OnnxFile, check_content
from ssanet_jax.artifact.onnx_predictor import OnnxPredictor
from ssanet_jax.artifact.outputs import INPUT
from ssanet_jax.errors import UserError
from ssanet_jax.export.call import Unsupported
from ssanet_jax.export.checking import CheckImages, Difference, compare, require_same
from ssanet_jax.export.convert import to_onnx
from ssanet_jax.export.description import describe
from ssanet_jax.export.program import batch_spec, build_program
from ssanet_jax.export.weights import round_weights
from ssanet_jax.predictor import Predictor


def export_onnx(predictor: Predictor, run: str, weights: str, images: CheckImages) -> tuple[bytes, Difference]:
    """Converts a network, and compares the result with JAX.

    Args:
      predictor: the network.
      run: name of the run.
      weights: 'float32' or 'float16'.
      images: what to compare on.

    Returns:
      The content of the file, and the differences from JAX.

    Raises:
      UserError: the network cannot be exported, or the result differs from JAX.
    """
    size = predictor.inputs.image_size
    program = build_program(predictor)
    try:
        model = to_onnx(program, batch_spec((size, size, 3), np.uint8), INPUT)
    except Unsupported as error:
        raise UserError(f'{run} cannot be exported: ONNX has nothing like {error}, which its network needs') from error
    if weights == 'float16':
        model = round_weights(model)
    difference = compare(predictor, _start(model, describe(predictor, run, weights)), images.inputs)
    require_same(difference, weights)
    return _serialize(model, describe(predictor, run, weights, difference.describe(images))), difference


def _start(model: onnx.ModelProto, metadata: Metadata) -> OnnxPredictor:
    data = _serialize(model, metadata)
    return OnnxPredictor(OnnxFile(data, check_content(data, 'the exported network')), 'the exported network')


def _serialize(model: onnx.ModelProto, metadata: Metadata) -> bytes:
    """The content of the file; the checksum is its end."""
    del model.metadata_props[:]
    for key, value in {**metadata.to_entries(), CHECKSUM: PLACEHOLDER}.items():
        model.metadata_props.add(key=key, value=value)
    return seal(model.SerializeToString(deterministic=True))
