"""The lock of a work directory: one run at a time, and no lock outlives its process."""

import errno
import os
import signal
import subprocess
import sys

import pytest
from commands import ROOT

from ssanet_jax.distributed import processes
from ssanet_jax.errors import UserError
from ssanet_jax.runs.workdir import LOCK_FILE, WorkdirLocked, lock_workdir


def test_a_second_run_stays_out_of_the_work_directory(tmp_path):
    again = lock_workdir(tmp_path / 'run')
    with lock_workdir(tmp_path / 'run'), pytest.raises(WorkdirLocked, match='another process trains in'):
        again.__enter__()
    with lock_workdir(tmp_path / 'run'):
        pass


def test_only_the_primary_process_locks(tmp_path, monkeypatch):
    with lock_workdir(tmp_path / 'run'):
        monkeypatch.setattr(processes, 'is_primary_process', lambda: False)
        with lock_workdir(tmp_path / 'run'), lock_workdir(tmp_path / 'other'):
            assert not (tmp_path / 'other').exists()
        monkeypatch.undo()
        with pytest.raises(WorkdirLocked):  # the others have not released the lock of the primary process
            lock_workdir(tmp_path / 'run').__enter__()


HOLDER = """
import sys, time
from pathlib import Path
from ssanet_jax.runs.workdir import lock_workdir
with lock_workdir(Path(sys.argv[1])):
    print('locked', flush=True)
    time.sleep(600)
"""


def test_a_killed_process_releases_its_lock(tmp_path):
    holder = subprocess.Popen([sys.executable, '-c', HOLDER, tmp_path / 'run'], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b'locked\n'
        with pytest.raises(WorkdirLocked, match='another process trains in .*run: wait for it') as error:
            lock_workdir(tmp_path / 'run').__enter__()
        assert '\n' not in str(error.value)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    assert (tmp_path / 'run' / LOCK_FILE).exists()
    with lock_workdir(tmp_path / 'run'):
        pass


@pytest.mark.parametrize('code', ['ENOSYS', 'ENOLCK', 'EIO', 'EPERM', 'EACCES', 'EBADF', 'ESTALE'])
def test_a_file_system_without_locks_gives_a_warning(code, tmp_path, monkeypatch, caplog):
    number = getattr(errno, code)

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr('fcntl.flock', refuse)
    with lock_workdir(tmp_path / 'run'):
        assert f'cannot be locked ({os.strerror(number)})' in caplog.text


def test_a_place_where_no_directory_can_be(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r'cannot write in .*file/run \(Not a directory\): give another --workdir'):
        lock_workdir(tmp_path / 'file' / 'run').__enter__()


@pytest.mark.skipif(os.geteuid() == 0, reason='root may write anywhere')
def test_a_directory_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(UserError, match='cannot write in .* .Permission denied'), lock_workdir(tmp_path):
        pass
