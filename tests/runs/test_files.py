"""Atomic file writes: a full disk, a killed process, and paths where no file can be."""

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
from ssanet_jax.runs import run
from ssanet_jax.runs.aliases import OLD_VALUES
from ssanet_jax.runs.files import read_run, write_arrays, write_atomically
from ssanet_jax.runs.preprocessing import recorded_preprocessing
from ssanet_jax.runs.results import StageResult, read_result

# Overwrites a file forever with one of two texts.
WRITER = """
import itertools, sys
from pathlib import Path
from ssanet_jax.runs.files import write_atomically
for letter in itertools.cycle('ab'):
    write_atomically(Path(sys.argv[1]), letter * 2_000_000)
"""


def test_a_full_disk_leaves_the_earlier_file(tmp_path, monkeypatch):
    out = tmp_path / 'report.html'
    write_out(out, 'first')
    assert out.read_text() == 'first'

    def full(self, *arguments, **options):
        self.touch()
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(type(out), 'write_text', full)
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
    'damage',
    [
        {'stages': [1]},
        {'stages': {}},
        {'stages': [{}]},
        {'data': None},
        {'mesh': []},
        {'model': {}},
        {'model': {'backbone': None}},
        {'model': 'resnet_tiny'},
    ],
    ids=str,
)
def test_a_damaged_config_is_one_line(damage, tmp_path):
    write_config(tmp_path, CONFIG)
    assert read_run(tmp_path)['config'] == CONFIG | {'model': OLD_VALUES['model'] | CONFIG['model']}
    write_config(tmp_path, CONFIG | damage)
    with pytest.raises(UserError, match=r'config.json is damaged, it holds no configuration: restore it'):
        read_run(tmp_path)


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
    expected = StageResult(**content, step=3, split='test', unreadable=[])
    assert read_result(path, StageResult, 'train again') == expected
    path.write_text(json.dumps({**expected.to_dict(), 'split': 'validation', 'step': 2}))
    found = read_result(path, StageResult, 'train again')
    assert (found.split, found.step) == ('validation', 2)
    del content['steps']
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match='evaluation.json is damaged, a field is missing: train again'):
        read_result(path, StageResult, 'train again')
