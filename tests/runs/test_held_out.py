"""`held_out.npz`: what is written is read, and other files end with one line."""

import numpy as np
import pytest
from damages import DAMAGES

from ssanet_jax.errors import UserError
from ssanet_jax.runs.held_out import HeldOutPredictions, read_held_out, write_held_out


def predictions(**changes):
    rng = np.random.default_rng(0)
    fields = dict(
        log_probabilities=-rng.random((5, 3)).astype(np.float16),
        labels=rng.integers(0, 3, 5).astype(np.int32),
        images=np.arange(5, dtype=np.int32),
        temperature=1.25,
        split='train',
    )
    return HeldOutPredictions(**{**fields, **changes})


@pytest.fixture
def path(tmp_path):
    write_held_out(tmp_path / 'held_out.npz', predictions())
    return tmp_path / 'held_out.npz'


def test_what_is_written_is_read(path):
    found, expected = read_held_out(path, 3), predictions()
    for name in ('log_probabilities', 'labels', 'images'):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert (found.temperature, found.split) == (1.25, 'train')
    assert read_held_out(path.with_name('missing.npz'), 3) is None


def test_of_another_number_of_classes(path):
    with pytest.raises(UserError, match=r'held_out\.npz is damaged, it holds no held-out predictions'):
        read_held_out(path, 4)


@pytest.mark.parametrize(
    'changes',
    [
        dict(temperature=0.0),
        dict(temperature=np.inf),
        dict(log_probabilities=np.full((5, 3), np.nan)),
        dict(labels=np.zeros(4, np.int32)),
        dict(images=np.zeros(5)),
        dict(log_probabilities=np.zeros((0, 3)), labels=np.zeros(0, int), images=np.zeros(0, int)),
    ],
)
def test_arrays_that_make_no_sense(tmp_path, changes):
    write_held_out(tmp_path / 'held_out.npz', predictions(**changes))
    with pytest.raises(UserError, match=r'held_out\.npz is damaged'):
        read_held_out(tmp_path / 'held_out.npz', 3)


@pytest.mark.parametrize('damage', ['truncate', 'empty', 'garbage', 'folder', 'pipe'])
def test_damaged_files(path, damage):
    DAMAGES[damage](path)
    with pytest.raises(UserError, match=r'held_out\.npz (is damaged|cannot be read)'):
        read_held_out(path, 3)
