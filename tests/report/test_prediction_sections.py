"""Sections about predictions: parts in words and pictures, what prototypes attend to, and the loading time."""

from types import SimpleNamespace

import numpy as np
import pytest

from ssanet_jax.data.dataset import Dataset
from ssanet_jax.evaluation import attention
from ssanet_jax.evaluation.attention import Attention
from ssanet_jax.evaluation.drawing import PART_COLORS
from ssanet_jax.evaluation.prediction import Evidence, Prediction
from ssanet_jax.report import prediction_sections
from ssanet_jax.report import predictions as test_predictions

IMAGE = np.full((64, 128, 3), 90, np.uint8)
BOXES = np.float32([[8, 8, 24, 100]])


class OneBird:
    labels = np.zeros(1, np.int32)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return {'image': IMAGE, 'label': 0, 'file': 'wren.jpg'}


class FixedPredictor:
    """Finds the same in every image."""

    @classmethod
    def from_run(cls, run):
        predictor = cls()
        predictor.active = run.active
        return predictor

    def predict(self, images):
        located = 'proposals' in self.active
        boxes = BOXES if located else BOXES[:0]
        for image in images:
            yield Prediction(
                label='001.House_wren',
                class_index=0,
                score=0.9999,
                probabilities=np.float32([0.75, 0.25]),
                class_names=('001.House_wren', 'robin'),
                boxes=boxes,
                scales=np.float32([0.5 if 'scale_mining' in self.active else 1.0] * len(boxes)),
                orientations=('vertical',) if 'oriented_pooling' in self.active else (),
                evidence=Evidence('robin', (1.0,) * len(boxes), 0.0, 0.0),
                path=None,
                image=image,
                input_boxes=boxes,
                input_proposals=boxes,
            )


@pytest.mark.parametrize(
    'groups, terms',
    [
        (['image_classifier'], []),
        (['proposals', 'part_head'], ['part 1: 100 % of the evidence']),
        (['proposals', 'scale_mining'], ['part 1: 100 % of the evidence, scale ×0.5']),
        (['proposals', 'oriented_pooling'], ['part 1: 100 % of the evidence, vertical']),
        (
            ['proposals', 'scale_mining', 'oriented_pooling'],
            ['part 1: 100 % of the evidence, scale ×0.5, vertical'],
        ),
    ],
    ids=lambda value: '+'.join(map(str, value)) if isinstance(value, list) else None,
)
def test_parts_are_drawn_on_the_photo_and_put_into_words(monkeypatch, tiny_config, groups, terms):
    monkeypatch.setattr(prediction_sections, 'Predictor', FixedPredictor)
    names = ('001.House_wren', 'robin')
    run = SimpleNamespace(active=frozenset(['backbone', *groups]), config=tiny_config, class_names=names)
    dataset = Dataset('birds', names, OneBird(), OneBird())
    section = prediction_sections.parts_section(SimpleNamespace(run=run, dataset=dataset))
    located = 'proposals' in groups
    assert ('does not locate parts' in section.introduction) == (not located)
    assert ('evidence' in section.introduction) == bool(terms)
    (example,) = section.examples
    assert [f'{term.name}: {term.words}' for term in example.terms] == terms
    # In the proportions of the photo, which is twice as wide as high, with the box where it is in the photo.
    side = prediction_sections.PICTURE_SIDE
    assert example.picture.shape == (side // 2, side, 3)
    rows, columns = np.nonzero((example.picture == PART_COLORS[0]).all(-1))
    if located:
        zoom = side / IMAGE.shape[1]
        assert rows.max() == pytest.approx(zoom * BOXES[0, 2], abs=3)
        assert columns.max() == pytest.approx(zoom * BOXES[0, 3], abs=3)
    assert bool(len(rows)) == located
    assert (example.predicted, example.label, example.probability) == ('House wren', 'House wren', '99 %')


class BrightSquare(OneBird):
    """A dark photo, twice as wide as high, with a bright square."""

    TOP, LEFT, SIDE = 96, 320, 128

    def __getitem__(self, index):
        image = np.full((320, 640, 3), 40, np.uint8)
        image[self.TOP : self.TOP + self.SIDE, self.LEFT : self.LEFT + self.SIDE] = 255
        return {'image': image, 'label': 0, 'file': 'wren.jpg'}


def attend_to_brightness(model, images, active):
    """Attends to bright cells of 4 pixels, with a box around the bright pixels of the network's input."""
    bright = (images[0] > 128).all(-1)
    places = np.argwhere(bright)
    box = np.float32([*places.min(0), *(places.max(0) + 1)])
    cells = bright.reshape(16, 4, 16, 4).mean((1, 3))
    return Attention(images, np.zeros(1), box[None, None], (cells / cells.sum())[None, ..., None])


def test_attention_is_drawn_in_the_proportions_of_the_photo(monkeypatch, tiny_config):
    """A square of the photo is a square in the pictures, inside its box and lit, where the center crop has it."""
    monkeypatch.setattr(attention, 'attend', attend_to_brightness)
    tiny_config.data.update(resize=80, image_size=64)
    tiny_config.model.proposal = 'prototypes'
    model = SimpleNamespace(backbone=SimpleNamespace(center=lambda size: 2, stride=4), global_size=64)
    run = SimpleNamespace(active=frozenset(['proposals']), config=tiny_config, model=model)
    dataset = Dataset('birds', ('wren',), BrightSquare(), BrightSquare())
    section = prediction_sections.attention_section(SimpleNamespace(run=run, dataset=dataset))

    side, gap = prediction_sections.ATTENTION_SIDE, 8
    assert section.picture.shape == (side // 2 + 2 * gap, 2 * side + 3 * gap, 3)
    boxed, lit = (section.picture[gap:-gap, start : start + side].astype(int) for start in (gap, 2 * gap + side))
    # The network sees the middle 4/5 of the photo's height and width.
    zoom = side / (0.8 * 640)
    top, left = (BrightSquare.TOP - 0.1 * 320) * zoom, (BrightSquare.LEFT - 0.1 * 640) * zoom
    expected = np.array([top, left, top + BrightSquare.SIDE * zoom, left + BrightSquare.SIDE * zoom])
    colored = (abs(boxed - PART_COLORS[0]) < 8).all(-1)
    rows, columns = (np.flatnonzero(colored.sum(axis) > 42) for axis in (1, 0))  # the label is smaller than the frame
    np.testing.assert_allclose([rows[0], columns[0], rows[-1], columns[-1]], expected, atol=3)
    bright = np.argwhere((lit > 128).any(-1))
    np.testing.assert_allclose([*bright.min(0), *bright.max(0)], expected, atol=8)  # light fades over half a cell


@pytest.mark.parametrize(
    'milliseconds, predicted, folded',
    [
        ([2] * 40, 0, True),
        ([2] * 39 + [9000], 0, True),
        ([2] * 30 + [300] * 10, 0, False),
        ([2] * 40, test_predictions.UNREADABLE, False),
    ],
    ids=['fast', 'one slow', 'slow', 'unreadable'],
)
def test_the_loading_time_is_folded_unless_it_is_long(milliseconds, predicted, folded):
    count = len(milliseconds)
    labels, shares, names = np.zeros(count, int), np.ones(count), [f'{i}.jpg' for i in range(count)]
    found = np.array([predicted, *labels[1:]])
    predictions = test_predictions.TestPredictions(labels, found, shares, shares, np.array(milliseconds) / 1000, names)
    section = prediction_sections.loading_section(SimpleNamespace(predictions=predictions))
    assert section.folded is folded
    assert section.slowest[0][1] == pytest.approx(max(milliseconds))
