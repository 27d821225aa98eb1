"""The work that a run has ahead of it after what it does now, in all its stages."""

import math
from collections.abc import Iterator, Set
from typing import NamedTuple

from ml_collections import ConfigDict

from ssanet_jax.models.groups import PART_HEAD, UPRIGHT, active_groups
from ssanet_jax.models.upright import QUARTERS
from ssanet_jax.training.part_discovery import MAX_IMAGES

PARTS, ORIENTATIONS, FEATURES, TRAINING, EVALUATION = (
    'looking for parts',
    'looking for orientations',
    'computing features',
    'training',
    'evaluating',
)


class ImageCounts(NamedTuple):
    """The number of images of a data set."""

    train: int
    test: int
    validation: int = 0


class Work(NamedTuple):
    """One pass over views of images."""

    stage: int
    task: str
    views: int
    pixels: float  # that pass through the backbone per view; a backward pass counts twice


def views_after(config: ConfigDict, stage: int, task: str, counts: ImageCounts) -> float:
    """The work of a run after a task, as the number of views of this task that take as long.

    Time is taken to be proportional to the pixels that pass through the backbone. Fits by L-BFGS, compilation and,
    in a stage that trains now, all evaluations but the last are left out.

    Args:
      config: the whole configuration.
      stage: position of the stage in `config.stages`.
      task: one of the constants above.
      counts: the images of the data set.
    """
    works = list(_works(config, stage, counts))
    now = next(number for number, work in enumerate(works) if (work.stage, work.task) == (stage, task))
    later = sum(work.views * work.pixels for work in works[now + 1 :])
    return later / works[now].pixels


def _works(config: ConfigDict, current: int, counts: ImageCounts) -> Iterator[Work]:
    model = config.model
    image = (model.get('global_size', 0) or config.data.image_size) ** 2
    small_view = model.get('upright_size', 0) ** 2 or image
    for index, stage in enumerate(config.stages):
        active = active_groups(config.stages, index)
        crops = _pixels_of_crops(model, active)
        turning = QUARTERS * small_view if UPRIGHT in active else 0
        views, evaluations = stage.epochs * counts.train, 1
        if stage.get('fit', False):
            if 'proposals' in stage.train or model.features == 'covariance':
                yield Work(index, PARTS, min(MAX_IMAGES, counts.train), image)
            if UPRIGHT in stage.train:
                yield Work(index, ORIENTATIONS, counts.train, model.upright * small_view)
            yield Work(index, FEATURES, views, image + crops)  # of images as they are
        else:
            if index != current and config.eval_epochs:
                evaluations = math.ceil(stage.epochs / config.eval_epochs)
            if cached := stage.get('cache', 0):
                yield Work(index, FEATURES, cached * counts.train, image + crops + turning)
                yield Work(index, TRAINING, views, 0.01 * image)  # heads alone
            else:
                passes = 3 if 'backbone' in stage.train else 1
                yield Work(index, TRAINING, views, (image + crops) * passes + turning)
        yield Work(index, EVALUATION, evaluations * (counts.validation or counts.test), image + crops + turning)
    if counts.validation:
        yield Work(len(config.stages), EVALUATION, counts.test, image + crops + turning)


def _pixels_of_crops(model: ConfigDict, active: Set[str]) -> int:
    """The pixels that an image's crops pass through the backbone in a prediction."""
    if model.sharing == 'image' or 'proposals' not in active:
        return 0
    # The scales of a part share one crop with 'part', and only these groups read more than one scale.
    scales = model.num_scales if model.sharing == 'none' and active & {'scale_mining', PART_HEAD} else 1
    return model.num_parts * scales * model.crop_size**2
