"""Predictions for images that a network was not trained on, from folds and from validation images."""

import logging

import numpy as np
import pytest
import scipy.special
from damages import DAMAGES
from rich.console import Console
from test_fitting import fit_config

from ssanet_jax.data.registry import load_dataset
from ssanet_jax.predictor import Predictor
from ssanet_jax.runs.held_out import HELD_OUT_FILE, read_held_out
from ssanet_jax.runs.run import load_run
from ssanet_jax.training.stages import stage
from ssanet_jax.training.train import train


def run(config, workdir):
    train(config, workdir, Console(quiet=True))
    return load_run(workdir)


@pytest.fixture(scope='module')
def fitted(tmp_path_factory):
    from tiny_config import get_config

    config, workdir = fit_config(get_config()), tmp_path_factory.mktemp('fit') / 'run'
    return config, workdir, run(config, workdir)


@pytest.fixture(scope='module')
def validated(tmp_path_factory):
    from tiny_config import get_config

    config, workdir = get_config(), tmp_path_factory.mktemp('validated') / 'run'
    config.data.validation = 0.4
    config.stages = (stage('only', epochs=1, learning_rate=0.01, train=dict(backbone=1, image_classifier=1)),)
    return config, workdir, run(config, workdir)


def predictions(config, found, source):
    """The predictor's, without its calibration."""
    predictor = Predictor(found.model, found.active, found.config, found.class_names)
    return list(predictor.predict([source[i]['image'] for i in range(len(source))]))


def test_folds_give_each_training_image_once(fitted):
    config, _, found = fitted
    labels = load_dataset(config.data).train.labels
    assert found.held_out.split == 'train'
    np.testing.assert_array_equal(found.held_out.images, np.arange(len(labels)))
    np.testing.assert_array_equal(found.held_out.labels, labels)
    np.testing.assert_allclose(scipy.special.logsumexp(found.held_out.log_probabilities, -1), 0, atol=0.01)


def test_folds_are_worse_than_classifiers_that_have_seen_the_images(fitted):
    """A random backbone says little, and 62 images are easily learned by heart."""
    config, _, found = fitted
    source = load_dataset(config.data).train
    seen = np.mean([each.class_index == source.labels[i] for i, each in enumerate(predictions(config, found, source))])
    held_out = (found.held_out.log_probabilities.argmax(-1) == found.held_out.labels).mean()
    assert held_out < seen - 0.2


def test_the_weights_of_the_sum_leave_little_to_calibrate(fitted):
    """The weights are fitted to the same folds, but to all views of an image instead of the first one."""
    held_out = fitted[2].held_out

    def cross_entropy(temperature):
        log_probabilities = scipy.special.log_softmax(held_out.log_probabilities / temperature, -1)
        return -log_probabilities[np.arange(len(held_out.labels)), held_out.labels].mean()

    gain = cross_entropy(1) - cross_entropy(held_out.temperature)
    assert -1e-6 < gain < 0.05  # of log(16) = 2.77
    assert cross_entropy(3) - cross_entropy(1) > gain


def test_validation_images_are_predicted_by_the_selected_network(validated):
    config, _, found = validated
    source = load_dataset(config.data).validation
    assert found.held_out.split == 'validation'
    np.testing.assert_array_equal(found.held_out.images, np.arange(len(source)))
    np.testing.assert_array_equal(found.held_out.labels, source.labels)
    expected = np.stack([each.probabilities for each in predictions(config, found, source)])
    np.testing.assert_allclose(np.exp(found.held_out.log_probabilities.astype(float)), expected, atol=2e-3)


def test_the_temperature_is_the_best_of_a_grid(validated):
    found = validated[2].held_out
    scores, rows = found.log_probabilities.astype(np.float64), np.arange(len(found.labels))
    loss = lambda t: -scipy.special.log_softmax(scores / t, -1)[rows, found.labels].mean()
    assert loss(found.temperature) <= min(loss(t) for t in np.geomspace(0.1, 100, 200)) + 1e-6


def test_probabilities_are_calibrated(validated):
    config, _, found = validated
    source = load_dataset(config.data).test
    image = source[0]['image']
    [calibrated] = Predictor.from_run(found).predict([image])
    [plain] = predictions(config, found, [source[0]])
    expected = scipy.special.softmax(np.log(plain.probabilities) / found.held_out.temperature)
    np.testing.assert_allclose(calibrated.probabilities, expected, rtol=1e-4)
    assert calibrated.label == plain.label and plain.novelty is None and plain.unsure == '' and plain.trust() == {}


def test_the_same_command_again_predicts_no_more(validated, monkeypatch):
    from ssanet_jax.training import held_out

    config, workdir, _ = validated
    monkeypatch.setattr(held_out, 'make_predict', None)
    before = (workdir / 'only' / HELD_OUT_FILE).read_bytes()
    run(config, workdir)
    assert (workdir / 'only' / HELD_OUT_FILE).read_bytes() == before


@pytest.mark.parametrize('damage', ['missing', 'garbage'])
def test_a_lost_file_is_written_again(validated, damage):
    config, workdir, _ = validated
    path = workdir / 'only' / HELD_OUT_FILE
    before = path.read_bytes()
    DAMAGES[damage](path)
    run(config, workdir)
    np.testing.assert_array_equal(read_held_out(path, 16).log_probabilities, validated[2].held_out.log_probabilities)
    path.write_bytes(before)


def test_a_run_can_do_without(fitted, caplog):
    workdir = fitted[1]
    path = workdir / 'fit' / HELD_OUT_FILE
    before = path.read_bytes()
    path.write_bytes(before[:100])
    with caplog.at_level(logging.WARNING):
        found = load_run(workdir)
    path.write_bytes(before)
    assert found.held_out is None
    [said] = [message for message in caplog.messages if HELD_OUT_FILE in message]
    assert said.endswith('probabilities are not calibrated, and strangers not told from known classes')


def test_novelty_comes_with_each_prediction(fitted):
    config, _, found = fitted
    source = load_dataset(config.data).test
    predictor = Predictor.from_run(found)
    known = list(predictor.predict([source[i]['image'] for i in range(len(source))]))
    assert all(0 <= each.novelty <= 1 and each.trust().keys() == {'novelty', 'unsure'} for each in known)
    assert all(bool(each.unsure) == (each.novelty >= 0.95 or each.score < 0.5) for each in known)


def test_the_same_weights_give_the_same_file(fitted, tmp_path):
    config, workdir, _ = fitted
    run(config, tmp_path / 'run')
    same = [(folder / 'fit' / HELD_OUT_FILE).read_bytes() for folder in (workdir, tmp_path / 'run')]
    assert same[0] == same[1]
