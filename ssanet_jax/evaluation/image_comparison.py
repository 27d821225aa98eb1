"""Training images that are unlike all others, and images of two classes that are nearly the same: by their features.

Near duplicates have similar features of the whole image; their parts may differ, since a small change can move a part
elsewhere. An outlier differs from the others in the whole image and in its parts. `docs/trust.md` has what this finds.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ssanet_jax.runs.feature_index import FeatureIndex

NUM_NEIGHBORS = 10  # an image is unlike the others if it is far from its tenth neighbor; fewer strangers may be alike
MIN_SIMILARITY = 0.92  # of images that are nearly the same: the cosine of the features of the whole images
MIN_SCORE = 3.0  # of an outlier
_MIN_IMAGES = 2 * NUM_NEIGHBORS
_BLOCK = 512  # images that are compared with all others at a time


class SimilarImages(NamedTuple):
    """Two training images of different classes that are nearly the same."""

    first: int  # row of the index
    second: int  # a later row
    similarity: float


class Outlier(NamedTuple):
    """A training image that is unlike all others."""

    row: int  # of the index
    distance: float  # from its neighbor number `NUM_NEIGHBORS`: 1 less the mean cosine of image and parts
    score: float  # robust standard deviations by which the logarithm of the distance is above the median


class BlockComparison(NamedTuple):
    """The comparison of some images with all."""

    distances: np.ndarray  # float32 [b], from neighbor number `NUM_NEIGHBORS`
    similar: list[SimilarImages]  # pairs whose first image is one of these


def num_blocks(index: FeatureIndex) -> int:
    """The number of items that `compare_images` yields."""
    return -(-len(index.rows) // _BLOCK)


def compare_images(index: FeatureIndex) -> Iterator[BlockComparison]:
    """Compares all training images with each other: brute force, block by block in the order of the index.

    Memory holds the features of two blocks.
    """
    labels = index.labels
    starts = range(0, len(index.rows), _BLOCK)
    for start in starts:
        images, parts = _directions(index.rows[start : start + _BLOCK])
        nearest = np.zeros((len(images), 0), np.float32)
        similar = []
        for other in starts:
            of_images, of_parts = _directions(index.rows[other : other + _BLOCK])
            cosine = images @ of_images.T
            similarity = (cosine + parts @ of_parts.T) / (1 + index.num_parts)
            if other == start:
                np.fill_diagonal(similarity, -1)
            together = np.concatenate([nearest, similarity], 1)
            kept = min(NUM_NEIGHBORS, max(len(index.rows) - 1, 1), together.shape[1])  # not the image itself
            nearest = np.partition(together, -kept, axis=1)[:, -kept:]
            for i, j in np.argwhere(cosine >= MIN_SIMILARITY).tolist():
                first, second = start + i, other + j
                if first < second and labels[first] != labels[second]:
                    similar.append(SimilarImages(first, second, float(cosine[i, j])))
        yield BlockComparison(1 - nearest.min(1), similar)


def find_outliers(distances: np.ndarray) -> list[Outlier]:
    """Finds the images whose distance stands out, by the median and the median absolute deviation of logarithms.

    Args:
      distances: float `[n]`, of all images, from `compare_images`.

    Returns:
      The outliers, the most distant one first; none among fewer than 20 images.
    """
    if len(distances) < _MIN_IMAGES:
        return []
    logarithms = np.log(np.maximum(distances.astype(np.float64), 1e-6))
    above = logarithms - np.median(logarithms)
    deviation = 1.4826 * np.median(abs(above))  # the standard deviation of a normal distribution
    if not deviation:
        return []
    scores = above / deviation
    return [
        Outlier(int(row), float(distances[row]), float(scores[row]))
        for row in np.argsort(-scores, kind='stable')
        if scores[row] >= MIN_SCORE
    ]


def _directions(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of the images, float32 `[b, C]`, and of their parts, one after the other, `[b, K * D]`."""
    image, parts = (
        array / np.maximum(np.linalg.norm(array, axis=-1, keepdims=True), 1e-12)
        for array in (rows['image'].astype(np.float32), rows['parts'].astype(np.float32))
    )
    return image, parts.reshape(len(rows), -1)
