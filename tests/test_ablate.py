"""The ablate command, on the tiny configuration."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, run_each

from ssanet_jax.runs.image_predictions import read_predictions
from ssanet_jax.runs.json_checksums import remove_checksum
from ssanet_jax.runs.workdir import lock_workdir

CONFIG = Path(__file__).with_name('tiny_config.py')


def command(*arguments):
    return [sys.executable, '-m', 'ssanet_jax.ablate', f'--config={CONFIG}', *map(str, arguments)]


def ablate(*arguments):
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=900)


@pytest.fixture(scope='module')
def table(tmp_path_factory):
    """Table 4 with two seeds, whose first run was killed on the way; its folder and what the command printed."""
    root = tmp_path_factory.mktemp('ablation') / 'runs'
    arguments = [f'--workdir={root}', '--table=4', '--seeds=2', '--measure=keypoints', '--measure=robustness']
    child = subprocess.Popen(command(*arguments), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        while not (root / 'seed0/mac/scale_mining/evaluation.json').exists():  # the second row, in its second stage
            assert child.poll() is None, child.stderr.read()
            time.sleep(0.05)
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.communicate()
    assert not (root / 'seed0/mac/results.json').exists()
    done = ablate(*arguments)
    assert done.returncode == 0, done.stderr
    return root, done


def test_each_variant_has_a_folder_of_its_own(tmp_path):
    expected = {'configs/demo.py': 'runs/ablate/demo', 'configs/demo.py:ablation': 'runs/ablate/demo_ablation'}
    before = """
def ablation(config, root):
    raise cli.UserError(root)
module.Ablation = ablation
"""
    ended = run_each('ssanet_jax.ablate', {config: [f'--config={config}'] for config in expected}, tmp_path, before)
    assert {config: case.stderr for config, case in ended.items()} == {
        config: f'error: {folder}\n' for config, folder in expected.items()
    }


@pytest.mark.slow
def test_goes_on_after_a_kill(table):
    root, done = table
    assert 'gmp, seed 0' not in done.stderr.split('seed 1')[0].replace('gmp, seed 0: measuring', '')
    assert 'mac, seed 0 (2 of 3)' in done.stderr
    assert done.stdout.splitlines()[-1] == f'6 of 6 runs are finished: see {root}'


@pytest.mark.slow
def test_prints_what_the_runs_say(table):
    root, done = table
    accuracy = {
        row: [100 * json.loads((root / f'seed{seed}/{row}/results.json').read_text())['accuracy'] for seed in (0, 1)]
        for row in ('gmp', 'mac', 'op')
    }
    for (row, values), (title, paper) in zip(accuracy.items(), (('GMP', 86.0), ('GAP', 87.3), ('OP', 88.1))):
        mean, deviation = sum(values) / 2, abs(values[0] - values[1]) / 2**0.5
        line = next(line for line in done.stdout.splitlines() if re.match(rf'│ {title} +│ +{paper}', line))
        cells = [cell.strip() for cell in line.split('│')]
        assert cells[3:6] == [f'{mean:.2f}', f'{deviation:.2f}', '2']
        if row != 'mac':
            difference = sum(values) / 2 - sum(accuracy['mac']) / 2
            assert cells[6] == 'GAP' and float(cells[7].rstrip('*')) == pytest.approx(difference, abs=0.006)
    content = json.loads((root / 'table_4.json').read_text())
    assert content['accuracy']['op']['values'] == {str(seed): accuracy['op'][seed] for seed in (0, 1)}
    assert content['accuracy']['op']['against'] == 'mac'
    compared = content['accuracy']['op']['difference']
    assert (compared['seeds'], compared['images'], list(compared['mcnemar'])) == (2, 30, ['0', '1'])
    assert compared['interval'][0] <= compared['mean'] <= compared['interval'][1]
    assert 0 < compared['p'] <= compared['p_holm'] <= 1
    assert content['rotated by 90']['op']['difference']['images'] == 30
    assert content['consistency']['op']['difference']['images'] == 0  # over seeds alone
    keypoints = json.loads((root / 'seed1/op/keypoints.json').read_text())['boxes']['before scale mining']
    assert content['distance, pixels']['op']['values']['1'] == keypoints['distance']
    assert content['consistency']['op']['values']['1'] == 100 * keypoints['consistency']
    robustness = json.loads((root / 'seed1/gmp/robustness.json').read_text())['accuracy']
    assert content['rotated by 90']['gmp']['values']['1'] == 100 * robustness['rotated by 90']


@pytest.mark.slow
def test_says_how_often_the_test_images_were_evaluated(table):
    root, done = table
    count = sum(len(path.read_text().splitlines()) for path in root.rglob('test_evaluations.jsonl'))
    assert done.stdout.splitlines()[-2] == f'test images evaluated {count} times by the 6 runs of this table'
    assert json.loads((root / 'table_4.json').read_text())['test_evaluations'] == count
    lines = (root / 'seed0/op/test_evaluations.jsonl').read_text().splitlines()
    reasons = {json.loads(line)['purpose'] for line in lines}
    assert {'training of part_tuning', 'robustness'} <= reasons and 'keypoints' not in reasons


@pytest.mark.slow
def test_runs_of_earlier_versions_must_be_evaluated_again(table, tmp_path):
    root = tmp_path / 'runs'
    shutil.copytree(table[0], root)
    workdir = root / 'seed0/op'
    before = read_predictions(workdir / 'predictions.npz', '')
    (workdir / 'predictions.npz').unlink()
    arguments = [f'--workdir={root}', '--table=4', '--seeds=1']
    done = ablate(*arguments)
    assert done.returncode == 0, done.stderr
    assert f'1 runs of an earlier version have no predictions.npz and are left out of the comparisons ({workdir})' in (
        done.stderr
    )
    content = json.loads((root / 'table_4.json').read_text())['accuracy']
    assert 'difference' in content['gmp'] and 'difference' not in content['op']
    evaluated = subprocess.run(
        [sys.executable, '-m', 'ssanet_jax.main', f'--config={CONFIG}', '--mode=evaluate', f'--workdir={workdir}'],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert evaluated.returncode == 0 and 'test images evaluated' in evaluated.stderr
    after = read_predictions(workdir / 'predictions.npz', '')
    np.testing.assert_array_equal(after.classes['sum'], before.classes['sum'])
    assert after.image_set == before.image_set
    done = ablate(*arguments)
    assert 'earlier version' not in done.stderr and 'McNemar' in done.stdout
    assert 'difference' in json.loads((root / 'table_4.json').read_text())['accuracy']['op']


@pytest.mark.slow
def test_unreadable_images_are_named_beside_the_accuracies(table, tmp_path):
    root = tmp_path / 'runs'
    shutil.copytree(table[0], root)
    workdir = root / 'seed1/op'
    for name in ('results', 'robustness', 'keypoints'):
        content = remove_checksum(json.loads((workdir / f'{name}.json').read_text()))
        (workdir / f'{name}.json').write_text(json.dumps(content | {'unreadable': ['cannot read [a].jpg']}))
    arguments = [f'--workdir={root}', '--table=4', '--seeds=2', '--measure=robustness', '--measure=keypoints']
    done = ablate(*arguments)
    assert done.returncode == 0, done.stderr
    assert f'{workdir}: 1 of 30 images cannot be read and count as wrong: cannot read [a].jpg\n' in done.stdout
    assert f'{workdir}: 1 of 31 images cannot be read and are left out: cannot read [a].jpg\n' in done.stdout
    assert 'cannot be read' not in table[1].stdout


@pytest.mark.slow
def test_finished_runs_are_left_alone(table):
    root, _ = table
    times = lambda: {path: path.stat().st_mtime_ns for path in root.rglob('results.json')}
    before = times()
    done = ablate(f'--workdir={root}', '--table=4', '--seeds=2')
    assert done.returncode == 0 and times() == before and 'epoch' not in done.stderr


@pytest.mark.slow
def test_rows_share_what_they_have_in_common(tmp_path):
    """Two orientations of the same parts: the second row trains only oriented pooling and the stages after it."""
    root = tmp_path / 'runs'
    done = ablate(f'--workdir={root}', '--table=orientation', '--seeds=1')
    assert done.returncode == 0, done.stderr
    first, second = done.stderr.split('orientation_exact, seed 0')
    assert 'scale_mining  epoch' in first and 'reused stages' not in first
    assert 'scale_mining  epoch' not in second and 'reused stages: scale_mining\n' in second
    assert done.stdout.splitlines()[-1].startswith('2 of 2 runs')


@pytest.mark.slow
def test_a_seed_in_other_hands_is_left_alone(table, tmp_path):
    root = tmp_path / 'runs'
    with lock_workdir(root / 'seed0'):
        done = ablate(f'--workdir={root}', '--table=4', '--seeds=1')
    assert done.returncode == 0 and 'seed 0 is left to the process that works on it' in done.stderr
    assert done.stdout.splitlines()[-1].startswith('0 of 3 runs')


@pytest.mark.slow
def test_mistakes_end_with_one_line(table, tmp_path):
    mistakes = {
        'holds a run with another stages[0].epochs': ['--config.stages[0].epochs=5'],
        '--table': ['--table=9'],
        '--seeds': ['--seeds=0'],
        'never train proposals': ['--config=configs/demo.py:global_pooling'],
        'rows are compared at fixed settings': ['--config=configs/folder.py'],
        'row gmp, seed 0': ['--config.data.image_size=60'],
        "unexpected argument 'extra'": ['extra'],
    }
    cases = {}
    for words, arguments in mistakes.items():
        root = table[0] if 'holds' in words else tmp_path / 'other'
        cases[words] = [f'--config={CONFIG}', f'--workdir={root}', '--table=4', '--seeds=1', *arguments]
    for words, (code, _, stderr) in run_each('ssanet_jax.ablate', cases, tmp_path).items():
        assert code == 2 and words in stderr and 'Traceback' not in stderr, stderr
        assert len([line for line in stderr.splitlines() if line.startswith('error: ')]) == 1
