"""The section that explains some predictions: which images, with which truth, and what it says without an index."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from test_prediction_sections import FixedPredictor, OneBird

from ssanet_jax.data.dataset import Dataset
from ssanet_jax.errors import UserError
from ssanet_jax.report import explained_section


class Wrong(OneBird):
    """Nine images, of which the third to fifth are robins."""

    labels = np.array([0, 0, 1, 1, 1, 0, 0, 0, 0], np.int32)

    def __len__(self):
        return 9

    def __getitem__(self, index):
        return super().__getitem__(index) | {'label': self.labels[index]}


class WithoutIndex(FixedPredictor):
    @property
    def index(self):
        raise UserError('index.npz is missing')

    def predict(self, images):
        for prediction in super().predict(images):
            yield dataclasses.replace(prediction, scales=np.ones(len(prediction.boxes), np.float32))


@pytest.fixture
def inputs(monkeypatch, tiny_config):
    monkeypatch.setattr(explained_section, 'Predictor', WithoutIndex)
    run = SimpleNamespace(
        active=frozenset(['backbone', 'proposals', 'scale_mining']), config=tiny_config, class_names=('wren', 'robin')
    )
    predictions = SimpleNamespace(
        predicted=np.zeros(9, np.int32), labels=Wrong.labels, label_probability=np.linspace(0.9, 0.1, 9)
    )
    return SimpleNamespace(
        run=run, dataset=Dataset('birds', ('wren', 'robin'), Wrong(), Wrong()), predictions=predictions
    )


def test_even_images_first_then_the_hardest_mistakes(inputs):
    section = explained_section.explained_section(inputs)
    assert [image.is_right for image in section.images] == [True, True, False, False]
    assert [image.label for image in section.images] == ['wren', 'wren', 'robin', 'robin']
    assert all(max(image.picture.shape) <= explained_section._LONGEST_SIDE for image in section.images)
    assert section.note == 'Without training photos: index.npz is missing.'


def test_a_network_without_parts(inputs):
    inputs.run.active = frozenset(['backbone', 'image_classifier'])
    assert explained_section.explained_section(inputs) == 'This network does not locate parts.'
