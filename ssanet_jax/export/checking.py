"""Comparison of an exported network with that of the run, on real images."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssanet_jax.data.image_inputs import find_images, network_input, read_image
from ssanet_jax.data.registry import load_dataset, read_listing
from ssanet_jax.data.toy_birds import CLASS_NAMES, draw_bird
from ssanet_jax.errors import UnreadableImage, UserError
from ssanet_jax.evaluation.image_predictor import ImagePredictor, NetworkOutputs
from ssanet_jax.predictor import Predictor

NUM_IMAGES = 16
_JAX_BATCH, _OTHER_BATCH = 8, 5  # the results must not depend on the images per call
_SAME = 1e-4  # of probabilities
_ROUNDED = 0.05  # the same, for weights of 16 bits
_SAME_PIXELS = 0.05  # of boxes
_SAME_SHARE = 0.01  # of novelty: known images of about the same score may change places

_log = logging.getLogger(__name__)


class CheckImages(NamedTuple):
    """Images to compare networks on."""

    inputs: np.ndarray  # uint8 [n, S, S, 3]
    origin: str  # what they are, for messages


class Difference(NamedTuple):
    """How far two networks are apart."""

    probability: float  # largest difference of a probability
    parts: int  # parts whose box, scale, orientation or presence differs
    num_parts: int  # parts that were compared
    classes: int  # images whose predicted class differs

    def describe(self, images: CheckImages) -> str:
        """One line about a comparison on these images, for the metadata."""
        return (
            f'{len(images.inputs)} {images.origin}: probabilities within {self.probability:.1g}, '
            f'{self.num_parts - self.parts} of {self.num_parts} parts the same'
        )


def find_check_images(predictor: Predictor, images: Path | None) -> CheckImages:
    """Images of a run: those of a folder, else some of its training images, else drawn ones.

    Args:
      predictor: the network of the run.
      images: a folder or file with images, or None.

    Raises:
      UserError: the folder has no image that can be read.
    """
    if images is not None:
        return CheckImages(_read(predictor, find_images([images]).files), f'images of {images.name}')
    data = predictor.config.data
    try:
        if data.get('name') == 'toy_birds':
            source = load_dataset(data, predictor.class_names).train
            found = [source[index]['image'] for index in _spread(len(source))]
            return CheckImages(_inputs(predictor, found), 'training images')
        listing = read_listing(data, predictor.class_names)
        files = [listing.root / record.path for record in listing.records if record.split == 'train']
        return CheckImages(_read(predictor, files), 'training images')
    except UserError as error:
        _log.warning('the training images were not found (%s): drawn birds are used instead', error)
        return CheckImages(_inputs(predictor, _drawn(predictor.inputs.image_size)), 'drawn birds')


def compare(predictor: Predictor, exported: ImagePredictor, inputs: np.ndarray) -> Difference:
    """The differences between both networks.

    Args:
      predictor: the network in JAX.
      exported: the network as it was exported.
      inputs: uint8 `[n, S, S, 3]`.

    Raises:
      UserError: one has outputs that the other lacks.
    """
    expected, found = (_all_outputs(one, inputs, n) for one, n in ((predictor, _JAX_BATCH), (exported, _OTHER_BATCH)))
    missing = [name for name in expected if (expected[name] is None) != (found[name] is None)]
    if missing:
        raise UserError(f'the exported network lacks {", ".join(missing)}: report it')
    different = np.zeros((len(inputs), 0), bool)
    if expected['boxes'] is not None:
        different = np.zeros(expected['boxes'].shape[:2], bool)
        for name in ('boxes', 'proposals'):
            different |= (np.abs(expected[name] - found[name]) > _SAME_PIXELS).any(-1)
        for name in ('present', 'scales', 'orientations'):
            if expected[name] is not None:
                different |= ~np.isclose(expected[name].astype(float), found[name].astype(float))
    if expected['angle'] is not None:
        different |= ~np.isclose(expected['angle'], found['angle'])[:, None]
    novelty = 0.0 if expected['novelty'] is None else float(np.abs(expected['novelty'] - found['novelty']).max())
    probability = float(np.abs(expected['probabilities'] - found['probabilities']).max())
    return Difference(
        probability=probability if novelty <= _SAME_SHARE else max(probability, novelty),
        parts=int(different.sum()),
        num_parts=different.size,
        classes=int((expected['logits'].argmax(-1) != found['logits'].argmax(-1)).sum()),
    )


def require_same(difference: Difference, weights: str) -> None:
    """Raises UserError unless an exported network says the same as the run; nearly the same for weights of 16 bits."""
    rounded = weights != 'float32'
    apart = not difference.probability <= (_ROUNDED if rounded else _SAME)  # nan is apart
    if apart or (difference.parts and not rounded):
        raise UserError(
            f'not written: the exported network differs from the run (probabilities by {difference.probability:.1g}, '
            f'{difference.parts} of {difference.num_parts} parts): '
            + ('export with --weights=float32' if rounded else 'report it with the config.json of the run')
        )


def _all_outputs(predictor: ImagePredictor, inputs: np.ndarray, size: int) -> dict:
    parts = [predictor.outputs(inputs[start : start + size]) for start in range(0, len(inputs), size)]
    join = lambda arrays: None if arrays[0] is None else np.concatenate(arrays)
    return {name: join([getattr(part, name) for part in parts]) for name in NetworkOutputs._fields}


def _read(predictor: Predictor, files: Sequence[Path]) -> np.ndarray:
    images = []
    for index in _spread(len(files)):
        try:
            images.append(read_image(files[index], predictor.inputs.bit_depth))
        except UnreadableImage as error:
            _log.warning('skipped: %s', error)
    if not images:
        raise UserError('no image can be read')
    return _inputs(predictor, images)


def _inputs(predictor: Predictor, images: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack([network_input(image, predictor.inputs) for image in images])


def _spread(count: int) -> list[int]:
    """Up to `NUM_IMAGES` indices, evenly spaced, since neighbors are mostly of the same class."""
    return np.unique(np.linspace(0, count - 1, min(NUM_IMAGES, count)).astype(int)).tolist()


def _drawn(size: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [draw_bird(index % len(CLASS_NAMES), rng, max(size, 32))[0] for index in range(NUM_IMAGES)]
