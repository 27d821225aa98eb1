"""Shared by all tests: compiled programs kept between runs, a tiny configuration, one trained run."""

import gc
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from commands import ROOT, train_command

sys.path.insert(0, str(ROOT))  # for `from configs import common`

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as for a command that a shell starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests interrupt the commands that they start

# Set before JAX is imported, and inherited by the commands that tests start.
_CACHE = Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'ssanet_jax' / 'tests'
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(_CACHE))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import jax
import pytest
from data_folders import cub_folder  # noqa: F401, a fixture

jax.config.update('jax_compilation_cache_dir', os.environ['JAX_COMPILATION_CACHE_DIR'])
jax.config.update(
    'jax_persistent_cache_min_compile_time_secs', float(os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'])
)


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # pytest-xdist keeps the order of `pytest_collection_modifyitems`


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: at the end of `--dist loadfile`, no worker waits long for the other."""
    slow = {item.path for item in items if item.get_closest_marker('slow')}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Leaves modules and tests out of the search for garbage, and searches less often: it took a fifth of the time."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture
def tiny_config():
    """A fresh copy of `tiny_config.py`, to be changed at will."""
    import tiny_config

    return tiny_config.get_config()


class FinishedRun(NamedTuple):
    workdir: Path
    stdout: str


def _contents(folder: Path) -> dict[Path, str]:
    """The digest of every file below a folder."""
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob('*') if path.is_file()}


@pytest.fixture(scope='session')
def finished_run(tmp_path_factory) -> Iterator[FinishedRun]:
    """A run of the tiny configuration by its command, without interruption.

    Tests share it, so none may change it: a test that does takes `workdir`. Checked after the last test.
    """
    workdir = tmp_path_factory.mktemp('finished') / 'run'
    done = subprocess.run(train_command(workdir), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before = _contents(workdir)
    yield FinishedRun(workdir, done.stdout)
    after = _contents(workdir)
    changed = sorted(path.name for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    assert not changed, f'a test has changed {", ".join(changed)} of the run that all tests share'


@pytest.fixture
def workdir(finished_run, tmp_path) -> Path:
    """A copy of the finished run, to be changed at will."""
    return shutil.copytree(finished_run.workdir, tmp_path / 'run')
