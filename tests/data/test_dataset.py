"""Holding out validation images."""

import numpy as np
import pytest
from data_samples import ArraySource
from hypothesis import given, settings
from hypothesis import strategies as st

from ssanet_jax.data.dataset import Dataset, Source
from ssanet_jax.data.splits import Subset, hold_out_validation
from ssanet_jax.errors import UserError


def _dataset(labels, names=('a', 'b', 'c')):
    source = ArraySource(len(labels), 2, 2)
    source.labels = np.array(labels, np.int32)
    return Dataset('set', names, source, ArraySource(3))


def _places(dataset, part):
    """Positions of a subset's images in the source, found by their pixels."""
    whole = {dataset.train[i]['image'].tobytes(): i for i in range(len(dataset.train))}
    return [whole[part[i]['image'].tobytes()] for i in range(len(part))]


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=3).filter(lambda counts: max(counts) > 1),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 99),
)
def test_every_class_gives_its_share(counts, share, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    dataset = _dataset(labels)
    split = hold_out_validation(dataset, share, seed)
    train, validation = _places(dataset, split.train), _places(dataset, split.validation)
    assert sorted(train + validation) == list(range(len(labels)))
    np.testing.assert_array_equal(split.train.labels, labels[train])
    np.testing.assert_array_equal(split.validation.labels, labels[validation])
    for label, count in enumerate(counts):
        held = int((labels[validation] == label).sum())
        assert held == 0 if count == 1 else 1 <= held <= count - 1
        assert abs(held - share * count) <= 1
    assert split.test is dataset.test


def test_the_draw_depends_on_its_seed_alone():
    dataset = _dataset(np.arange(60) % 3)
    first, again, other = (_places(dataset, hold_out_validation(dataset, 0.2, seed).validation) for seed in (0, 0, 1))
    assert first == again != other
    # Another class, sorted before the others, moves no image of them.
    more = _dataset([*(np.arange(60) % 3 + 1), *[0] * 10], ('0', 'a', 'b', 'c'))
    assert [i for i in _places(more, hold_out_validation(more, 0.2, 0).validation) if i < 60] == first


@pytest.mark.parametrize('share', [-0.1, 1.0, 2])
def test_a_share_out_of_range(share):
    with pytest.raises(UserError, match='config.data.validation'):
        hold_out_validation(_dataset([0, 0, 1, 1]), share, 0)


def test_nothing_to_hold_out():
    with pytest.raises(UserError, match='no class has two'):
        hold_out_validation(_dataset([0, 1, 2]), 0.5, 0)


def test_a_subset_is_a_source():
    assert isinstance(Subset(ArraySource(4), np.array([2, 0])), Source)
