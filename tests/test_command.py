"""How a command ends. In processes of their own, since flags belong to a process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT

# TensorStore knows no OSError: it says in words what was wrong, and Orbax raises that in threads of its own.
MAINS = {
    'full': "lambda _: open('/dev/full', 'w').write(100_000 * 'x')",
    'checkpoint': 'fail',
    'bug': 'lambda _: 1 / 0',
}
PROGRAM = """
import errno, os
from ssanet_jax import command

def fail(_):
    try:
        raise ValueError(f'RESOURCE_EXHAUSTED: Failed writing: {{os.strerror(errno.ENOSPC)}} [os_error_code=28]')
    except ValueError as error:
        raise RuntimeError('the save failed') from error

command.run({main})
"""


def run(name):
    environment = os.environ | {'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
    program = PROGRAM.format(main=MAINS[name])
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


def test_other_failures_keep_their_traceback():
    done = run('bug')
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith('ZeroDivisionError: division by zero')


def test_help_says_what_a_command_does_and_takes():
    asked = [sys.executable, '-m', 'ssanet_jax.measure', '--help']
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith('Measures a trained run beyond its accuracy')
    assert '--workdir: Folder of a trained run.' in done.stdout and not done.stderr
