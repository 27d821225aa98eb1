"""toy_birds: a generated fine-grained data set, so that the demo needs no download.

Sixteen classes of birds differ only in four small parts: the beak, the crown, the bar on the wing, and the tail. Each
part has four forms, which are two shapes in two colors. Beak and crown combine freely, which gives the sixteen classes;
wing and tail follow from them such that two classes share the form of at most one part. As with real birds, no single
part identifies the class, and any two parts do. Everything else (plumage, size, rotation, pose, light, background) is
independent of the class, and the background contains parts of other birds with random forms. Pooling over the whole
image therefore mixes the bird's own parts with those of the distractors; looking at the parts of the bird does not.
"""

import itertools
import operator
from typing import Any

import numpy as np

from ssanet_jax.data.dataset import Dataset
from ssanet_jax.data.listing import SPLITS
from ssanet_jax.data.toy_drawing import KEYPOINT_NAMES, draw_forms
from ssanet_jax.errors import UserError

BEAKS = ('orange conebill', 'slate conebill', 'orange sicklebill', 'slate sicklebill')
CROWNS = ('red-capped', 'blue-capped', 'red-crested', 'blue-crested')
CLASS_NAMES = tuple(f'{crown} {beak}' for beak, crown in itertools.product(BEAKS, CROWNS))
KEYPOINT_GROUPS = {'head': ('beak', 'crown')}
LABEL_STREAM = 1  # separates the random numbers of the labels from those of the images


def part_forms(label: int) -> tuple[int, int, int, int]:
    """The forms (0..3) of beak, crown, wing and tail of a class.

    They are the codewords (b, c, b + c, b + 2c) of a [4, 2, 3] code over the field of four elements: two classes agree
    in at most one part.
    """
    beak, crown = divmod(label, 4)
    return beak, crown, beak ^ crown, beak ^ (0, 2, 3, 1)[crown]


def draw_bird(
    label: int, rng: np.random.Generator, size: int = 128, distractors: int = 4
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws an image of class `label` (0..15); arguments and results are those of `draw_forms`."""
    if not 0 <= label < len(CLASS_NAMES):
        raise ValueError(f'toy_birds has the labels 0 to {len(CLASS_NAMES) - 1}, not {label}')
    return draw_forms(part_forms(label), rng, size, distractors)


class ToyBirds:
    """A `Source` of `count` images. An image depends on (seed, split, index) only, not on the count.

    Args:
      count: number of images, at least 1.
      split: 'train' or 'test', which have no image in common.
      seed: random seed, not negative.
      size: side of the images in pixels, at least 32.
      distractors: number of parts of other birds in each background.

    Raises:
      ValueError: an argument is out of range.
    """

    def __init__(self, count: int, split: str, seed: int = 0, size: int = 128, distractors: int = 4):
        if split not in SPLITS:
            raise ValueError(f'toy_birds has the splits {", ".join(SPLITS)}, not {split!r}')
        bounds = (('count', count, 1), ('seed', seed, 0), ('size', size, 32), ('distractors', distractors, 0))
        for name, value, least in bounds:
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise ValueError(f'toy_birds needs {name} to be an integer of at least {least}, not {value!r}')
        self.count, self.split, self.seed, self.size, self.distractors = count, split, seed, size, distractors
        self._stream = (seed, SPLITS.index(split))
        self.labels = np.array([self._label(index) for index in range(count)], np.int32)
        self._drawn: dict[
            int, dict[str, Any]
        ] = {}  # cached, since drawing takes longer than a training step of a small network

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns an example with image, label, keypoints, box and file; see `dataset.Source`."""
        index = operator.index(index)
        if not 0 <= index < self.count:
            raise IndexError(f'toy_birds/{self.split} has {self.count} images; there is no index {index}')
        if index not in self._drawn:
            self._drawn[index] = self._draw(index)
        return dict(self._drawn[index])

    def _label(self, index: int) -> int:
        # Each group of 16 images holds every class once, in random order.
        group, position = divmod(index, len(CLASS_NAMES))
        return np.random.default_rng((*self._stream, group, LABEL_STREAM)).permutation(len(CLASS_NAMES))[position]

    def _draw(self, index: int) -> dict[str, Any]:
        label = int(self.labels[index])
        rng = np.random.default_rng((*self._stream, index))
        image, keypoints, box = draw_bird(label, rng, self.size, self.distractors)
        file = f'toy_birds/{self.split}/{index:05d}'
        return {'image': image, 'label': np.int32(label), 'keypoints': keypoints, 'box': box, 'file': file}


def load(config: Any) -> Dataset:
    """Builds the data set from the fields train_count, test_count, size, distractors and seed of `config.data`.

    Args:
      config: the ``data`` section of a configuration.

    Raises:
      UserError: a field is out of range.
    """
    try:
        train, test = (
            ToyBirds(count, split, seed=config.seed, size=config.size, distractors=config.distractors)
            for count, split in ((config.train_count, 'train'), (config.test_count, 'test'))
        )
    except ValueError as error:
        raise UserError(f'config.data: {error}') from error
    generator = f'seed {config.seed}, size {config.size}, distractors {config.distractors}'
    return Dataset(
        'toy_birds',
        CLASS_NAMES,
        train,
        test,
        keypoint_names=KEYPOINT_NAMES,
        keypoint_groups=KEYPOINT_GROUPS,
        generator=generator,
    )
