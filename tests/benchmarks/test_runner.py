"""Benchmarks as commands."""

import importlib.util
import json
import subprocess
import sys

import pytest
from commands import ROOT

from benchmarks import backbones, pipeline, runner, solvers, torch_nts
from ssanet_jax.errors import UserError

TINY = ('--scales=3', '--scales=5', '--classes=4', '--parts=2', '--channels=8', '--rounds=1')


def start(module, *arguments):
    return subprocess.run([sys.executable, '-m', module, *arguments], cwd=ROOT, capture_output=True, text=True)


def test_command_line_gives_settings_that_differ_from_the_defaults():
    assert runner.command_line('solvers', solvers.Settings()) == 'python -m benchmarks.solvers'
    settings = solvers.Settings(scales=(9,), num_classes=(200, 300), rounds=2)
    line = 'python -m benchmarks.solvers --scales=9 --num_classes=200 --num_classes=300 --rounds=2'
    assert runner.command_line('solvers', settings) == line
    line = 'python -m benchmarks.backbones --model=resnet50 --batch=4'
    assert runner.command_line('backbones', backbones.Settings(model=('resnet50',), batch=(4,))) == line
    line = 'python -m benchmarks.torch_nts --compile=False'
    assert runner.command_line('torch_nts', torch_nts.Settings(compile=False)) == line


def test_command_prints_its_table_and_writes_its_figures(tmp_path):
    out = tmp_path / 'new' / 'figures.json'
    done = start('benchmarks.solvers', *TINY, f'--out={out}')
    assert done.returncode == 0, done.stderr
    assert 'circulant / fourier' in done.stdout and '4 rows, 0 not measured' in done.stdout
    assert '3 scales, 4 classes, 2 parts' in done.stderr  # progress
    assert [path.name for path in out.parent.iterdir()] == ['figures.json']
    content = json.loads(out.read_text())
    assert content['platform'] == 'cpu' and content['versions']['jax']
    rows = content['comparisons']
    assert [row['second'] for row in rows] == ['fourier', 'ready'] * 2
    for row in rows:
        assert row['ratio'] == pytest.approx(row['seconds'][0] / row['seconds'][1])
    # The command below a row is the given one, for the scales of the row.
    given = [flag.replace('--classes', '--num_classes') for flag in TINY]
    lines = [' '.join(['python -m benchmarks.solvers', *given[:1], *given[2:]])]
    lines += [' '.join(['python -m benchmarks.solvers', *given[1:]])]
    found = [set(row['command'].split()) for row in rows]
    assert found == [set(line.split()) for line in lines for _ in range(2)]


@pytest.mark.parametrize(
    'module, arguments, message',
    [
        ('benchmarks.solvers', ('twice',), "error: unexpected argument 'twice'"),
        ('benchmarks', ('--quick', '--out=docs'), 'error: --out=docs is a folder'),
    ],
)
def test_errors_are_one_line(module, arguments, message):
    done = start(module, *arguments)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith(message) and done.stderr.count('\n') == 1


@pytest.mark.skipif(importlib.util.find_spec('torch') is not None, reason='PyTorch is installed')
def test_without_pytorch_the_error_gives_the_install_command():
    with pytest.raises(UserError, match='PyTorch is not installed: pip install'):
        torch_nts.measure(torch_nts.Settings())


def test_pipeline_requires_data_dir():
    with pytest.raises(UserError, match='--data_dir is missing'):
        pipeline.measure(pipeline.Settings())
