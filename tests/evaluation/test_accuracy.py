"""Accuracy of each head and of their sum against NumPy: every image is counted once, padding never."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from ml_collections import ConfigDict
from scipy.special import log_softmax

from ssanet_jax.data.pipeline import eval_batches
from ssanet_jax.distributed import sharding
from ssanet_jax.errors import UnreadableImage
from ssanet_jax.evaluation import accuracy
from ssanet_jax.models.groups import GROUPS
from ssanet_jax.models.outputs import Outputs
from ssanet_jax.models.ssanet import split_model

COUNT, CLASSES, SIDE, SIZE = 30, 5, 4, 8
DATA = ConfigDict(
    dict(
        eval_batch_size=SIZE,
        resize=SIDE,
        image_size=SIDE,
        interpolation='bilinear',
        scale_min=1.0,
        color_jitter=0.0,
        random_erasing=0.0,
        num_workers=1,
        prefetch=1,
    )
)


class Heads(nnx.Module):
    """Three linear classifiers of the raw pixels, in the place of the network."""

    def __init__(self, rngs: nnx.Rngs):
        self.weights = nnx.Param(jax.random.normal(rngs.params(), (3, SIDE * SIDE * 3, CLASSES)))
        self.norm = nnx.BatchNorm(SIDE * SIDE * 3, rngs=rngs)  # at its running statistics, 0 and 1, it changes nothing

    def __call__(self, images, *, active=GROUPS, training=False, map_candidates=None):
        flat = self.norm(images.reshape(len(images), -1).astype(jnp.float32) - 128)
        image, scale, oriented = jnp.einsum('bd,hdn->hbn', flat, self.weights[...])
        return Outputs(
            image,
            scale_logits=scale if 'scale_mining' in active else None,
            oriented_logits=oriented if 'oriented_pooling' in active else None,
        )


class Pixels:
    """Random images; the last is classified correctly, so that counting its padding would change the result."""

    def __init__(self, logits_of, labels=None):
        random = np.random.default_rng(0)
        self.images = random.integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8)
        self.logits = logits_of(self.images)  # [3, COUNT, CLASSES]
        self.labels = random.integers(0, CLASSES, COUNT) if labels is None else np.full(COUNT, labels)
        if labels is None:
            self.labels[-1] = (self.logits[1] + self.logits[2])[-1].argmax()
        self.reads = np.zeros(COUNT, int)
        self.broken = ()

    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        self.reads[index] += 1
        if index in self.broken:
            raise UnreadableImage(f'{index} cannot be read')
        return {'image': self.images[index], 'label': np.int32(self.labels[index]), 'file': f'{index}'}


@pytest.fixture(scope='module')
def model():
    return Heads(nnx.Rngs(0))


@pytest.fixture(scope='module')
def logits_of(model):
    weights = np.array(model.weights[...], np.float64)
    return lambda images: np.einsum('bd,hdn->hbn', images.reshape(len(images), -1) - 128.0, weights)


def run(model, source, active=GROUPS, data=DATA):
    mesh = sharding.make_mesh(jax.devices()[:1])
    _, params, stats = split_model(model)
    params, stats = sharding.replicate((params, stats), mesh)
    classify = accuracy.make_classify(model, active, mesh)
    return accuracy.evaluate(classify, params, stats, eval_batches(source, data), mesh)


def test_heads_and_sum_by_hand(model, logits_of):
    source = Pixels(logits_of)
    image, scale, oriented = source.logits
    right = lambda logits: (logits.argmax(-1) == source.labels).mean()
    result = run(model, source)
    assert result.examples == COUNT
    assert result.accuracy == pytest.approx(right(scale + oriented))
    expected = {'image_classifier': right(image), 'scale_mining': right(scale), 'oriented_pooling': right(oriented)}
    assert result.heads == pytest.approx(expected)
    assert len({result.accuracy, *result.heads.values()}) > 2  # the heads differ here
    np.testing.assert_array_equal(source.reads, 1)


@pytest.mark.parametrize(
    'active, heads',
    [
        ({'backbone', 'image_classifier'}, (0,)),
        ({'scale_mining'}, (1,)),
        ({'oriented_pooling'}, (2,)),
        (GROUPS, (1, 2)),
    ],
)
def test_the_prediction_is_the_sum_of_what_is_active(model, logits_of, active, heads):
    source = Pixels(logits_of)
    expected = (sum(source.logits[i] for i in heads).argmax(-1) == source.labels).mean()
    result = run(model, source, active)
    assert result.accuracy == pytest.approx(expected)
    assert result.heads.keys() == {'image_classifier', 'scale_mining', 'oriented_pooling'} & (
        {'image_classifier'} | set(active)
    )


@pytest.mark.parametrize('size', [1, 7, 30, 64])
def test_the_batch_size_has_no_effect(model, logits_of, size):
    source = Pixels(logits_of)
    data = ConfigDict(DATA.to_dict() | {'eval_batch_size': size})
    result, expected = run(model, source, data=data), run(model, source)
    assert result == expected
    for head, classes in expected.images.classes.items():
        np.testing.assert_array_equal(result.images.classes[head], classes)


def test_every_image_by_hand(model, logits_of):
    """Classes and log-probabilities of the labels, in the order of the set."""
    source = Pixels(logits_of)
    source.broken = (3, COUNT - 1)
    image, scale, oriented = source.logits
    logits = {'image_classifier': image, 'scale_mining': scale, 'oriented_pooling': oriented, 'sum': scale + oriented}
    images = run(model, source).images
    readable = ~np.isin(np.arange(COUNT), source.broken)
    np.testing.assert_array_equal(images.labels, source.labels)
    np.testing.assert_array_equal(images.unreadable, ~readable)
    assert images.classes.keys() == images.log_probabilities.keys() == logits.keys()
    for head, values in logits.items():
        np.testing.assert_array_equal(images.classes[head], np.where(readable, values.argmax(-1), -1))
        expected = log_softmax(values, axis=-1)[np.arange(COUNT), source.labels]
        found = images.log_probabilities[head]
        np.testing.assert_allclose(found[readable], expected[readable], rtol=1e-4, atol=1e-3)
        assert np.isnan(found[~readable]).all()
        np.testing.assert_array_equal(images.correct(head), (values.argmax(-1) == source.labels) & readable)


def test_the_order_of_the_batches_has_no_effect(model, logits_of):
    """Each of several processes has its own share of a batch."""
    source = Pixels(logits_of)
    mesh = sharding.make_mesh(jax.devices()[:1])
    _, params, stats = split_model(model)
    classify = accuracy.make_classify(model, GROUPS, mesh)
    batches = list(eval_batches(source, DATA))
    mixed = [{name: value[::-1] for name, value in batch.items()} for batch in batches[::-1]]
    result, expected = (accuracy.evaluate(classify, params, stats, some, mesh) for some in (mixed, batches))
    assert result == expected
    np.testing.assert_array_equal(result.images.labels, source.labels)
    np.testing.assert_array_equal(result.images.classes['sum'], expected.images.classes['sum'])


def test_the_prediction_does_not_see_the_label(model, logits_of):
    """Each image is right for exactly one label: over all constant labels the accuracies sum to one."""
    results = [run(model, Pixels(logits_of, label)) for label in range(CLASSES)]
    assert sum(result.accuracy for result in results) == pytest.approx(1)
    for head in results[0].heads:
        assert sum(result.heads[head] for result in results) == pytest.approx(1)


def test_an_unreadable_image_counts_as_wrong(model, logits_of):
    source = Pixels(logits_of)
    black = (model(jnp.zeros((1, SIDE, SIDE, 3), jnp.uint8)).logits).argmax()
    right = (source.logits[1] + source.logits[2]).argmax(-1) == source.labels
    source.broken = (4, int(np.flatnonzero(right)[0]))
    source.labels[4] = black  # the prediction for the black image in its place
    right[list(source.broken)] = False
    result = run(model, source)
    assert result.accuracy == pytest.approx(right.mean()) and result.examples == COUNT
    assert result.unreadable == sorted(source.broken)
