"""Section of the report that explains some predictions, as `predict --pictures=explain` does."""

from dataclasses import dataclass

import cv2
import numpy as np

from ssanet_jax.data.training_photos import TrainingPhotos
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.explained_picture import explained_picture
from ssanet_jax.evaluation.explanation import explain, finds_object, readable_name
from ssanet_jax.evaluation.sheets import evenly
from ssanet_jax.predictor import Predictor
from ssanet_jax.report import predictions as test_predictions
from ssanet_jax.report.inputs import ReportInputs
from ssanet_jax.report.prediction_sections import readable_images

NUM_EVEN, NUM_WRONG = 2, 2  # images shown: some of the test images, and some of the mistakes
_LONGEST_SIDE = 1300  # pixels of a picture


@dataclass(frozen=True)
class ExplainedImage:
    """An explained test image."""

    picture: np.ndarray  # uint8 [H, W, 3]
    description: str
    label: str  # name of its class
    is_right: bool


@dataclass(frozen=True)
class ExplainedSection:
    """Explained test images; `note` says why there are no training photos, and may be empty."""

    introduction: str
    note: str
    images: list[ExplainedImage]


def explained_section(inputs: ReportInputs) -> ExplainedSection | str:
    """A few evenly spaced test images, and the mistakes with the lowest probability of the true class."""
    run, dataset = inputs.run, inputs.dataset
    if 'proposals' not in run.active:
        return 'This network does not locate parts.'
    wrong = test_predictions.hardest_examples(inputs.predictions, NUM_WRONG)
    chosen = [*dict.fromkeys([*evenly(NUM_EVEN, len(dataset.test)), *wrong])]
    shown = list(readable_images(dataset.test, chosen))
    predictor = Predictor.from_run(run)
    index = photos = None
    note = ''
    try:
        index = predictor.index
        photos = TrainingPhotos(run.config.data, index.files[0])
    except UserError as error:
        index, note = None, f'Without training photos: {error}.'
    images = []
    for (_, example), prediction in zip(shown, predictor.predict([example['image'] for _, example in shown])):
        picture = explained_picture(explain(prediction, finds_object(run.config), index, photos))
        label = readable_name(run.class_names[int(example['label'])])
        is_right = prediction.class_index == int(example['label'])
        images.append(ExplainedImage(_shrunk(picture), f'{label}, explained', label, is_right))
    introduction = (
        'What the whole photo and each part say about the class, compared with the next best one, and the same parts '
        'of the most similar training photos of both. Evenly spaced test images first, then the mistakes with the '
        'lowest probability of the true class.'
    )
    return ExplainedSection(introduction, note, images)


def _shrunk(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    zoom = _LONGEST_SIDE / max(height, width)
    if zoom >= 1:
        return picture
    return cv2.resize(picture, (round(width * zoom), round(height * zoom)), interpolation=cv2.INTER_AREA)
