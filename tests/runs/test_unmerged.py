"""Checkpoints that version 0.1.0 wrote in folders such as `run [1]`: whole, but never merged."""

import gc
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_samples import forget_checksums

from ssanet_jax.errors import UserError
from ssanet_jax.runs.checkpoints import Checkpoints

# Orbax leaves its reads of a damaged checkpoint unfinished, and Python says so when it finds them.
pytestmark = pytest.mark.filterwarnings(
    'ignore::pytest.PytestUnraisableExceptionWarning', 'ignore:coroutine:RuntimeWarning'
)


@pytest.fixture(autouse=True)
def collect():
    yield
    gc.collect()  # here, where those warnings are filtered, not in a test that comes later


ITEMS = {'params': {'head': {'kernel': jnp.arange(6.0).reshape(2, 3)}}, 'position': {'seconds': 1.5}}


@pytest.fixture
def directory(tmp_path):
    """A checkpoint without what Orbax's last step adds to it."""
    directory = tmp_path / 'run [1]' / 'checkpoints'
    checkpoints = Checkpoints(directory, writes=True)
    checkpoints.save(7, ITEMS)
    checkpoints.close()
    forget_checksums(directory / '7')
    for item in ITEMS:
        (directory / '7' / item / 'manifest.ocdbt').unlink()
        shutil.rmtree(directory / '7' / item / 'd')
    return directory


def restore(directory):
    checkpoints = Checkpoints(directory)
    try:
        return checkpoints.restore({'params': jax.tree.map(jnp.zeros_like, ITEMS['params']), 'position': None})
    finally:
        checkpoints.close()


@pytest.mark.parametrize('name', ['run [1]', 'renamed'])
def test_an_unmerged_checkpoint_is_finished(directory, name, tmp_path):
    (tmp_path / 'run [1]').rename(tmp_path / name)
    directory = tmp_path / name / 'checkpoints'
    for _ in range(2):  # the second time it is like any other
        step, items = restore(directory)
        assert step == 7 and items['position']['seconds'] == 1.5
        np.testing.assert_array_equal(items['params']['head']['kernel'], ITEMS['params']['head']['kernel'])


def test_one_that_lacks_arrays_is_refused_in_one_line(directory):
    shutil.rmtree(directory / '7' / 'params' / 'ocdbt.process_0')
    with pytest.raises(UserError, match='no checkpoint in .* can be read') as error:
        restore(directory)
    assert 'tensorstore_spec' not in str(error.value) and '\n' not in str(error.value)
