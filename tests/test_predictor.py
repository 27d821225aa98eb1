"""The public Python API: what a prediction holds, which inputs there are, and agreement with evaluation."""

import dataclasses
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT
from data_samples import make_config
from flax import nnx
from ml_collections import ConfigDict
from PIL import Image
from rich.console import Console
from scipy.special import softmax

import ssanet_jax
from ssanet_jax import UnreadableImage, UserError
from ssanet_jax.data.images import decode_image
from ssanet_jax.data.pipeline import eval_batches
from ssanet_jax.data.preprocessing import preprocess_for_evaluation
from ssanet_jax.data.record_builder import convert_image
from ssanet_jax.data.registry import load_dataset
from ssanet_jax.distributed import sharding
from ssanet_jax.evaluation.prediction import ORIENTATIONS
from ssanet_jax.models.ssanet import SSANet
from ssanet_jax.predictor import Predictor
from ssanet_jax.report.predictions import predict_test_set
from ssanet_jax.runs.run import Run

NUM_CLASSES, SIDE, K = 5, 64, 2
NAMES = ('wren', 'robin', 'owl', 'crow', 'gull')
HEADS = [['image_classifier'], ['proposals'], ['proposals', 'scale_mining'], ['proposals', 'oriented_pooling']]


def build(fusion='parts', part_head='none'):
    return SSANet(
        NUM_CLASSES,
        SIDE,
        backbone='resnet_tiny',
        num_parts=K,
        num_proposals=3,
        num_scales=3,
        crop_size=56,
        fusion=fusion,
        part_head=part_head,
        rngs=nnx.Rngs(0),
    )


def config(**data):
    data = dict(name='folder', resize=SIDE, image_size=SIDE, shrink=True) | data
    return ConfigDict(dict(data=make_config(**data)))


@pytest.fixture(scope='module')
def model():
    return build()


@pytest.fixture(scope='module')
def images():
    return list(np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8))


@pytest.fixture(scope='module')
def predictor(model):
    active = ['backbone', 'proposals', 'scale_mining', 'oriented_pooling']
    return Predictor(model, active, config(resize=72), NAMES)


def test_pictures_say_what_is_worth_saying(predictor, images):
    """A scale of 1 everywhere is no choice, nothing is more certain than 0.99, and doubts come first."""
    prediction = next(predictor.predict(images[0]))
    draw = lambda **changes: np.asarray(dataclasses.replace(prediction, **changes).plot(details=True))
    ones, none, some = (
        draw(scales=np.array(scales, np.float32)) for scales in ([1] * len(prediction.boxes), [], [2] * 4)
    )
    np.testing.assert_array_equal(ones, none)
    assert (ones != some[: len(ones)]).any()
    plain = dataclasses.replace(prediction, scales=np.array([2] * 4, np.float32)).plot()
    np.testing.assert_array_equal(plain, dataclasses.replace(prediction, orientations=()).plot())
    np.testing.assert_array_equal(draw(score=1.0), draw(score=0.99))
    assert (draw(score=0.6, novelty=0.5) == draw(score=0.6)).all()
    assert (draw(score=0.6, novelty=0.97) != draw(score=0.6)).any()


@pytest.mark.parametrize(
    'novelty, score, words', [(None, 0.1, ''), (0.5, 0.6, ''), (0.95, 0.9, 'none of'), (0, 0.4, 'be ')]
)
def test_doubts(predictor, images, novelty, score, words):
    prediction = dataclasses.replace(next(predictor.predict(images[0])), novelty=novelty, score=score)
    assert words in prediction.unsure and bool(words) == bool(prediction.unsure)
    assert prediction.trust() == ({} if novelty is None else {'novelty': novelty, 'unsure': prediction.unsure})


@pytest.mark.parametrize('heads', HEADS, ids='+'.join)
def test_only_what_was_chosen(model, images, heads):
    """Three images in calls of two, so that the last one is padded."""
    active = frozenset(['backbone', *heads])
    found = list(Predictor(model, active, config(), NAMES).predict(images, batch_size=2))
    model.eval()
    outputs = model(np.stack(images), active=active)
    assert len(found) == 3
    for i, one in enumerate(found):
        np.testing.assert_allclose(one.probabilities, softmax(np.asarray(outputs.logits[i])), rtol=1e-3, atol=1e-5)
        assert one.class_index == np.argmax(outputs.logits[i]) and one.label == NAMES[one.class_index]
        assert one.score == one.probabilities.max() and one.path is None
        count = K if 'proposals' in active else 0
        assert one.boxes.shape == one.input_boxes.shape == one.input_proposals.shape == (count, 4)
        if 'scale_mining' in active:
            np.testing.assert_allclose(one.scales, 2 ** ((outputs.aligned_scale[i] - 1) / 3), rtol=1e-5)
            sides = lambda boxes: boxes[:, 2:] - boxes[:, :2]
            np.testing.assert_allclose(sides(one.input_boxes), sides(one.input_proposals) * one.scales[:, None], 1e-4)
        else:
            assert len(one.scales) == 0
            np.testing.assert_array_equal(one.input_boxes, one.input_proposals)
        expected = outputs.orientation[i] if 'oriented_pooling' in active else []
        assert one.orientations == tuple(ORIENTATIONS[o] for o in expected)


@pytest.mark.parametrize(
    'heads, fusion, part_head',
    [
        *((heads, 'parts', 'none') for heads in HEADS),
        (['proposals', 'scale_mining', 'oriented_pooling'], 'parts', 'none'),
        (['proposals', 'scale_mining', 'oriented_pooling', 'image_classifier'], 'global+parts', 'none'),
        (['proposals', 'part_head'], 'parts', 'dsm_1'),
        (['proposals', 'part_head'], 'parts', 'concat'),
    ],
)
def test_evidence_adds_up_to_the_difference_of_the_logits(images, heads, fusion, part_head):
    model = build(fusion, part_head)
    random = np.random.default_rng(1)
    for group in (model.scale_mining, model.oriented_pooling, model.part_head):
        if group is not None:
            group.bias[...] = random.normal(size=NUM_CLASSES).astype(np.float32)  # zero at the start
    active = frozenset(['backbone', *heads])
    model.eval()
    outputs = model(np.stack(images), active=active)
    for i, one in enumerate(Predictor(model, active, config(), NAMES).predict(images)):
        logits = np.asarray(outputs.logits[i])
        second = int(np.argsort(-logits)[1])
        assert one.evidence.runner_up == NAMES[second]
        over = lambda values, index=one.class_index, second=second: float(values[index] - values[second])
        assert one.evidence.total == pytest.approx(over(logits), rel=1e-3, abs=1e-4)
        parts_predict = len(heads) > 1
        assert len(one.evidence.parts) == (K if parts_predict else 0)
        biases = [(model.scale_mining, 'scale_mining'), (model.oriented_pooling, 'oriented_pooling')]
        biases = [group.bias[...] for group, name in [*biases, (model.part_head, 'part_head')] if name in active]
        assert one.evidence.bias == pytest.approx(sum(map(over, biases)), abs=1e-5)
        if fusion == 'global+parts':
            assert one.evidence.image == pytest.approx(over(outputs.image_logits[i]), rel=1e-3, abs=1e-4)
        elif part_head != 'concat' and parts_predict:
            assert one.evidence.image == 0


def test_boxes_are_in_pixels_of_the_source(predictor):
    image = np.random.default_rng(0).integers(0, 256, (36, 144, 3), np.uint8)
    (found,) = predictor.predict(image)
    expected = (found.input_boxes + 4) * [0.5, 2, 0.5, 2]  # squeezed to 72 x 72, cropped to 64 x 64
    np.testing.assert_allclose(found.boxes, expected, rtol=1e-5)
    np.testing.assert_array_equal(found.boxes_xyxy[:, 0], found.boxes[:, 1])
    np.testing.assert_array_equal(found.boxes_xyxy[:, 3], found.boxes[:, 2])


def test_every_kind_of_input_gives_the_same(predictor, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (300, 500, 3), np.uint8)  # large enough to be shrunk
    (tmp_path / 'folder' / 'below').mkdir(parents=True)
    files = [tmp_path / 'wren.png', tmp_path / 'folder' / 'a.png', tmp_path / 'folder' / 'below' / 'b.png']
    for file in files:
        Image.fromarray(image).save(file)
    (tmp_path / 'folder' / 'notes.txt').touch()
    inputs = [image, str(files[0]), files[0], Image.fromarray(image), Image.open(files[0]), tmp_path / 'folder']
    found = list(predictor.predict(inputs, batch_size=2))
    assert [one.path for one in found] == [None, str(files[0]), str(files[0]), None, None, *map(str, files[1:])]
    for one in found:
        np.testing.assert_array_equal(one.image, found[0].image)
        np.testing.assert_allclose(one.probabilities, found[0].probabilities, rtol=1e-5)
    (single,) = predictor.predict(str(files[0]), batch_size=2)
    np.testing.assert_allclose(single.boxes, found[0].boxes, rtol=1e-5)


def test_exif_orientation_is_applied(predictor, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (40, 80, 3), np.uint8)
    exif = Image.Exif()
    exif[274] = 6  # to be turned clockwise
    Image.fromarray(image).save(tmp_path / 'turned.png', exif=exif)
    upright = np.rot90(image, -1)
    for given in (tmp_path / 'turned.png', Image.open(tmp_path / 'turned.png')):
        (found,) = predictor.predict(given)
        np.testing.assert_array_equal(
            found.image, preprocess_for_evaluation(np.ascontiguousarray(upright), predictor.config.data)
        )


def test_unreadable_images(predictor, tmp_path, images, caplog):
    (tmp_path / 'broken.jpg').write_bytes(b'\xff\xd8\xff\xe0 not a picture')
    inputs = [images[0], tmp_path / 'broken.jpg', tmp_path / 'missing.jpg', images[1]]
    with pytest.raises(UnreadableImage, match='broken.jpg'):
        list(predictor.predict(inputs))
    with caplog.at_level(logging.WARNING):
        assert len(list(predictor.predict(inputs, on_error='skip'))) == 2
    assert 'broken.jpg' in caplog.text and 'missing.jpg' in caplog.text
    errors = []
    assert len(list(predictor.predict(inputs, on_error=errors.append))) == 2
    assert len(errors) == 2 and all(isinstance(error, UnreadableImage) for error in errors)
    with pytest.raises(ValueError, match=r'uint8 \[H, W, 3\]'):
        list(predictor.predict([images[0].astype(np.float32)]))
    with pytest.raises(ValueError, match='batch_size'):
        list(predictor.predict(images, batch_size=0))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match='no image'):
        list(predictor.predict(tmp_path / 'empty'))


def test_images_are_read_a_bounded_number_ahead(predictor, images):
    read = []

    def endless():
        while True:
            read.append(len(read))
            yield images[0]

    predictions = predictor.predict(endless(), batch_size=2)
    for _ in range(5):
        next(predictions)
    predictions.close()
    assert len(read) <= 5 + 3 * 2


def test_one_compilation_for_any_number_of_images(model, images, monkeypatch):
    traced, extract = [], SSANet.extract_features
    monkeypatch.setattr(
        SSANet, 'extract_features', lambda *args, **kwargs: traced.append(1) or extract(*args, **kwargs)
    )
    predictor = Predictor(model, ['backbone', 'image_classifier'], config(), NAMES)
    for count in (1, 3, 9):
        assert len(list(predictor.predict((images * 3)[:count], batch_size=2))) == count
    assert len(traced) == 1


def test_top_plot_save_and_dict(predictor, images, tmp_path):
    (found,) = predictor.predict(images[0])
    top = found.top(2)
    assert top[0] == (found.label, pytest.approx(found.score)) and len(top) == 2 and top[0][1] >= top[1][1]
    assert len(found.top(100)) == NUM_CLASSES
    picture = found.plot(128)
    assert picture.size == (128, 128 + 28)
    found.save(tmp_path / 'out.png', 128)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'out.png')), np.asarray(picture))
    tree = json.loads(json.dumps(found.to_dict(top=3)))
    assert tree['label'] == found.label and len(tree['top']) == 3 and len(tree['boxes']) == K
    assert sum(tree['evidence']['parts']) + tree['evidence']['image'] + tree['evidence']['bias'] == pytest.approx(
        found.evidence.total
    )


@pytest.mark.parametrize('heads', HEADS, ids='+'.join)
def test_features(model, images, heads):
    found = Predictor(model, ['backbone', *heads], config(), NAMES).features(images, batch_size=2)
    channels = model.backbone.num_features
    assert found.image.shape == (3, channels) and np.isfinite(found.image).all()
    assert found.parts.shape == (3, K if len(heads) > 1 else 0, channels)


class LargePhotos:
    """A prepared data set of large photos, as `builder.build_dataset` stores them."""

    def __init__(self, photos, data):
        self.labels = np.zeros(len(photos), np.int32)
        self._stored = [convert_image(photo.read_bytes(), photo.name, 0, data.resize) for photo in photos]
        assert all(stored.scale < 1 for stored in self._stored)

    def __len__(self):
        return len(self._stored)

    def __getitem__(self, index):
        return {'image': decode_image(self._stored[index].data, ''), 'label': np.int32(0), 'file': str(index)}


def test_large_photos_are_read_as_evaluation_and_report_read_them(model, tmp_path):
    random = np.random.default_rng(5)
    photos = []
    for index, size in enumerate([(300, 200), (140, 400), (256, 257)]):
        coarse = Image.fromarray(random.integers(0, 256, (24, 24, 3), np.uint8))
        photos.append(tmp_path / f'{index}.jpg')
        coarse.resize(size, Image.Resampling.BICUBIC).save(photos[-1], quality=97)
    settings = config(resize=72)
    source = LargePhotos(photos, settings.data)
    active = frozenset(['backbone', 'proposals', 'scale_mining', 'oriented_pooling'])
    predictor = Predictor(model, active, settings, NAMES)
    predictions = list(predictor.predict(photos, batch_size=4))

    (batch,) = eval_batches(source, settings.data)
    for i, one in enumerate(predictions):
        np.testing.assert_array_equal(one.image, batch['image'][i])
    model.eval()
    outputs = nnx.jit(lambda model, images: model(images, active=active))(model, batch['image'])
    expected = softmax(np.asarray(outputs.logits), axis=-1)[:3]
    np.testing.assert_allclose([one.probabilities for one in predictions], expected, rtol=1e-3, atol=1e-5)

    run = Run(settings, NAMES, model, active, 'part_tuning', True)
    dataset = ssanet_jax.data.dataset.Dataset('photos', NAMES, source, source)
    recorded = predict_test_set(run, dataset, sharding.make_mesh(images=4), Console(quiet=True))
    np.testing.assert_allclose(recorded.confidence, [one.score for one in predictions], rtol=1e-4)


def test_create_model():
    model = ssanet_jax.create_model('resnet_tiny', num_classes=3, image_size=SIDE, num_parts=2, num_proposals=3)
    assert isinstance(model, SSANet)
    forward = nnx.jit(lambda model, images: model(images).logits)
    assert forward(model, np.zeros((1, SIDE, SIDE, 3), np.uint8)).shape == (1, 3)
    with pytest.raises(UserError, match='resnet18'):
        ssanet_jax.create_model('vgg', num_classes=3)
    with pytest.raises(UserError, match='weights file nowhere.pth does not exist'):
        ssanet_jax.create_model('resnet18', num_classes=3, image_size=SIDE, pretrained='nowhere.pth')
    with pytest.raises(UserError, match='num_partz'):
        ssanet_jax.create_model('resnet_tiny', num_classes=3, num_partz=3)


def test_create_model_with_another_normalization():
    mean, std = (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)
    model = ssanet_jax.create_model('resnet_tiny', num_classes=3, image_size=SIDE, num_parts=2, mean=mean, std=std)
    assert (model.mean, model.std) == (mean, std)
    model = ssanet_jax.create_model('resnet_tiny', num_classes=3, image_size=SIDE, num_parts=2, mean=mean, std=None)
    assert (model.mean, model.std) == (mean, model.backbone.std)


def test_list_backbones():
    assert {'resnet50', 'efficientnet_lite0', 'convnext_tiny'} <= set(ssanet_jax.list_backbones())


def test_stable_names():
    from ssanet_jax import losses, parallel

    assert losses is sys.modules['ssanet_jax.models.losses'] and callable(losses.mac_loss)
    assert callable(parallel.candidate_map)
    assert {'load', 'create_model', 'list_backbones', 'losses', 'parallel', '__version__'} <= set(dir(ssanet_jax))
    with pytest.raises(AttributeError, match='nowhere'):
        ssanet_jax.nowhere  # noqa: B018


def test_importing_the_package_imports_no_jax():
    program = 'import sys, ssanet_jax; print(any(name.partition(".")[0] in ("jax", "flax") for name in sys.modules))'
    done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == 'False', done.stderr


@pytest.mark.slow
def test_load(finished_run):
    model = ssanet_jax.load(finished_run.workdir)
    test = load_dataset(model.config.data).test
    predictions = list(model.predict(test[i]['image'] for i in range(len(test))))
    right = [one.class_index == label for one, label in zip(predictions, test.labels, strict=True)]
    assert f'accuracy {np.mean(right):.4f} on {len(test)} images' == finished_run.stdout.splitlines()[-1]
    assert predictions[0].label in model.class_names and model.config.data.image_size == 64
    with pytest.raises(UserError, match='holds no run'):
        ssanet_jax.load(Path('nowhere'))
