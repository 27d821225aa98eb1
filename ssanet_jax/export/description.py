"""What an exported file says about itself: classes, preparation of photos, calibration, provenance and license."""

import json

from ml_collections import ConfigDict

from ssanet_jax import __version__
from ssanet_jax.artifact.metadata import Calibration, Metadata, Parts, Provenance
from ssanet_jax.evaluation.prediction import ORIENTATIONS, UNSURE_LIMITS
from ssanet_jax.export.program import part_heads
from ssanet_jax.predictor import Predictor
from ssanet_jax.pretrained.checkpoint_info import CHECKPOINTS, default_checkpoint
from ssanet_jax.runs.locations import without_locations


def describe_license(config: ConfigDict) -> str:
    """The license of the pretrained weights that a run began with; '' if it is not known."""
    source = config.model.pretrained or default_checkpoint(config.model.backbone)
    known = CHECKPOINTS.get(source) or CHECKPOINTS.get(source.partition('@')[0])
    return known.license if known else ''


def describe(predictor: Predictor, run: str, weights: str, checked_on: str = '') -> Metadata:
    """The metadata of an exported network.

    Args:
      predictor: the network.
      run: name of the run.
      weights: type of the weights in the file.
      checked_on: the images on which the file was compared with JAX.
    """
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
            config=json.loads(without_locations(predictor.config).to_json_best_effort()),
            checked_on=checked_on,
        ),
        license=describe_license(predictor.config),
    )
