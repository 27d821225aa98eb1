"""The section about parts: text and pictures, with and without scale mining and oriented pooling."""

from types import SimpleNamespace

import numpy as np
import pytest

from ssanet_jax.data.dataset import Dataset
from ssanet_jax.evaluation.drawing import draw_parts
from ssanet_jax.evaluation.prediction import Evidence, Prediction
from ssanet_jax.report import prediction_sections

IMAGE = np.full((64, 64, 3), 90, np.uint8)
BOXES, PROPOSALS = np.float32([[8, 8, 24, 24]]), np.float32([[30, 20, 56, 60]])
SCALE, ORIENTATION, DASHED = 'the chosen scale', 'the chosen orientation', 'Dashed boxes are the proposals'


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
                label='wren',
                class_index=0,
                score=0.75,
                probabilities=np.float32([0.75, 0.25]),
                class_names=('wren', 'robin'),
                boxes=boxes,
                scales=np.float32([0.5] if 'scale_mining' in self.active else []),
                orientations=('vertical',) if 'oriented_pooling' in self.active else (),
                evidence=Evidence('robin', (1.0,), 0.0, 0.0),
                path=None,
                image=image,
                input_boxes=boxes,
                input_proposals=PROPOSALS if located else PROPOSALS[:0],
            )


@pytest.mark.parametrize(
    'groups, mentioned, drawn',
    [
        (['image_classifier'], [], dict(boxes=BOXES[:0], scales=())),
        (['proposals'], [], dict(boxes=BOXES, scales=())),
        (['proposals', 'part_head'], [], dict(boxes=BOXES, scales=())),
        (['proposals', 'scale_mining'], [SCALE, DASHED], dict(boxes=BOXES, scales=[0.5], proposals=PROPOSALS)),
        (['proposals', 'oriented_pooling'], [ORIENTATION], dict(boxes=BOXES, scales=(), orientations=['vertical'])),
        (
            ['proposals', 'scale_mining', 'oriented_pooling'],
            [SCALE, ORIENTATION, DASHED],
            dict(boxes=BOXES, scales=[0.5], orientations=['vertical'], proposals=PROPOSALS),
        ),
    ],
    ids=lambda value: '+'.join(map(str, value)) if isinstance(value, list) else None,
)
def test_the_introduction_mentions_only_what_is_drawn(monkeypatch, tiny_config, groups, mentioned, drawn):
    monkeypatch.setattr(prediction_sections, 'Predictor', FixedPredictor)
    tiny_config.data.interpolation = 'bilinear'
    run = SimpleNamespace(
        active=frozenset(['backbone', *groups]), config=tiny_config, model=None, class_names=('wren', 'robin')
    )
    dataset = Dataset('birds', ('wren',), OneBird(), OneBird())
    section = prediction_sections.parts_section(SimpleNamespace(run=run, dataset=dataset))
    for words in (SCALE, ORIENTATION, DASHED):
        assert (words in section.introduction) == (words in mentioned), words
    assert ('does not locate parts' in section.introduction) == ('proposals' not in groups)
    side = prediction_sections.PICTURE_SIDE
    (example,) = section.examples
    assert (example.picture == draw_parts(IMAGE, **drawn, side=side)[:side]).all()
    assert (example.predicted, example.label, example.probability) == ('wren', 'wren', 0.75)
