"""Discovery of parts: prototypes from the feature maps of the training images (section 3.1).

1. k-means over the foreground cells of the maps gives J clusters of cells that look alike. This needs no labels.
2. Cells that look alike need not differ between classes. What the features at the place of each prototype say about
   the class is measured on held-out folds.
3. The K - 1 prototypes that say most become the parts, except those that lie where one before them lies.

The places of a prototype mean the same in every image, which is what Eq. 2 asks for; that they be informative is the
second criterion of section 3.1.
"""

from typing import NamedTuple

import numpy as np
from scipy.cluster.vq import kmeans2

from ssanet_jax.models.prototypes import PROTOTYPE_LENGTH
from ssanet_jax.models.standardize import standardized
from ssanet_jax.training.linear_probe import assign_folds, out_of_fold

MAX_IMAGES = 1000  # among whose cells parts are looked for
MAX_CELLS = 40_000  # for k-means
NUM_FOLDS = 5
_RESTARTS = 4
_MIN_DISTANCE = 0.5  # of two parts: the median over images, as a share of the side of a part


class Clusters(NamedTuple):
    """Clusters of cells: the parameters of `PrototypeParts`."""

    mean: np.ndarray  # float32 [C]
    projection: np.ndarray  # float32 [C, P]
    prototypes: np.ndarray  # float32 [J, P], of length 1


def cluster_cells(cells: np.ndarray, count: int, seed: int) -> Clusters:
    """Clusters cells by direction in the space of their first principal components.

    Args:
      cells: float `[n, C]`, foreground cells of feature maps, n >= J.
      count: J.
      seed: seed of the sample of cells and of k-means.

    Raises:
      ValueError: there are fewer cells than clusters.
    """
    if len(cells) < count:
        raise ValueError(f'{len(cells)} cells cannot form {count} clusters')
    rng = np.random.default_rng(seed)
    cells = np.asarray(rng.permutation(cells)[:MAX_CELLS], np.float32)
    mean = cells.mean(0)
    centered = cells - mean
    _, vectors = np.linalg.eigh(centered.T @ centered / len(cells))  # in ascending order
    projection = np.zeros((cells.shape[1], PROTOTYPE_LENGTH), np.float32)  # the map may have fewer channels
    components = vectors[:, ::-1][:, :PROTOTYPE_LENGTH]
    projection[:, : components.shape[1]] = components
    directions = _unit(centered @ projection)
    best, prototypes = -np.inf, np.zeros((count, PROTOTYPE_LENGTH), np.float32)
    for _ in range(_RESTARTS):
        centers, _ = kmeans2(directions, count, iter=40, minit='++', missing='warn', rng=rng)
        centers = _unit(centers)
        fit = (directions @ centers.T).max(1).mean()
        if fit > best:
            best, prototypes = fit, centers
    return Clusters(mean, projection, prototypes.astype(np.float32))


def information(features: np.ndarray, labels: np.ndarray, num_classes: int, *, l2: float, seed: int) -> np.ndarray:
    """What each prototype says about the class: the accuracy of a linear classifier on held-out folds.

    Args:
      features: float `[n, J, C]`, the features at the place of each prototype in n images.
      labels: int `[n]`.
      num_classes: N.
      l2: see `fit_softmax`.
      seed: seed of the folds.

    Returns:
      float `[J]`, in [0, 1].
    """
    folds = assign_folds(labels, NUM_FOLDS, seed)
    accuracy = []
    for values in np.moveaxis(np.asarray(features, np.float32), 1, 0):  # [n, C]
        found = out_of_fold(standardized(values), labels, num_classes, folds, l2=l2)
        accuracy.append((found.argmax(1) == labels).mean())
    return np.array(accuracy)


def select_parts(accuracy: np.ndarray, cells: np.ndarray, count: int, part_cells: float) -> list[int]:
    """The prototypes that become parts, the most informative first.

    Args:
      accuracy: `[J]`, from `information`.
      cells: int `[n, J, 2]`, the place of each prototype in n images, row and column.
      count: K - 1.
      part_cells: side of a part, in cells.

    Returns:
      `count` different indices. A prototype that lies close to a better one in most images is passed over, unless
      nothing else is left.
    """
    order = list(np.argsort(-accuracy, kind='stable'))
    chosen: list[int] = []
    for index in order:
        distances = [np.median(np.linalg.norm(cells[:, index] - cells[:, other], axis=-1)) for other in chosen]
        if len(chosen) < count and all(distance >= _MIN_DISTANCE * part_cells for distance in distances):
            chosen.append(int(index))
    rest = [int(index) for index in order if index not in chosen]
    return (chosen + rest)[:count]


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9)
