"""Explanations: the evidence adds up, words say what numbers mean, and pictures show the photo as it is."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from data_samples import make_config
from ml_collections import ConfigDict
from PIL import Image
from test_predictor import NAMES, build, config

from ssanet_jax.data.preprocessing import to_source_pixels
from ssanet_jax.data.training_photos import TrainingPhotos
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.drawing import PART_COLORS
from ssanet_jax.evaluation.explained_picture import (
    crop_part,
    explained_picture,
    headline,
    mark_parts,
    reason_text,
    term_text,
    wrap_text,
)
from ssanet_jax.evaluation.explanation import explain, find_terms, percent, readable_name
from ssanet_jax.evaluation.fonts import text_size
from ssanet_jax.evaluation.prediction import Evidence, Prediction
from ssanet_jax.prediction_files.explained import Explainer
from ssanet_jax.predictor import Predictor
from ssanet_jax.runs.feature_index import FeatureIndex, row_type

GRAY = np.full((90, 160, 3), 128, np.uint8)


def prediction(photo=GRAY, boxes=((20, 30, 60, 80), (5, 5, 40, 40), (50, 90, 85, 150)), **changes):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    values = [0.6, -0.2, 1.4][: len(boxes)]
    fields = dict(
        label='002.Snowy_owl', class_index=1, score=0.8, probabilities=np.array([0.15, 0.8, 0.05], np.float32),
        class_names=('001.wren', '002.Snowy_owl', 'crow'), boxes=boxes, scales=np.ones(len(boxes), np.float32),
        orientations=(), evidence=Evidence('001.wren', tuple(values), 0.5, 0.1), path='owl.jpg',
        image=np.zeros((64, 64, 3), np.uint8), input_boxes=boxes, input_proposals=boxes, source_size=photo.shape[:2],
        image_features=np.ones(4, np.float16), part_features=np.eye(3, 5, dtype=np.float16)[: len(boxes)],
        read_photo=lambda: photo,
    )  # fmt: skip
    return Prediction(**(fields | changes))


def test_the_evidence_is_the_difference_of_the_logits():
    """Of a real network, by its probabilities."""
    model, random = build('global+parts'), np.random.default_rng(0)
    for bias in (model.scale_mining.bias, model.oriented_pooling.bias):
        bias[...] = random.normal(size=len(NAMES)).astype(np.float32)
    active = frozenset(['backbone', 'proposals', 'scale_mining', 'oriented_pooling', 'image_classifier'])
    images = list(random.integers(0, 256, (2, 64, 64, 3), np.uint8))
    for one in Predictor(model, active, config(), NAMES).predict(images):
        found = explain(one, has_object=False)
        logits = np.log(one.probabilities.astype(float))  # up to a constant
        best, second = np.argsort(-logits)[:2]
        assert found.runner_up == second and [term.name for term in found.terms] == ['whole photo', 'part 1', 'part 2']
        total = sum(term.value for term in found.terms) + found.bias
        assert total == pytest.approx(logits[best] - logits[second], rel=1e-3, abs=1e-4)


def test_shares_are_of_what_speaks_for_the_class():
    whole, *parts = find_terms(prediction(), has_object=True)
    assert [term.name for term in parts] == ['object', 'part 2', 'part 3']
    np.testing.assert_allclose([whole.share, *(term.share for term in parts)], [0.2, 0.24, 0, 0.56])
    assert [term.decides for term in (whole, *parts)] == [False, False, False, True]
    assert explain(prediction(), has_object=True).runner_up == 0


def test_without_a_whole_photo_a_runner_up_or_any_evidence():
    no_image = dataclasses.replace(prediction().evidence, image=0.0)
    assert find_terms(prediction(evidence=no_image), True)[0].name == 'object'
    nothing = Evidence('', (0.0,) * 3, 0.0, 0.0)
    alone = explain(prediction(evidence=nothing, class_names=('owl',) * 3), True)
    assert alone.runner_up is None and all(term.share == 0 and not term.decides for term in alone.terms)
    explained_picture(alone)
    no_parts = prediction(boxes=(), evidence=Evidence('001.wren', (), 1.0, 0.0))
    (term,) = explain(no_parts, False).terms
    assert (term.part, term.share, term.decides) == (None, 1.0, True)
    explained_picture(explain(no_parts, False))


@pytest.mark.parametrize(
    'probability, words', [(1.0, '99 %'), (0.9949, '99 %'), (0.424, '42 %'), (0.005, 'below 1 %'), (0.0, 'below 1 %')]
)
def test_nothing_is_certain(probability, words):
    assert percent(probability) == words


@pytest.mark.parametrize(
    'name, words',
    [
        ('002.Laysan_Albatross', 'Laysan Albatross'),
        ('12-owl', 'owl'),
        ('747', '747'),
        ('m4_hex', 'm4 hex'),
        ('3.5', '3.5'),
        ('_', '_'),
        ('鸟', '鸟'),
    ],
)
def test_names_are_readable(name, words):
    assert readable_name(name) == words


@pytest.mark.parametrize(
    'parts, image, has_object, words',
    [
        ((0.6, -0.2, 1.4), 0.5, True, 'Between the two, part 3 decides.'),
        ((0.6, -0.2, 1.4), 2.5, True, 'Between the two, the whole photo decides. Of the parts, part 3 says most.'),
        ((1.6, 0.5, 0.2), 0.5, True, 'Between the two, the object decides. Of the parts, part 2 says most.'),
        ((1.6, 0.5, 0.2), 0.5, False, 'Between the two, part 1 decides.'),
        ((1.6, -0.5, -0.2), 0.5, True, 'Between the two, the object decides.'),
        ((1.6, 0.5), 0.5, True, 'Between the two, the object decides.'),  # there is no choice among one part
    ],
)
def test_what_decides_is_said_once(parts, image, has_object, words):
    evidence = Evidence('001.wren', parts, image, 0.1)
    explanation = explain(prediction(boxes=[(5, 5, 40, 40)] * len(parts), evidence=evidence), has_object)
    assert reason_text(explanation) == f'Next best: wren (15 %). {words}'


def test_headlines_begin_with_doubts():
    assert headline(explain(prediction(), True)) == 'Snowy owl: 80 %'
    assert headline(explain(prediction(novelty=0.97), True)) == 'Unsure. Perhaps Snowy owl: 80 %'


@pytest.mark.parametrize('height, width', [(90, 160), (400, 300), (333, 500), (700, 1000), (300, 2000), (1500, 400)])
def test_the_photo_keeps_its_size_and_its_pixels(height, width):
    photo = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    one = prediction(photo, boxes=(), evidence=Evidence('001.wren', (), 1.0, 0.0))
    picture = explained_picture(explain(one, True))
    factor = -(-320 // max(height, width)) if max(height, width) < 320 else 1
    assert picture.shape[0] >= factor * height and picture.shape[1] >= factor * width
    if factor == 1:
        np.testing.assert_array_equal(picture[:height, :width], photo)


@pytest.mark.parametrize('height, width', [(100, 300), (240, 120), (200, 200)])
def test_a_centered_box_stays_centered_on_the_photo(height, width):
    """Whatever the photo's proportions, and the border that the network does not see."""
    data = ConfigDict(make_config(name='folder', resize=72, image_size=64))
    centered = np.array([[16.0, 20, 48, 44]])
    (box,) = to_source_pixels(centered, (height, width), data)
    assert box[0] + box[2] == pytest.approx(height) and box[1] + box[3] == pytest.approx(width)
    assert box[2] - box[0] == pytest.approx(32 / 72 * height) and box[3] - box[1] == pytest.approx(24 / 72 * width)
    photo = np.full((height, width, 3), 128, np.uint8)
    evidence = Evidence('001.wren', (1.0,), 0.0, 0.0)
    explanation = explain(prediction(photo, boxes=[box], evidence=evidence), has_object=False)
    marked = mark_parts(explanation, photo)
    drawn = (marked != 128).any(-1)
    drawn[:, : width // 2] = False  # where the label is
    rows, columns = np.nonzero(drawn)
    assert rows.min() == pytest.approx(box[0], abs=3) and rows.max() == pytest.approx(box[2], abs=3)
    assert columns.max() == pytest.approx(box[3], abs=3)


def test_parts_that_are_not_clearly_seen_are_dashed_and_said_so():
    """The place that was taken for them counts in the prediction, so it is shown like the others."""
    marked = [mark_parts(explain(prediction(present=(True, seen, True)), True), GRAY, 4.0) for seen in (True, False)]
    counts = [[(picture == color).all(-1).sum() for color in PART_COLORS[:3]] for picture in marked]
    (_, whole, _), (_, dashed, _) = counts
    assert 0 < dashed < 0.9 * whole
    terms = find_terms(prediction(present=(True, False, False)), True)
    assert [term_text(term) for term in terms] == [
        '20 % of the evidence',
        '24 % of the evidence',
        'not clearly seen',  # speaks against the class
        'not clearly seen: 56 %',
    ]


@pytest.mark.parametrize(
    'box, shape',
    [
        ((10, 20, 30, 60), (20, 40)),
        ((-5, -9, 10, 10), (10, 10)),
        ((80, 150, 200, 300), (10, 10)),
        ((200, 300, 210, 310), (1, 1)),
    ],
)
def test_crops_stay_inside_the_photo(box, shape):
    assert crop_part(GRAY, np.array(box, float)).shape[:2] == shape


def test_lines_are_broken_between_words():
    text = 'the quick brown fox jumps over the lazy dog and a verylongwordthatfitsnowhere'
    lines = wrap_text(text, 90, 12)
    assert ' '.join(lines) == text and len(lines) > 3
    assert all(text_size(line, 12)[1] <= 90 for line in lines[:-1])


def index(files):
    rows = np.zeros(len(files), row_type(4, 3, 5))
    rows['image'], rows['parts'], rows['present'] = 1, np.eye(3, 5), True
    rows['label'], rows['position'] = np.arange(len(files)) % 2, np.arange(len(files))
    rows['boxes'] = [0.25, 0.5, 0.75, 1.0]
    return FeatureIndex(rows, files, 'fit', '')


def save(path, color, size=(40, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size, color).save(path)


def folder_config(folder):
    return ConfigDict(make_config(name='folder', dir=str(folder)))


def test_examples_are_the_parts_of_training_photos_of_both_classes(tmp_path):
    save(tmp_path / 'data/images/wren/1.png', (255, 0, 0))
    save(tmp_path / 'data/images/owl/[2].png', (0, 0, 255))
    found = index(['wren/1.png', 'owl/[2].png'])
    photos = TrainingPhotos(folder_config(tmp_path / 'data'), found.files[0])
    of_class, of_other = explain(prediction(), True, found, photos).classes
    assert (of_class.class_index, of_other.class_index) == (1, 0)
    for each, color in ((of_class, (0, 0, 255)), (of_other, (255, 0, 0))):
        assert [example.box is None for example in each.examples] == [True, False, False, False]
        assert all((example.photo == color).all() for example in each.examples)
        np.testing.assert_array_equal(each.examples[1].box, [5, 20, 15, 40])  # of 20 x 40 pixels
    with_photos, without = (explained_picture(explain(prediction(), True, *more)) for more in ((found, photos), ()))
    assert with_photos.shape[0] > without.shape[0]
    has = lambda picture, color: (picture == color).all(-1).sum() > 1000
    assert has(with_photos, (0, 0, 255)) and has(with_photos, (255, 0, 0)) and not has(without, (255, 0, 0))


def test_training_photos_that_were_moved(tmp_path):
    save(tmp_path / 'new/wren/1.png', (255, 0, 0))
    config, found = folder_config(tmp_path / 'old'), index(['wren/1.png'])
    run = SimpleNamespace(config=SimpleNamespace(data=config, model={}), class_names=NAMES, index=found)
    explainer = Explainer(run)
    assert 'give the folder that holds them now as --data_dir' in explainer.problem
    explainer.save(prediction(), tmp_path / 'without.png')
    config.dir = str(tmp_path / 'new')  # as `load_run(workdir, data_dir=...)` does
    explainer = Explainer(run)
    assert explainer.problem == ''
    explainer.save(prediction(), tmp_path / 'with.png')
    has_red = [
        (np.array(Image.open(tmp_path / f'{name}.png')) == (255, 0, 0)).all(-1).sum() > 1000
        for name in ('without', 'with')
    ]
    assert has_red == [False, True]


def test_training_photos_that_are_missing(tmp_path):
    save(tmp_path / 'a.png', 'white', (3000, 1000))
    (tmp_path / 'b.png').write_bytes(b'broken')
    with pytest.raises(UserError, match='training photos are not in .*'):
        TrainingPhotos(folder_config(tmp_path), 'missing.png')
    photos = TrainingPhotos(folder_config(tmp_path), 'a.png')
    assert photos.read('a.png', 0).shape == (341, 1024, 3)
    assert photos.read('b.png', 1) is None and photos.read('missing.png', 2) is None
    (example, *_) = explain(prediction(), True, index(['b.png', 'missing.png']), photos).classes[0].examples
    assert example is None
    explained_picture(explain(prediction(), True, index(['b.png', 'missing.png']), photos))
