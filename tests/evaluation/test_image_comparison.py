"""Outliers and near duplicates among training images, by a feature index."""

import numpy as np
import pytest

from ssanet_jax.evaluation import image_comparison
from ssanet_jax.evaluation.image_comparison import compare_images, find_outliers, num_blocks
from ssanet_jax.runs.feature_index import FeatureIndex, row_type


def make_index(image, parts, labels):
    rows = np.zeros(len(image), row_type(image.shape[1], *parts.shape[1:]))
    rows['image'], rows['parts'], rows['label'] = image, parts, labels
    return FeatureIndex(rows, [f'{i}.jpg' for i in range(len(rows))], 'fit', '')


@pytest.fixture
def index():
    """60 images: 7, 40 and 41 are alike but for a part of 41, and 7 is in another class; 20 is a stranger."""
    rng = np.random.default_rng(0)
    image, parts = 1 + rng.normal(size=(60, 32)), 1 + rng.normal(size=(60, 2, 16))
    image[[7, 41]], parts[[7, 41]] = image[40], parts[40]
    image[41] *= 3  # the length of a vector says nothing
    parts[41, 0] = 1 + rng.normal(size=16)
    image[20], parts[20] = -image[20], -parts[20]
    labels = np.arange(60) % 4
    labels[[7, 40, 41]] = 0, 1, 1
    return make_index(image, parts, labels)


def expected_similarity(index):
    cosine = lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    image, parts = index.rows['image'].astype(float), index.rows['parts'].astype(float)
    return np.array(
        [
            [(cosine(image[i], image[j]) + sum(map(cosine, parts[i], parts[j]))) / 3 for j in range(len(image))]
            for i in range(len(image))
        ]
    )


@pytest.mark.parametrize('block', [7, 60, 100])
def test_distances_and_pairs_are_those_of_all_pairs(index, block, monkeypatch):
    monkeypatch.setattr(image_comparison, '_BLOCK', block)
    found = list(compare_images(index))
    assert len(found) == num_blocks(index) == -(-60 // block)
    similarity = expected_similarity(index)
    np.fill_diagonal(similarity, -2)
    distances = np.concatenate([one.distances for one in found])
    np.testing.assert_allclose(distances, 1 - np.sort(similarity)[:, -10], atol=2e-3)
    # 40 and 41 are of one class.
    pairs = [pair for one in found for pair in one.similar]
    assert [(pair.first, pair.second) for pair in pairs] == [(7, 40), (7, 41)]
    assert all(pair.similarity == pytest.approx(1, abs=1e-3) for pair in pairs)


def test_a_stranger_stands_out(index):
    (outlier,) = find_outliers(np.concatenate([one.distances for one in compare_images(index)]))
    assert outlier.row == 20 and outlier.score > 3 and outlier.distance > 1


def test_few_or_equal_images_have_no_outliers():
    assert find_outliers(np.array([0.1] * 18 + [2.0])) == []
    assert find_outliers(np.full(50, 0.1)) == []
    few = make_index(np.eye(3), np.ones((3, 0, 4)), [0, 1, 2])
    (only,) = compare_images(few)
    np.testing.assert_allclose(only.distances, 1, atol=1e-6)
    assert only.similar == []
