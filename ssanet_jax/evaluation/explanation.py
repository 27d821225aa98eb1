"""Why a photo got its class, in words and examples: the evidence of each part, and similar training photos."""

import re
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from ssanet_jax.data.training_photos import TrainingPhotos
from ssanet_jax.evaluation.neighbors import nearest_images
from ssanet_jax.evaluation.prediction import Prediction
from ssanet_jax.runs.feature_index import FeatureIndex

WHOLE = 'whole photo'
MOST_CERTAIN = 0.99  # no network is certain


class Term(NamedTuple):
    """What the whole photo or a part says about the class.

    Attributes:
      name: in words.
      part: from 0; None for the whole photo.
      value: what it adds to the logit of the class over that of the runner-up.
      share: of all that speaks for the class, in [0, 1]; 0 for what speaks for the runner-up.
      is_present: whether the part is clearly seen; if not, the term is that of the place that looks most like it.
      decides: whether nothing adds more.
    """

    name: str
    part: int | None
    value: float
    share: float
    is_present: bool
    decides: bool


class Example(NamedTuple):
    """A training photo, and the place of a part in it."""

    photo: np.ndarray  # uint8 [H, W, 3]
    box: np.ndarray | None  # (y0, x0, y1, x1), pixels; None for the whole photo


class ClassExamples(NamedTuple):
    """Training photos of a class."""

    class_index: int
    examples: list[Example | None]  # one per term; None where there is none


class Explanation(NamedTuple):
    """Why a photo got its class rather than the runner-up's.

    The values of the terms and the bias add up to the difference of the two logits.
    """

    prediction: Prediction
    terms: list[Term]
    bias: float
    runner_up: int | None  # index of the class; None if there is only one
    classes: list[ClassExamples]  # the class and the runner-up; empty without training photos


def explain(
    prediction: Prediction, has_object: bool, index: FeatureIndex | None = None, photos: TrainingPhotos | None = None
) -> Explanation:
    """Explains a prediction.

    Args:
      prediction: the prediction.
      has_object: whether part 0 is the object as a whole.
      index: the features of the training images; None to explain without them.
      photos: reads the training images.
    """
    evidence = prediction.evidence
    others = np.argsort(-prediction.probabilities, kind='stable')
    named = [int(i) for i in others if prediction.class_names[i] == evidence.runner_up]
    runner_up = next((i for i in named if i != prediction.class_index), None)
    terms = find_terms(prediction, has_object)
    classes = []
    if index is not None and photos is not None:
        for label in (prediction.class_index, runner_up):
            if label is not None:
                examples = [_nearest_example(prediction, term, label, index, photos) for term in terms]
                classes.append(ClassExamples(label, examples))
    return Explanation(prediction, terms, evidence.bias, runner_up, classes)


def find_terms(prediction: Prediction, has_object: bool) -> list[Term]:
    """The terms of a prediction: the whole photo where it takes part in the prediction, and each part."""
    evidence = prediction.evidence
    values: list[tuple[int | None, float]] = list(enumerate(evidence.parts))
    if evidence.image or not values:
        values.insert(0, (None, evidence.image))
    total = sum(max(value, 0.0) for _, value in values)
    best = max((value for _, value in values), default=0.0)
    present = prediction.present or (True,) * len(evidence.parts)
    return [
        Term(
            part_name(part, has_object),
            part,
            value,
            max(value, 0.0) / total if total else 0.0,
            part is None or present[part],
            best > 0 and value == best,
        )
        for part, value in values
    ]


def part_name(part: int | None, has_object: bool) -> str:
    """The name of a part, numbered from 0, as in all outputs: part 1 is the object where the network finds one."""
    if part is None:
        return WHOLE
    return 'object' if has_object and part == 0 else f'part {part + 1}'


def finds_object(config: ConfigDict) -> bool:
    """Whether part 0 of a network is the object as a whole, by the run's configuration."""
    return config.model.get('proposal', 'ranking') != 'ranking'


def readable_name(name: str) -> str:
    """The name of a class without the number and the underscores of a folder: '002.Laysan_Albatross'."""
    shorter = re.sub(r'^\d+[._ -]+(?=\D)', '', name).replace('_', ' ').strip()
    return shorter or name


def percent(probability: float) -> str:
    """A probability for readers: 'below 1 %', '42 %', at most '99 %'."""
    rounded = round(100 * min(probability, MOST_CERTAIN))
    return f'{rounded} %' if rounded >= 1 else 'below 1 %'


def _nearest_example(
    prediction: Prediction, term: Term, label: int, index: FeatureIndex, photos: TrainingPhotos
) -> Example | None:
    """The training photo of a class whose part is clearly seen and most similar; None if there is none to be read."""
    found = nearest_images(index, prediction.features(term.part), term.part, 1, label)
    photo = photos.read(found[0].file, int(index.rows['position'][found[0].row])) if found else None
    if photo is None:
        return None
    if term.part is None:
        return Example(photo, None)
    box = index.rows['boxes'][found[0].row][term.part] * np.tile(photo.shape[:2], 2)
    return Example(photo, box)
