"""How a command ends. In processes of their own, since flags belong to a process."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from commands import ROOT

from ssanet_jax import cli

# TensorStore knows no OSError: it says in words what was wrong, and Orbax raises that in threads of its own.
MAINS = {
    'full': "lambda _: open('/dev/full', 'w').write(100_000 * 'x')",
    'checkpoint': 'fail',
    'bug': 'lambda _: 1 / 0',
    'memory': 'lambda _: jax.numpy.zeros(2**42).block_until_ready()',  # 16 TiB
    'message': 'long_message',
    'cache': 'lambda _: print(jax.config.jax_compilation_cache_dir)',
}
PROGRAM = """
import errno, os
{before}
import jax
from ssanet_jax import cli

def fail(_):
    try:
        raise ValueError(f'RESOURCE_EXHAUSTED: Failed writing: {{os.strerror(errno.ENOSPC)}} [os_error_code=28]')
    except ValueError as error:
        raise RuntimeError('the save failed') from error

def long_message(_):
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Received message larger than max (5000000 vs. 4194304)')

cli.run({main})
"""


def run(name, before='', **variables):
    environment = os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'} | variables
    program = PROGRAM.format(main=MAINS[name], before=before)
    return subprocess.run([sys.executable, '-c', program], env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize('name', ['full', 'checkpoint'])
def test_a_full_disk_is_one_line(name):
    if name == 'full' and not Path('/dev/full').exists():
        pytest.skip('this system has no /dev/full')
    done = run(name)
    assert done.returncode == 2
    assert done.stderr == (
        'error: the disk is full: make room and give the same command again; training goes on from the last '
        'checkpoint that was finished\n'
    )


@pytest.mark.parametrize('processes', [1, 2])
def test_too_little_memory_is_one_line(processes):
    done = run('memory', before=f'import jax; jax.process_count = lambda: {processes}')
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the device's memory does not suffice (16384.00 GiB were asked for): set a smaller ")
    fields = ('data.batch_size', 'data.eval_batch_size', 'model.sharing=image', 'model.dtype=bfloat16')
    for field in (*fields, 'model.dtype=bfloat16'):
        assert f'config.{field}' in line


@pytest.mark.parametrize(
    'message, amount',
    [
        ('RESOURCE_EXHAUSTED: Out of memory while trying to allocate 13958643712 bytes.', '13.00'),
        ('RESOURCE_EXHAUSTED: Out of memory while trying to allocate 512.00MiB.', '0.50'),
        ('RESOURCE_EXHAUSTED: Error allocating device buffer: Attempting to allocate 1.50G. There are 1.22G', '1.50'),
        ('RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.12G of 15.48G hbm.', '20.12'),
        ('INTERNAL: the graph cannot be captured: RESOURCE_EXHAUSTED: out of memory', None),
    ],
)
def test_each_way_to_say_that_memory_is_short(message, amount, monkeypatch, capsys):
    def fail(_):
        try:
            raise jax.errors.JaxRuntimeError(message)
        except jax.errors.JaxRuntimeError as error:
            raise ValueError('of the step') from error

    monkeypatch.setattr(cli, '_parse', lambda argv: [])
    with pytest.raises(SystemExit, match='2'):
        cli.run(fail)
    asked = f' ({amount} GiB were asked for)' if amount else ''
    assert capsys.readouterr().err.startswith(f"error: the device's memory does not suffice{asked}: set ")


@pytest.mark.parametrize('name, last', [('bug', 'ZeroDivisionError: division by zero'), ('message', 'vs. 4194304)')])
def test_other_failures_keep_their_traceback(name, last):
    done = run(name)
    assert done.returncode == 1
    assert 'Traceback' in done.stderr and done.stderr.rstrip().endswith(last)


def test_the_others_failure_is_one_line():
    done = run('message', before='import jax; jax.process_count = lambda: 2')
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith('error: the work with the other processes broke off (RESOURCE_EXHAUSTED: Received message')


NOBODY = 'import os; os.environ.pop("HOME", None); os.getuid = lambda: 2**31 - 3'
NO_FOLDER = 'os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)'


@pytest.mark.parametrize(
    'before, variables, expected',
    [
        ('', {'HOME': '{tmp}'}, '{tmp}/.cache/ssanet_jax/compiled'),
        ('', {'XDG_CACHE_HOME': '{tmp}/xdg'}, '{tmp}/xdg/ssanet_jax/compiled'),
        ('', {'XDG_CACHE_HOME': 'relative', 'HOME': '{tmp}'}, '{tmp}/.cache/ssanet_jax/compiled'),
        (NOBODY, {'XDG_CACHE_HOME': '{tmp}/xdg'}, '{tmp}/xdg/ssanet_jax/compiled'),
        (NOBODY, {}, 'None'),
        ('', {'HOME': '/dev/null'}, 'None'),
    ],
    ids=['home', 'XDG', 'relative', 'XDG alone', 'nobody', 'no folder'],
)
def test_where_programs_are_kept(before, variables, expected, tmp_path):
    variables = {'XDG_CACHE_HOME': ''} | {name: value.format(tmp=tmp_path) for name, value in variables.items()}
    done = run('cache', f'{before}\n{NO_FOLDER}', **variables)
    assert (done.stdout.strip(), done.stderr) == (expected.format(tmp=tmp_path), '')


def test_help_says_what_a_command_does_and_takes():
    asked = [sys.executable, '-m', 'ssanet_jax.measure', '--help']
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith('Measures a trained run beyond its accuracy')
    assert '--workdir: Folder of a trained run.' in done.stdout and not done.stderr
