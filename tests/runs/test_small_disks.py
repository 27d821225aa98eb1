"""Runs on a small disk that fills up or is mounted read-only, and in the folders of another user."""

import os
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from commands import changed, run_python, train_command

from benchmarks.run_differences import differences

pytestmark = pytest.mark.slow

NOBODY = 65534
# Runs after the imports: another user may not be able to read the environment.
AS_NOBODY = f'import os\nos.setgroups([])\nos.setgid({NOBODY})\nos.setuid({NOBODY})'


class SmallDisk:
    """A file system of its own below a folder, in memory."""

    def __init__(self, folder: Path, size: int):
        self.folder = folder
        folder.mkdir()
        self.mount(f'size={size}')

    def mount(self, options: str) -> None:
        done = subprocess.run(
            ['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', self.folder], capture_output=True, text=True
        )
        if done.returncode:
            raise PermissionError(done.stderr)

    def unmount(self) -> None:
        subprocess.run(['umount', self.folder], check=True)


@pytest.fixture
def small_disk(finished_run, tmp_path):
    """A disk that holds about a half of a run."""
    size = sum(path.stat().st_blocks * 512 for path in finished_run.workdir.rglob('*'))
    try:
        disk = SmallDisk(tmp_path / 'disk', size // 2)
    except OSError as error:
        pytest.skip(f'mounting is not permitted here ({error})')
    yield disk
    disk.unmount()


def train(workdir, *settings, before='', **variables):
    arguments = [*train_command(workdir)[3:], *settings]
    return run_python(changed('ssanet_jax.main', before), *arguments, environment=variables)


def check_one_error(done, words):
    """Holds a command to exit code 2 and one error, the last line."""
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert lines[-1].startswith('error: ') and re.search(words, lines[-1])
    assert 'Traceback' not in done.stderr and sum(line.startswith(('error: ', 'warning: ')) for line in lines) == 1


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob('*')}


def test_a_run_goes_on_when_the_disk_has_room_again(small_disk, finished_run):
    workdir = small_disk.folder / 'run'
    full = train(workdir, '--config.async_checkpointing=on')  # most files are written in the background
    check_one_error(full, 'the disk is full|No space left')
    small_disk.mount('remount,ro')
    before = snapshot(workdir)
    check_one_error(train(workdir), 'cannot write in')
    assert snapshot(workdir) == before
    small_disk.mount('remount,rw,size=1g')
    done = train(workdir)
    assert done.returncode == 0, done.stderr
    assert not list(differences(finished_run.workdir, workdir))


@pytest.mark.parametrize('saving', ['on', 'off'])
def test_a_checkpoint_of_which_one_folder_cannot_be_made(saving, tmp_path):
    """TensorStore is still writing the others when the save ends with an error."""
    before = """
import os
make = os.mkdir
def mkdir(path, *arguments, **named):
    if str(path).endswith('opt/array_metadatas'):
        raise OSError(5, 'Input/output error', str(path))
    make(path, *arguments, **named)
os.mkdir = mkdir
"""
    done = train(tmp_path / 'run', f'--config.async_checkpointing={saving}', before=before)
    check_one_error(done, 'the disk failed')


@pytest.mark.parametrize('mode', [0o700, 0o755])
def test_the_folder_of_another_user(mode, finished_run):
    if os.getuid():
        pytest.skip('only root can become another user')
    with tempfile.TemporaryDirectory() as folder:
        workdir = shutil.copytree(finished_run.workdir, Path(folder) / 'run')
        Path(folder).chmod(mode)
        before = snapshot(workdir)
        check_one_error(train(workdir, before=AS_NOBODY, HOME='/'), 'cannot write in')
        assert snapshot(workdir) == before
        assert stat.S_IMODE(Path(folder).stat().st_mode) == mode
