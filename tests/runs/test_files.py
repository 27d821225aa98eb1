"""Atomic file writes: a full disk, a killed process, and paths where no file can be."""

import importlib
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from commands import ROOT

from ssanet_jax.cli import check_out, write_out
from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.atomic_files import write_atomically
from ssanet_jax.runs import config_fields, run
from ssanet_jax.runs.aliases import OLD_VALUES
from ssanet_jax.runs.config_fields import find_damage
from ssanet_jax.runs.files import read_run, write_arrays
from ssanet_jax.runs.preprocessing import recorded_preprocessing
from ssanet_jax.runs.results import RunEvaluation, StageResult, read_result

# Overwrites a file forever with one of two texts.
WRITER = """
import itertools, sys
from pathlib import Path
from ssanet_jax.filesystem.atomic_files import write_atomically
for letter in itertools.cycle('ab'):
    write_atomically(Path(sys.argv[1]), letter * 2_000_000)
"""


def test_a_full_disk_leaves_the_earlier_file(tmp_path, monkeypatch):
    out = tmp_path / 'report.html'
    write_out(out, 'first')
    assert out.read_text() == 'first'

    def full(descriptor):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('os.fsync', full)
    with pytest.raises(UserError, match=r'cannot write .*report.html \(No space left on device\): free some space'):
        write_out(out, 'second')
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ['report.html'] and out.read_text() == 'first'


def test_arrays_are_read_back(tmp_path):
    arrays = {'parts/distance': np.array([[1.5, np.nan, np.inf]], np.float32), 'index': np.arange(3)}
    write_arrays(tmp_path / 'folder/arrays.npz', arrays)
    with np.load(tmp_path / 'folder/arrays.npz') as read:
        assert set(read) == set(arrays)
        for name, array in arrays.items():
            assert read[name].dtype == array.dtype
            np.testing.assert_array_equal(read[name], array)
    assert [path.name for path in (tmp_path / 'folder').iterdir()] == ['arrays.npz']
    (tmp_path / 'other').write_text('')
    with pytest.raises(UserError, match='cannot write .*arrays.npz'):
        write_arrays(tmp_path / 'other/arrays.npz', arrays)


def test_readers_and_a_kill_find_whole_files(tmp_path):
    file = tmp_path / 'folder/file'
    write_atomically(file, 'c')
    seen = []
    for _ in range(3):
        process = subprocess.Popen([sys.executable, '-c', WRITER, file], cwd=ROOT)
        until = time.monotonic() + 30
        while file.read_text() in ('c', *seen[-1:]) and time.monotonic() < until:
            time.sleep(0.01)
        for _ in range(30):
            seen.append(file.read_text())
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen.append(file.read_text())
    assert {(len(text), *set(text)) for text in seen} == {(2_000_000, 'a'), (2_000_000, 'b')}


def test_paths_where_no_file_can_be(tmp_path):
    taken = tmp_path / 'taken'
    taken.write_text('text')
    with pytest.raises(UserError, match='is a folder: give the name of a file'):
        check_out(tmp_path)
    for function in (check_out, lambda out: write_out(out, 'text')):
        with pytest.raises(
            UserError, match=r'cannot write .*taken/page \(.*\): free some space, or give another --out'
        ):
            function(taken / 'page')
    check_out(tmp_path / 'new/page')
    assert [path.name for path in (tmp_path / 'new').iterdir()] == [] and taken.read_text() == 'text'


CONFIG = {'data': {}, 'model': {'backbone': 'resnet_tiny'}, 'stages': [{'name': 'one'}]}


def write_config(workdir, config):
    (workdir / 'config.json').write_text(json.dumps({'config': config, 'class_names': ['a'], 'images': ''}))


@pytest.mark.parametrize(
    'damage, words',
    [
        ({'stages': [1]}, 'it holds no configuration'),
        ({'stages': {}}, 'it holds no configuration'),
        ({'stages': [{}]}, 'config.stages lacks names'),
        ({'stages': []}, 'config.stages lacks names'),
        ({'stages': [{'name': '../other'}]}, "config.stages[0].name='../other'"),
        ({'stages': [{'name': 'one', 'train': {'backbone': 'x'}}]}, "config.stages[0].train={'backbone': 'x'}"),
        ({'data': None}, 'it holds no configuration'),
        ({'data': {'dir': [[]]}}, 'config.data.dir=[[]]'),
        ({'data': {'image_size': '64'}}, "config.data.image_size='64'"),
        ({'data': {'mean': [1, float('nan'), 3]}}, 'config.data.mean=[1, nan, 3]'),
        ({'data': {'__class__': 'x'}}, "config.data.__class__='x'"),
        ({'mesh': []}, 'it holds no configuration'),
        ({'model': {}}, 'config.model has no backbone'),
        ({'model': {'backbone': None}}, 'config.model.backbone=None'),
        ({'model': {'backbone': 'resnet_tiny', 'num_parts': 10**30}}, f'config.model.num_parts={10**30}'),
        ({'model': {'backbone': 'resnet_tiny', 'dilate': []}}, 'dilate=[] must be true or false'),
        ({'model': 'resnet_tiny'}, 'it holds no configuration'),
        ({'seed': -1}, 'config.seed=-1'),
    ],
    ids=str,
)
def test_a_damaged_config_is_one_line(damage, words, tmp_path):
    write_config(tmp_path, CONFIG)
    assert read_run(tmp_path)['config'] == CONFIG | {'model': OLD_VALUES['model'] | CONFIG['model']}
    write_config(tmp_path, CONFIG | damage)
    with pytest.raises(UserError) as caught:
        read_run(tmp_path)
    message = str(caught.value)
    assert words in message and '\n' not in message
    assert 'must be' in words or ('config.json is damaged' in message and ': restore it' in message)


@pytest.mark.parametrize('names', [None, 'ab', [1], {'a': 1}], ids=str)
def test_class_names_are_names(names, tmp_path):
    (tmp_path / 'config.json').write_text(json.dumps({'config': CONFIG, 'class_names': names, 'images': ''}))
    with pytest.raises(UserError, match='config.json is damaged, it holds no class names: restore it'):
        read_run(tmp_path)


@pytest.mark.parametrize('name', ['demo', 'cub', 'cars', 'aircraft', 'folder', 'common'])
def test_what_the_shipped_configurations_record_is_no_damage(name, tmp_path):
    module = importlib.import_module(f'configs.{name}')
    variants = ['paper', 'lite0', 'ablation', 'upright', 'joint', 'fast'] if name != 'common' else []
    for variant in [None, *variants]:
        try:
            config = module.get_config(*([variant] if variant else []))
        except UserError:  # it has no such variant
            continue
        config.data.update(mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 3.0))
        recorded = json.loads(config.to_json_best_effort())
        assert find_damage(recorded) == ''
        covered = {f'{s}.{f}' for s, fields in config_fields._SECTIONS.items() for f in fields}
        listed = {f'{s}.{f}' for s in config_fields._SECTIONS for f in recorded[s]}
        assert listed <= covered, 'name the kind of new fields in runs/config_fields.py'
        assert {field for stage in recorded['stages'] for field in stage} <= set(config_fields._STAGE)


RESULT = dict(accuracy=0.5, examples=4, heads={'sum': 0.5}, unreadable=[], stage='one', dataset='birds')


@pytest.mark.parametrize(
    'damage, words',
    [
        ({'accuracy': '0.5'}, 'accuracy is not of its kind'),
        ({'accuracy': [0.5]}, 'accuracy is not of its kind'),
        ({'accuracy': float('nan')}, 'accuracy is not of its kind'),
        ({'accuracy': 50.0}, 'the accuracy is 50.0'),
        ({'examples': 4.5}, 'examples is not of its kind'),
        ({'examples': True}, 'examples is not of its kind'),
        ({'heads': {'sum': None}}, 'heads is not of its kind'),
        ({'heads': [0.5]}, 'heads is not of its kind'),
        ({'unreadable': 'a.jpg'}, 'unreadable is not of its kind'),
        ({'stage': None}, 'stage is not of its kind'),
    ],
    ids=str,
)
def test_results_of_another_kind_are_damaged(damage, words, tmp_path):
    path = tmp_path / 'test.json'
    path.write_text(json.dumps(RESULT | {'later': 1}))
    assert read_result(path, RunEvaluation, 'cure').accuracy == 0.5
    path.write_text(json.dumps(RESULT | damage))
    with pytest.raises(UserError, match=f'test.json is damaged, {words}: cure'):
        read_result(path, RunEvaluation, 'cure')


def test_the_preprocessing_of_early_runs_is_filled_in(tmp_path, monkeypatch):
    """They did not record how images are resized and normalized."""
    write_config(tmp_path, CONFIG)
    monkeypatch.setattr(run, 'stage_steps', lambda workdir, stage: [1])
    built = []

    def build_model(config, *_, **__):
        built.append(config)
        raise UserError('stop here')

    monkeypatch.setattr(run, 'build_model', build_model)
    with pytest.raises(UserError, match='stop here'):
        run.load_run(tmp_path)
    recorded = recorded_preprocessing(CONFIG)
    assert built[0].data.interpolation == recorded.interpolation
    assert (tuple(built[0].data.mean), tuple(built[0].data.std)) == (recorded.mean, recorded.std)


def test_stage_results_of_early_versions_are_read(tmp_path):
    """They had only test images, of which all had to be readable."""
    content = {'accuracy': 0.5, 'examples': 2, 'heads': {}, 'epochs': 1, 'steps': 3, 'wall_seconds': 1.0}
    path = tmp_path / 'evaluation.json'
    path.write_text(json.dumps(content))
    expected = StageResult(**content, step=3, stage='', split='test', unreadable=[])
    assert read_result(path, StageResult, 'train again') == expected
    path.write_text(json.dumps({**expected.to_dict(), 'split': 'validation', 'step': 2}))
    found = read_result(path, StageResult, 'train again')
    assert (found.split, found.step) == ('validation', 2)
    del content['steps']
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match='evaluation.json is damaged, a field is missing: train again'):
        read_result(path, StageResult, 'train again')


@pytest.mark.parametrize('section, name', [(None, 'seed'), ('data', 'image_size'), ('model', 'pretrained')])
def test_a_run_whose_settings_are_incomplete_is_not_loaded(section, name, tmp_path, monkeypatch):
    config = json.loads(importlib.import_module('configs.demo').get_config().to_json_best_effort())
    del (config[section] if section else config)[name]
    write_config(tmp_path, config)
    monkeypatch.setattr(run, 'stage_steps', lambda workdir, stage: [1])
    with pytest.raises(UserError, match=f'config.json is damaged, it lacks {name}: restore it'):
        run.load_run(tmp_path)
