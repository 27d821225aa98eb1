"""The section about parts: text and pictures, with and without scale mining and oriented pooling."""

from types import SimpleNamespace

import numpy as np
import pytest

from ssanet_jax.data.dataset import Dataset
from ssanet_jax.evaluation.drawing import PART_COLORS
from ssanet_jax.evaluation.prediction import Evidence, Prediction
from ssanet_jax.report import prediction_sections

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
