"""How a command ends."""

import errno
import os
import sys
from pathlib import Path

import pytest

from ssanet_jax import command


def write_to_a_full_disk(_):
    Path('/dev/full').write_text('x')


def fail_as_checkpoints_do(_):
    """TensorStore knows no OSError: it says in words what was wrong, and Orbax raises that in threads of its own."""
    try:
        raise ValueError(f'RESOURCE_EXHAUSTED: Failed writing: {os.strerror(errno.ENOSPC)} [os_error_code=28]')
    except ValueError as error:
        raise RuntimeError('the save failed') from error


@pytest.mark.parametrize(
    'main',
    [
        pytest.param(
            write_to_a_full_disk,
            marks=pytest.mark.skipif(not Path('/dev/full').exists(), reason='this system has no /dev/full'),
        ),
        fail_as_checkpoints_do,
    ],
)
def test_a_full_disk_is_one_line(main, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['command'])
    with pytest.raises(SystemExit) as left:
        command.run(main)
    assert left.value.code == 2
    assert capsys.readouterr().err == (
        'error: the disk is full: make room and give the same command again; training goes on from the last '
        'checkpoint that was finished\n'
    )


def test_other_failures_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['command'])
    with pytest.raises(ZeroDivisionError):
        command.run(lambda _: 1 / 0)
