"""Old names of fields keep working: in the runs of version 0.1.0, on command lines, in config files and stages."""

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT
from ml_collections import ConfigDict
from rich.console import Console

from configs import common
from ssanet_jax.data.registry import load_dataset
from ssanet_jax.errors import UserError
from ssanet_jax.predictor import Predictor
from ssanet_jax.runs.aliases import FIELDS, STAGE_FIELDS, rename_fields, upgrade_arguments, upgrade_config
from ssanet_jax.runs.files import read_run
from ssanet_jax.runs.run import load_run
from ssanet_jax.training.evaluate import evaluate_run
from ssanet_jax.training.stages import stage

QUIET = Console(quiet=True)


@pytest.fixture
def old_run(tmp_path):
    """(work directory, what it must give) of a run that version 0.1.0 left in the middle of its second stage."""
    with tarfile.open(Path(__file__).with_name('workdir_0_1_0.tar.gz')) as archive:
        archive.extractall(tmp_path, filter='data')
    return tmp_path / 'run', json.loads((tmp_path / 'expected.json').read_text())


def test_an_old_config_has_todays_fields(old_run):
    written = json.loads((old_run[0] / 'config.json').read_text())['config']
    assert written['model']['parts'] == 2 and written['stages'][0]['statistics'] == 'batch'  # the old names
    read = read_run(old_run[0])['config']
    for section, aliases in FIELDS.items():
        assert not aliases.keys() & read[section].keys()
    assert read['model']['num_parts'] == 2 and read['model']['output_stride'] == 0
    assert 'geometry' not in written['model'] and read['model']['geometry'] == 'legacy'
    assert read['data']['num_workers'] == 1 and read['mesh']['shard_heads'] is False
    assert read['stages'][0]['learning_rate'] == 0.05 and read['stages'][0]['freeze_batch_norm'] is False
    assert upgrade_config(read) == read


@pytest.mark.slow
def test_an_old_run_gives_the_same_answers(old_run):
    workdir, expected = old_run
    run = load_run(workdir)
    evaluation = evaluate_run(run.config, workdir, QUIET).to_dict()
    assert {name: evaluation[name] for name in expected['evaluation']} == expected['evaluation']
    test = load_dataset(run.config.data).test
    found = list(Predictor.from_run(run).predict([test[i]['image'] for i in range(len(test))]))
    np.testing.assert_allclose([one.probabilities for one in found], expected['probabilities'], atol=1e-4)
    np.testing.assert_allclose([one.input_boxes for one in found], expected['boxes'], atol=1e-2)


@pytest.mark.slow
def test_an_old_run_goes_on_with_the_old_command_line(old_run):
    workdir, expected = old_run
    overrides = ['data.train_count=16', 'data.test_count=8', 'checkpoint_steps=1', 'data.threads=1', 'model.parts=2']
    overrides += ['stages[0].epochs=1', 'stages[0].milestones=()', 'stages[1].epochs=2', 'stages[0].rate=0.05']
    program = 'import sys\nfrom configs import common\nsys.path.insert(0, "tests")\nimport tiny_config\n'
    config = workdir.parent / 'two_stages.py'
    config.write_text(
        f'{program}def get_config():\n    config = tiny_config.get_config()\n'
        '    config.stages = config.stages[:2]\n    return config\n'
    )
    command = [sys.executable, '-m', 'ssanet_jax.main', f'--config={config}', f'--workdir={workdir}']
    command += [f'--config.{override}' for override in overrides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'going on from step 2 of 4' in done.stderr
    results = json.loads((workdir / 'results.json').read_text())
    assert {name: results[name] for name in expected['finished']} == expected['finished']
    lines = [json.loads(line) for line in (workdir / 'oriented_pooling/history.jsonl').read_text().splitlines()]
    losses = [line['values']['loss/total'] for line in lines if line['kind'] == 'epoch']
    np.testing.assert_allclose(losses, expected['losses'], rtol=1e-4)


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        ('--config.data.jitter=0.2', '--config.data.color_jitter=0.2'),
        ('--config.stages[1].rate=1e-3', '--config.stages[1].learning_rate=1e-3'),
        ('--config.stages[-1].statistics=running', '--config.stages[-1].freeze_batch_norm=True'),
        ('--config.stages[0].statistics=batch', '--config.stages[0].freeze_batch_norm=False'),
        ('--config.model.dilate', '--config.model.output_stride=16'),
        ('--config.model.dilate=False', '--config.model.output_stride=0'),
        ('--noconfig.model.dilate', '--config.model.output_stride=0'),
        ('-config.model.parts=3', '-config.model.num_parts=3'),
        ('--config.model.num_parts=3', '--config.model.num_parts=3'),
        ('--config.loss.weights.parts=3', '--config.loss.weights.parts=3'),
        ('--config.stages[0].train.proposals=1', '--config.stages[0].train.proposals=1'),
        ('parts', 'parts'),
        ('--config.stages[0].statistics running', '--config.stages[0].freeze_batch_norm=True'),
        ('--config.data.jitter 0.2', '--config.data.color_jitter 0.2'),
        ('--config.model.dilate parts', '--config.model.output_stride=16 parts'),
        (
            '--config.model.backbone=resnet_tiny --config.model.dilate',
            '--config.model.backbone=resnet_tiny --config.model.output_stride=4',
        ),
        (
            '--config.model.dilate=yes --config.model.backbone resnet_tiny',
            '--config.model.output_stride=4 --config.model.backbone resnet_tiny',
        ),
    ],
)
def test_command_lines(old, new):
    assert upgrade_arguments(old.split(), lambda: {'model': {'backbone': 'resnet50'}}) == new.split()


@pytest.mark.parametrize(
    ('argument', 'message'),
    [
        ('--config.stages[0].statistics=runing', r'config.stages\[0\].statistics=runing must be batch or running'),
        ('--noconfig.stages[0].statistics', r'statistics has no value'),
        ('--config.stages[0].statistics', r'--config.stages\[0\].statistics has no value'),
        ('--config.model.dilate=ture', 'config.model.dilate=ture must be true or false'),
    ],
)
def test_wrong_values_of_old_fields_are_refused(argument, message):
    with pytest.raises(UserError, match=message):
        upgrade_arguments([argument], lambda: {'model': {'backbone': 'resnet50'}})


def test_wrong_values_in_config_files_are_refused():
    with pytest.raises(UserError, match="stage.'one'..statistics=runing must be batch or running"):
        stage('one', epochs=1, rate=0.1, train=dict(backbone=1), statistics='runing')
    with pytest.raises(UserError, match='config.model.dilate=ture must be true or false'):
        upgrade_config({'model': {'dilate': 'ture', 'backbone': 'resnet50'}})
    config = ConfigDict({'model': {'dilate': 'ture', 'backbone': 'resnet50'}})
    with pytest.raises(UserError, match='config.model.dilate=ture must be true or false'):
        rename_fields(config, [])


def test_both_names_at_once_are_refused():
    with pytest.raises(UserError, match='config.model has parts and num_parts'):
        upgrade_config({'model': {'parts': 3, 'num_parts': 4, 'backbone': 'resnet50'}})


def test_stages_take_old_names():
    old = stage('one', epochs=1, rate=0.1, train=dict(backbone=1), statistics='running')
    assert old == stage('one', epochs=1, learning_rate=0.1, train=dict(backbone=1), freeze_batch_norm=True)
    with pytest.raises(UserError, match="stage.'one'. has rate and learning_rate"):
        stage('one', epochs=1, rate=0.1, learning_rate=0.1, train=dict(backbone=1))
    with pytest.raises(TypeError, match='learning_rate is missing'):
        stage('one', epochs=1, train=dict(backbone=1))
    with pytest.raises(TypeError, match='unknown arguments speed'):
        stage('one', epochs=1, learning_rate=1, speed=2, train=dict(backbone=1))
    assert {alias.name for alias in STAGE_FIELDS.values()} <= set(old)


@pytest.mark.parametrize(
    ('table', 'old', 'new'),
    [
        (common.joint, {'rate': 0.1}, {'learning_rate': 0.1}),
        (common.global_pooling, {'rate': 0.1}, {'learning_rate': 0.1}),
        (
            common.three_stages,
            {'rate': 0.1, 'tune_rate': 0.2},
            {'learning_rate': 0.1, 'tune_learning_rate': 0.2},
        ),
        (common.ablation, {'rates': (0.1, 0.2, 0.3)}, {'learning_rates': (0.1, 0.2, 0.3)}),
    ],
)
def test_tables_of_stages_take_old_names(table, old, new):
    assert table(**old, statistics='running') == table(**new, freeze_batch_norm=True)
    with pytest.raises(TypeError, match='the old and the new name: keep one'):
        table(**old, **new)


def test_a_config_file_may_use_old_names(tmp_path):
    """Such a file sets the old field beside today's, which common.get_config() has."""
    file = tmp_path / 'mine.py'
    file.write_text(
        'from configs import demo\ndef get_config():\n    config = demo.get_config()\n'
        '    config.data.jitter, config.model.parts = 0.25, 3\n    return config\n'
    )
    program = (
        'import sys\nfrom ml_collections import config_flags\nfrom ssanet_jax import cli\n'
        "config = config_flags.DEFINE_config_file('config', None, lock_config=True)\n"
        'cli.run(lambda: print(config.value.data.color_jitter, config.value.model.num_parts, '
        "'jitter' in config.value.data))"
    )
    command = [sys.executable, '-c', program, f'--config={file}', '--config.model.num_parts=5']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == '0.25 5 False\n', done.stderr


@pytest.mark.parametrize('path', ['stages[1]', 'stages[-1]'])
def test_stages_of_a_config_file_may_use_old_names(path):
    new = lambda: stage('one', epochs=1, learning_rate=0.1, train=dict(backbone=1))
    config = ConfigDict({'stages': (new(), new())})
    for one in config.stages:
        one.rate, one.statistics = 1e-4, 'running'
    config.lock()
    rename_fields(config, [f'{path}.learning_rate', 'stages[0].epochs'])
    assert [one.learning_rate for one in config.stages] == [1e-4, 0.1]  # the override of the second one wins
    assert all(one.freeze_batch_norm and one.keys() == new().keys() for one in config.stages)
