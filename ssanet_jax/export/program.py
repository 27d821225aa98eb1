"""The function that is exported: from a batch of images to everything that a prediction needs (`docs/export.md`)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ssanet_jax.artifact.outputs import OUTPUTS
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.novelty import NoveltyDetector
from ssanet_jax.evaluation.part_logits import part_logits
from ssanet_jax.models.groups import PART_HEAD
from ssanet_jax.models.ssanet import SSANet
from ssanet_jax.predictor import Predictor

Program = Callable[[jax.Array], dict[str, jax.Array]]

BATCH = 'batch'  # name of the symbolic dimension
_EPSILON = 1e-6  # as in `NoveltyDetector`


def batch_spec(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """The form of an array `[batch, *shape]`, with a batch of any size."""
    (batch,) = jax.export.symbolic_shape(BATCH)
    return jax.ShapeDtypeStruct((batch, *shape), dtype)


def build_program(predictor: Predictor, network: Callable[[], SSANet] | None = None) -> Program:
    """The network of a predictor as a pure function: uint8 `[B, S, S, 3]` -> outputs by name.

    Args:
      predictor: the network and its calibration.
      network: makes the network in each call, in place of that of the predictor.

    Raises:
      UserError: a setting of the run cannot be exported.
    """
    _check_settings(predictor)
    make_network = network or (lambda: predictor.network)
    active, heads = predictor.active, part_heads(predictor)

    def program(images: jax.Array) -> dict[str, jax.Array]:
        model = make_network()
        features = model.extract_features(images, active=active)
        outputs = model.classify(features, active=active)
        terms = part_logits(model, features, outputs, active)
        logits = outputs.logits.astype(jnp.float32)
        found = {
            'logits': logits,
            'probabilities': jax.nn.softmax(logits / predictor.temperature, -1),
            'image_logits': terms.image,
            'bias_logits': jnp.broadcast_to(terms.bias, logits.shape),
            'embedding': features.image.astype(jnp.float32),
        }
        if predictor.novelty is not None:
            found['novelty'] = novelty(logits, predictor.novelty)
        assert sorted(terms.parts) == heads, terms.parts.keys()
        if heads:
            found['part_logits'] = jnp.stack([terms.parts[head] for head in heads], 1)
        if outputs.boxes is not None and outputs.aligned_boxes is not None:
            found['boxes'] = outputs.aligned_boxes
            found['proposals'] = outputs.boxes[:, : outputs.aligned_boxes.shape[1]]
            found['part_embeddings'] = features.part_vectors().astype(jnp.float32)
        if outputs.present is not None:
            found['present'] = outputs.present
        if 'scale_mining' in active and outputs.aligned_scale is not None:
            found['scales'] = jnp.asarray(predictor.scale_factors)[outputs.aligned_scale]
        if outputs.orientation is not None:
            found['orientations'] = outputs.orientation
        if outputs.image_angle is not None:
            found['angle'] = outputs.image_angle.astype(jnp.float32)
        return {name: found[name] for name in OUTPUTS if name in found}

    return program


def part_heads(predictor: Predictor) -> list[str]:
    """The names of the heads that read parts, in the order of the output `part_logits`."""
    if 'proposals' not in predictor.active:
        return []
    return sorted(predictor.active & {'scale_mining', 'oriented_pooling', PART_HEAD})


def novelty(logits: jax.Array, detector: NoveltyDetector) -> jax.Array:
    """`NoveltyDetector` as a function of JAX: logits `[B, N]` -> `[B]`."""
    constants = {name: jnp.asarray(value, jnp.float32) for name, value in detector.constants.items()}
    found = jax.nn.log_softmax(logits, -1)
    entropy = -(jnp.exp(found) * found).sum(-1)
    centered = found - found.mean(-1, keepdims=True)
    length = jnp.sqrt(jnp.square(centered).sum(-1, keepdims=True))
    similarity = (centered / jnp.maximum(length, _EPSILON)) @ constants['references'].T  # [B, n]
    signs = jnp.stack([entropy, 1 - similarity.max(-1)])  # [2, B]
    score = ((signs - constants['mean'][:, None]) / constants['deviation'][:, None]).sum(0)
    return (constants['known'] < score[:, None]).astype(jnp.float32).mean(-1)


def _check_settings(predictor: Predictor) -> None:
    """Raises UserError for settings that have no counterpart in the exported graph."""
    config = predictor.config.model
    if config.get('proposal') == 'random':
        raise UserError('config.model.proposal=random cannot be exported: its boxes are drawn by JAX')
    if config.get('dtype', 'float32') != 'float32':
        raise UserError(f'config.model.dtype={config.dtype} cannot be exported: train with float32')
