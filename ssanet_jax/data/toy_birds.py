"""toy_birds: a fine-grained data set that the program draws itself, so that a demo needs no download.

Sixteen kinds of bird differ only in four small parts: the beak, the crown, the bar on the wing, and the tail. Each
part has four forms, two shapes in two colours. Beak and crown may combine freely, which makes the sixteen kinds; wing
and tail follow from them such that two kinds share the form of one part at most. As with real birds no single part
tells the kind, and any two do. Everything else (plumage, size, rotation, pose, light, background) is drawn
independently of the class, and pieces of other birds, of random form, lie in the background. Pooling over the whole
picture therefore mixes up the bird's own parts with those; looking at the parts of the bird does not.
"""

import itertools
import operator

import numpy as np

from ssanet_jax.data.dataset import Dataset
from ssanet_jax.data.toy_drawing import KEYPOINT_NAMES, draw_forms
from ssanet_jax.errors import UserError

BEAKS = ('orange conebill', 'slate conebill', 'orange sicklebill', 'slate sicklebill')
CROWNS = ('red-capped', 'blue-capped', 'red-crested', 'blue-crested')
CLASS_NAMES = tuple(f'{crown} {beak}' for beak, crown in itertools.product(BEAKS, CROWNS))
SPLITS = ('train', 'test')
LABEL_STREAM = 1  # keeps the random numbers of the labels apart from those of the pictures


def part_forms(label: int) -> tuple[int, int, int, int]:
    """Forms (0..3) of beak, crown, wing and tail of a class.

    The rows of a [4, 2, 3] code over the field of four elements, (b, c, b + c, b + 2c): two classes agree in one part
    at most.
    """
    beak, crown = divmod(label, 4)
    return beak, crown, beak ^ crown, beak ^ (0, 2, 3, 1)[crown]


def draw_bird(label: int, rng: np.random.Generator, size: int = 128, distractors: int = 4):
    """Draws one picture of class `label` (0..15), as `draw_forms` does."""
    if not 0 <= label < len(CLASS_NAMES):
        raise ValueError(f'toy_birds has the labels 0 to {len(CLASS_NAMES) - 1}, not {label}')
    return draw_forms(part_forms(label), rng, size, distractors)


class ToyBirds:
    """Random-access source of `count` pictures. The same (seed, split, index) is the same picture, whatever the count.

    Args:
      count: number of pictures, at least 1.
      split: 'train' or 'test'; they share no picture.
      seed: of everything random, not negative.
      size: side of the pictures in pixels, at least 32.
      distractors: pieces of other birds in each background.

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
        self._drawn: dict[int, dict] = {}  # drawing takes longer than a step of a small network

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index) -> dict:
        """Returns image, label (int32), keypoints and box as `draw_bird` does, and a name, 'file'."""
        index = operator.index(index)
        if not 0 <= index < self.count:
            raise IndexError(f'toy_birds/{self.split} has {self.count} pictures, there is no number {index}')
        if index not in self._drawn:
            self._drawn[index] = self._draw(index)
        return dict(self._drawn[index])

    def _label(self, index: int) -> int:
        # Each run of 16 pictures holds every class once, in an order of its own.
        run, place = divmod(index, len(CLASS_NAMES))
        return np.random.default_rng((*self._stream, run, LABEL_STREAM)).permutation(len(CLASS_NAMES))[place]

    def _draw(self, index: int) -> dict:
        label = int(self.labels[index])
        rng = np.random.default_rng((*self._stream, index))
        image, keypoints, box = draw_bird(label, rng, self.size, self.distractors)
        file = f'toy_birds/{self.split}/{index:05d}'
        return {'image': image, 'label': np.int32(label), 'keypoints': keypoints, 'box': box, 'file': file}


def load(config) -> Dataset:
    """Reads train_count, test_count, size, distractors and seed of `config.data`; returns a Dataset."""
    try:
        train, test = (
            ToyBirds(count, split, seed=config.seed, size=config.size, distractors=config.distractors)
            for count, split in ((config.train_count, 'train'), (config.test_count, 'test'))
        )
    except ValueError as error:
        raise UserError(f'config.data: {error}') from error
    return Dataset('toy_birds', CLASS_NAMES, train, test, keypoint_names=KEYPOINT_NAMES)
