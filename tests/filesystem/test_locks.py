"""Locks, where there are some and where there are none."""

import errno
import os
import subprocess
import sys

import pytest
from commands import ROOT

from ssanet_jax.filesystem.locks import lock_file

HOLDER = """
import sys
from pathlib import Path
from ssanet_jax.filesystem.locks import lock_file
with lock_file(Path(sys.argv[1]), wait=False):
    print('locked', flush=True)
    sys.stdin.read()
"""


def test_one_holder_at_a_time(tmp_path):
    program = [sys.executable, '-c', HOLDER, str(tmp_path / 'lock')]
    with subprocess.Popen(program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b'locked\n'
        with pytest.raises(BlockingIOError), lock_file(tmp_path / 'lock', wait=False):
            pass
        holder.stdin.close()
        with lock_file(tmp_path / 'lock', wait=True) as problem:
            assert problem == ''


@pytest.mark.parametrize('number', [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EACCES, errno.EINVAL])
@pytest.mark.parametrize('wait', [False, True])
def test_a_file_system_without_locks(number, wait, tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr('fcntl.flock', refuse)
    with lock_file(tmp_path / 'lock', wait=wait) as problem:
        assert problem == os.strerror(number)
