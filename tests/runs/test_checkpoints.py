"""Checkpoints: separate items, fallback from a damaged one, and the error when there is none."""

import gc
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_samples import forget_checksums
from orbax.checkpoint import v1 as ocp

from ssanet_jax.errors import UserError
from ssanet_jax.runs.checkpoints import KEEP, Checkpoints

# Orbax leaves its reads of a damaged checkpoint unfinished, and Python says so when it finds them.
pytestmark = pytest.mark.filterwarnings(
    'ignore::pytest.PytestUnraisableExceptionWarning', 'ignore:coroutine:RuntimeWarning'
)


@pytest.fixture(autouse=True)
def collect():
    yield
    gc.collect()  # here, where those warnings are filtered, not in a test that comes later


def items(value):
    return {
        'params': {'backbone': {'kernel': jnp.full((3, 4), value), 'bias': jnp.full(4, -value)}},
        'stats': {'backbone': {'mean': jnp.full(4, 10 * value)}},
        'position': {'seconds': 0.5 * value, 'data': {'next_index': int(value)}},
    }


@pytest.fixture
def directory(tmp_path):
    """Checkpoints of steps 1 and 2."""
    checkpoints = Checkpoints(tmp_path / 'checkpoints', writes=True)
    for step in (1, 2):
        checkpoints.save(step, items(float(step)))
    checkpoints.close()
    return tmp_path / 'checkpoints'


def restore(directory, like=None):
    checkpoints = Checkpoints(directory)
    try:
        return checkpoints.restore(items(0.0) | {'position': None} if like is None else like)
    finally:
        checkpoints.close()


def damage(directory, step):
    """Overwrites every file of a committed checkpoint."""
    files = [path for path in (directory / str(step)).rglob('*') if path.is_file()]
    assert len(files) > 3
    for path in files:
        path.write_bytes(b'\xff' * path.stat().st_size)


def one_line(error):
    return '\n' not in str(error.value)


def test_the_newest_comes_back_as_it_was(directory):
    step, loaded = restore(directory)
    assert step == 2
    chex.assert_trees_all_equal(
        {k: loaded[k] for k in ('params', 'stats')}, {k: items(2.0)[k] for k in ('params', 'stats')}
    )
    assert loaded['position']['seconds'] == 1.0 and loaded['position']['data']['next_index'] == 2
    assert isinstance(loaded['params']['backbone']['kernel'], jax.Array)


def test_a_subset_of_the_items_can_be_loaded(directory):
    forget_checksums(directory / '2')  # those of early versions: what is not asked for need not even be there
    shutil.rmtree(directory / '2' / 'stats')
    step, loaded = restore(directory, {'params': items(0.0)['params']})
    assert step == 2 and loaded.keys() == {'params'}
    np.testing.assert_array_equal(loaded['params']['backbone']['bias'], np.full(4, -2.0))


def test_a_subset_of_a_tree_can_be_loaded(directory):
    step, loaded = restore(directory, {'params': {'backbone': {'bias': jnp.zeros(4)}}})
    assert step == 2
    chex.assert_trees_all_equal(loaded, {'params': {'backbone': {'bias': jnp.full(4, -2.0)}}})


def test_a_tree_keeps_the_sharding_and_type_asked_for(directory):
    like = {'params': jax.tree.map(lambda x: x.astype(jnp.bfloat16), items(0.0)['params'])}
    _, loaded = restore(directory, like)
    chex.assert_trees_all_equal_dtypes(loaded, like)


def test_a_killed_save_is_not_seen_and_only_the_writer_removes_it(directory):
    leftover = directory / '3.orbax-checkpoint-tmp'
    shutil.copytree(directory / '2', leftover)
    assert restore(directory)[0] == 2
    assert leftover.is_dir()  # it may be the save of a run that goes on
    writer = Checkpoints(directory, writes=True)
    assert writer.steps == [1, 2]
    writer.save(4, items(4.0))
    writer.close()
    assert restore(directory)[0] == 4 and not leftover.exists()


def test_old_checkpoints_make_room_but_not_the_last_but_one(directory):
    checkpoints = Checkpoints(directory, writes=True)
    for step in (3, 4):
        checkpoints.save(step, items(float(step)))
    assert checkpoints.steps == [3, 4] and KEEP == 2
    checkpoints.close()
    assert sorted(path.name for path in directory.iterdir() if path.is_dir()) == ['3', '4']


def test_a_step_may_be_saved_again(directory):
    checkpoints = Checkpoints(directory, writes=True)
    checkpoints.save(2, items(7.0))
    checkpoints.close()
    step, loaded = restore(directory)
    assert step == 2 and loaded['position']['data']['next_index'] == 7


def test_a_damaged_newest_falls_back_to_the_one_before(directory):
    damage(directory, 2)
    step, loaded = restore(directory)
    assert step == 1
    np.testing.assert_array_equal(loaded['params']['backbone']['kernel'], np.ones((3, 4)))


def test_all_damaged_is_one_line(directory):
    damage(directory, 1)
    damage(directory, 2)
    with pytest.raises(UserError, match=r'is whole \(2: .*; 1: .*\): restore it from a copy') as error:
        restore(directory)
    assert str(directory) in str(error.value) and one_line(error)


def test_other_shapes_are_refused(directory):
    like = {'params': {'backbone': {'kernel': jnp.zeros((3, 5)), 'bias': jnp.zeros(4)}}}
    with pytest.raises(UserError, match='its shapes differ') as error:
        restore(directory, like)
    assert one_line(error)


def test_another_structure_is_refused(directory):
    with pytest.raises(UserError, match='its shapes differ'):
        restore(directory, {'params': {'backbone': {'kernel': jnp.zeros((3, 4)), 'scale': jnp.zeros(4)}}})


def test_none_at_all(tmp_path):
    with pytest.raises(UserError, match='no checkpoint in .*: train first') as error:
        restore(tmp_path / 'empty')
    assert one_line(error)


@pytest.mark.parametrize(
    ('error', 'expected', 'said'),
    [
        (jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory'), jax.errors.JaxRuntimeError, 'Out of memory'),
        (PermissionError(13, 'Permission denied'), UserError, 'no permission to read .*checkpoints: ask for it'),
    ],
)
def test_what_is_no_damage_is_not_taken_for_it(directory, monkeypatch, error, expected, said):
    """Neither an older checkpoint nor the advice to remove the folder: the newest one is sound."""
    checkpoints = Checkpoints(directory)

    def fails(path, abstract):
        raise ValueError('as Orbax wraps it') from error

    monkeypatch.setattr(ocp, 'load_checkpointables', fails)
    with pytest.raises(expected, match=said) as raised:
        checkpoints.restore(items(0.0) | {'position': None})
    checkpoints.close()
    assert 'damaged' not in str(raised.value)
