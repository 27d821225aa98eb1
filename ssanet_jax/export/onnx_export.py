"""Export of a trained network to an ONNX file."""

import numpy as np
import onnx

from ssanet_jax import __version__
from ssanet_jax.artifact.metadata import CHECKSUM, Calibration, Metadata, Parts, Provenance
from ssanet_jax.artifact.onnx_file import PLACEHOLDER, OnnxFile, check_content, seal
from ssanet_jax.artifact.onnx_predictor import OnnxPredictor
from ssanet_jax.artifact.outputs import INPUT
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.prediction import ORIENTATIONS, UNSURE_LIMITS
from ssanet_jax.export.call import Unsupported
from ssanet_jax.export.checking import CheckImages, Difference, compare, require_same
from ssanet_jax.export.convert import batch_spec, to_onnx
from ssanet_jax.export.program import build_program, part_heads
from ssanet_jax.export.weights import round_weights
from ssanet_jax.predictor import Predictor
from ssanet_jax.pretrained.checkpoint_info import CHECKPOINTS, default_checkpoint


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
    difference = compare(predictor, _start(model, _metadata(predictor, run, weights, '')), images.inputs)
    require_same(difference, weights)
    checked = (
        f'{len(images.inputs)} {images.origin}: probabilities within {difference.probability:.1g}, '
        f'{difference.num_parts - difference.parts} of {difference.num_parts} parts the same'
    )
    return _serialize(model, _metadata(predictor, run, weights, checked)), difference


def describe_license(config) -> str:
    """The license of the pretrained weights that a run began with; '' if it is not known."""
    source = config.model.pretrained or default_checkpoint(config.model.backbone)
    known = CHECKPOINTS.get(source) or CHECKPOINTS.get(source.partition('@')[0])
    return known.license if known else ''


def _metadata(predictor: Predictor, run: str, weights: str, checked: str) -> Metadata:
    has_parts = 'proposals' in predictor.active
    calibration = None
    if predictor.novelty is not None:
        calibration = Calibration(predictor.temperature, UNSURE_LIMITS.novelty, UNSURE_LIMITS.score)
    mines_scales, is_oriented = (name in predictor.active for name in ('scale_mining', 'oriented_pooling'))
    return Metadata(
        class_names=predictor.class_names,
        preprocessing=predictor.inputs,
        calibration=calibration,
        parts=Parts(
            num_parts=predictor.config.model.num_parts if has_parts else 0,
            heads=tuple(part_heads(predictor)),
            scales=tuple(predictor.scale_factors.tolist()) if has_parts and mines_scales else (),
            orientations=ORIENTATIONS if has_parts and is_oriented else (),
        ),
        provenance=Provenance(
            version=__version__,
            run=run,
            digest=predictor.digest(),
            weights=weights,
            config=predictor.config.to_dict(),
            checked_on=checked,
        ),
        license=describe_license(predictor.config),
    )


def _start(model: onnx.ModelProto, metadata: Metadata) -> OnnxPredictor:
    data = _serialize(model, metadata)
    return OnnxPredictor(OnnxFile(data, check_content(data, 'the exported network')), 'the exported network')


def _serialize(model: onnx.ModelProto, metadata: Metadata) -> bytes:
    """The content of the file; the checksum is its end."""
    del model.metadata_props[:]
    for key, value in {**metadata.to_entries(), CHECKSUM: PLACEHOLDER}.items():
        model.metadata_props.add(key=key, value=value)
    return seal(model.SerializeToString(deterministic=True))
