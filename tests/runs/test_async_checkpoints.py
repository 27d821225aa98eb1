"""Checkpoints that are written while training goes on: their content, their errors, and what waits for them."""

import contextlib
import os
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore

from ssanet_jax.runs import checkpoints as module
from ssanet_jax.runs.checkpoints import KEEP, Checkpoints
from ssanet_jax.runs.checksums import find_damage

# Writes that end after their checkpoint could not be saved; commands hide them.
pytestmark = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
LIKE = {'params': None, 'position': None}


def items(value):
    kernel = value * np.arange(1 << 16, dtype=np.float32)
    return {'params': {'kernel': jnp.asarray(kernel), 'bias': jnp.full(4, value)}, 'position': {'seconds': value}}


@pytest.fixture
def directory(tmp_path):
    """Checkpoints of steps 1 and 2."""
    checkpoints = Checkpoints(tmp_path / 'checkpoints', writes=True)
    for step in (1, 2):
        checkpoints.save(step, items(float(step)))
    checkpoints.close()
    return tmp_path / 'checkpoints'


@pytest.fixture
def checkpoints(directory):
    with contextlib.closing(Checkpoints(directory, writes=True, asynchronous=True)) as checkpoints:
        yield checkpoints


def names(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def disk(monkeypatch):
    """An event until which no array is written; its `reached` is set when a write waits for it."""
    ready, reached, open_array = threading.Event(), threading.Event(), tensorstore.open

    def open_when_ready(*arguments, **named):
        reached.set()
        assert ready.wait(60)
        return open_array(*arguments, **named)

    monkeypatch.setattr(tensorstore, 'open', open_when_ready)
    ready.reached = reached
    yield ready
    ready.set()


def test_the_state_of_the_step_is_saved_though_training_goes_on(directory, checkpoints, disk):
    train_step = jax.jit(lambda tree: jax.tree.map(lambda x: -2 * x, tree), donate_argnums=0)
    saved = items(3.0)
    expected = jax.tree.map(np.array, saved)  # copies
    checkpoints.save(3, saved)
    params = saved['params']
    for _ in range(4):
        params = train_step(params)
    jax.block_until_ready(params)
    assert disk.reached.wait(60) and not list(directory.glob('3.*/**/d/*'))  # no array has been written
    disk.set()
    step, found = checkpoints.restore(LIKE)
    assert step == 3 and not find_damage(directory / '3')
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    np.testing.assert_array_equal(params['bias'], np.full(4, 3.0 * 16))


def test_an_older_one_is_removed_after_the_new_one_is_on_the_disk(directory, checkpoints, monkeypatch):
    write, seen = module.write_checksums, []

    def observed(folder, step):
        write(folder, step)
        seen.append(names(directory))

    monkeypatch.setattr(module, 'write_checksums', observed)
    for step in (3, 4):
        checkpoints.save(step, items(float(step)))
    assert checkpoints.steps == [3, 4] and KEEP == 2
    assert seen == [['1', '2', '3.partial'], ['2', '3', '4.partial']]


@pytest.mark.parametrize(
    'call',
    [
        lambda checkpoints: checkpoints.steps,
        lambda checkpoints: checkpoints.newest_whole(),
        lambda checkpoints: checkpoints.restore(LIKE)[0],
        lambda checkpoints: checkpoints.is_whole(3) and 3,
        lambda checkpoints: checkpoints.close() or checkpoints.newest_whole(),
    ],
    ids=['steps', 'newest_whole', 'restore', 'is_whole', 'close'],
)
def test_it_waits_for_a_save_in_progress(call, checkpoints, disk):
    checkpoints.save(3, items(3.0))
    assert disk.reached.wait(60)
    checkpoints.raise_failure()  # does not wait, or this would hang
    timer = threading.Timer(0.2, disk.set)
    timer.start()
    assert call(checkpoints) in (3, [2, 3])
    timer.join()


@pytest.mark.parametrize(
    'call',
    [
        lambda checkpoints: checkpoints.save(4, items(4.0)),
        lambda checkpoints: checkpoints.steps,
        lambda checkpoints: checkpoints.restore(LIKE),
        lambda checkpoints: checkpoints.wait(),
        lambda checkpoints: checkpoints.close(),
        lambda checkpoints: raise_when_it_has_failed(checkpoints),
    ],
    ids=['save', 'steps', 'restore', 'wait', 'close', 'raise_failure'],
)
def test_an_error_of_a_save_is_raised_by_the_next_call(call, directory, checkpoints, monkeypatch):
    def full(folder, step):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(module, 'write_checksums', full)
    checkpoints.save(3, items(3.0))
    with pytest.raises(OSError, match='No space left'):
        call(checkpoints)
    assert names(directory) == ['1', '2']
    assert checkpoints.steps == [1, 2]  # it is raised once


def raise_when_it_has_failed(checkpoints):
    for _ in range(600):
        checkpoints.raise_failure()
        threading.Event().wait(0.1)


def save_and_wait(checkpoints):
    checkpoints.save(3, items(3.0))
    checkpoints.wait()


@pytest.mark.parametrize('folder', ['3.partial', 'array_metadatas'])
def test_an_error_of_orbax_is_raised_too(folder, directory, checkpoints, monkeypatch):
    make = os.mkdir

    def fails(path, *arguments, **named):
        if folder in path.rpartition('/')[2]:
            raise OSError(30, 'Read-only file system', path)
        make(path, *arguments, **named)

    monkeypatch.setattr(os, 'mkdir', fails)
    with pytest.raises(OSError, match='Read-only file system'):
        save_and_wait(checkpoints)  # the first folders are made before the save returns
    assert checkpoints.steps == [1, 2]
    # Orbax's threads would wait for folders that it makes later, and the process for them, for five minutes.
    for thread in threading.enumerate():
        if not thread.daemon and not thread.name.startswith(('MainThread', 'asyncio', 'ThreadPool')):
            thread.join(10)
            assert not thread.is_alive()
