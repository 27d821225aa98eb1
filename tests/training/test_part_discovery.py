"""Parts that were planted are found, whatever the class labels say; parts that say nothing are not chosen."""

import chex
import numpy as np
import pytest

from ssanet_jax.models.prototypes import PROTOTYPE_LENGTH
from ssanet_jax.training.part_discovery import cluster_cells, information, select_parts


def planted_cells(seed=0, count=4, channels=100, n=400):
    rng = np.random.default_rng(seed)
    kinds = rng.integers(count, size=n)
    return np.abs(5 * rng.normal(size=(count, channels))[kinds] + rng.normal(size=(n, channels))), kinds


def assign(cells, clusters):
    projected = (cells - clusters.mean) @ clusters.projection
    projected /= np.linalg.norm(projected, axis=1, keepdims=True)
    return (projected @ clusters.prototypes.T).argmax(1)


def test_clusters_are_the_planted_kinds():
    cells, kinds = planted_cells()
    found = assign(cells, cluster_cells(cells, 4, seed=0))
    pairs = set(zip(found.tolist(), kinds.tolist()))
    assert len(pairs) == 4  # one cluster for each kind, and one kind for each cluster


def test_scaling_a_cell_about_the_mean_does_not_change_its_cluster():
    cells, _ = planted_cells()
    clusters = cluster_cells(cells, 4, seed=0)
    scaled = clusters.mean + 3.0 * (cells - clusters.mean)
    np.testing.assert_array_equal(assign(cells, clusters), assign(scaled, clusters))


def test_prototypes_are_directions_and_deterministic():
    cells, _ = planted_cells()
    first, second = (cluster_cells(cells, 3, seed=5) for _ in range(2))
    chex.assert_trees_all_equal(first, second)
    chex.assert_shape(first.prototypes, (3, PROTOTYPE_LENGTH))
    chex.assert_trees_all_close(np.linalg.norm(first.prototypes, axis=1), np.ones(3), rtol=1e-5)


def test_few_channels_fill_the_projection_with_zeros():
    cells, _ = planted_cells(channels=10)
    clusters = cluster_cells(cells, 4, seed=0)
    assert not clusters.projection[:, 10:].any()
    assert np.isfinite(clusters.prototypes).all()


def test_refuses_fewer_cells_than_clusters():
    with pytest.raises(ValueError, match='3 cells cannot form 4 clusters'):
        cluster_cells(np.zeros((3, 8)), 4, seed=0)


def test_information_is_what_a_stranger_can_read():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 30)
    telling = 4 * np.eye(4)[labels] + rng.normal(size=(120, 4))
    silent = rng.normal(size=(120, 4))
    accuracy = information(np.stack([silent, telling], 1), labels, 4, l2=0.1, seed=0)
    assert accuracy[1] > 0.9
    assert accuracy[0] < 0.5


def test_the_most_informative_parts_that_lie_apart_are_chosen():
    rng = np.random.default_rng(0)
    place = lambda row, column: np.array([row, column]) + rng.integers(-1, 2, size=(50, 2))
    cells = np.stack([place(2, 2), place(2, 3), place(9, 9), place(12, 2)], 1)
    accuracy = np.array([0.7, 0.8, 0.5, 0.6])
    assert select_parts(accuracy, cells, 3, part_cells=5) == [1, 3, 2]  # 0 lies where 1 lies
    assert select_parts(accuracy, cells, 4, part_cells=5) == [1, 3, 2, 0]  # nothing else is left
