"""The training images that look most like a given one, or whose parts do: brute force over a feature index."""

from typing import NamedTuple

import numpy as np

from ssanet_jax.runs.feature_index import FeatureIndex

_CHUNK_BYTES = 64 << 20  # of rows that are read at a time


class Neighbor(NamedTuple):
    """A training image that resembles a given one."""

    file: str  # relative to the folder of the data set
    label: int
    similarity: float  # cosine of the features
    row: int  # of the index


def nearest_images(
    index: FeatureIndex, features: np.ndarray, part: int | None = None, k: int = 3, label: int | None = None
) -> list[Neighbor]:
    """Finds the images with the highest cosine similarity.

    Args:
      index: the features of the training images.
      features: float `[C]`, of the whole image, or `[D]`, of the part.
      part: the part to compare, from 0; None for the whole image.
      k: number of neighbors.
      label: consider only images of this class.

    Returns:
      At most k neighbors, most similar first; parts that are not to be seen are left out.

    Raises:
      ValueError: there is no such part, or the features are of another length.
    """
    if part is not None and not 0 <= part < index.num_parts:
        raise ValueError(f'part {part} of {index.num_parts}: parts are numbered from 0')
    length = index.rows.dtype['image' if part is None else 'parts'].shape[-1]
    if features.shape != (length,):
        raise ValueError(f'features of shape {features.shape}, but those of the index have shape {(length,)}')
    candidates = np.arange(len(index.rows)) if label is None else np.flatnonzero(index.labels == label)
    step = max(_CHUNK_BYTES // index.rows.dtype.itemsize, 1)
    query = features.astype(np.float32)
    query /= max(float(np.linalg.norm(query)), 1e-12)
    similarity = np.full(len(candidates), -np.inf, np.float32)
    for start in range(0, len(candidates), step):
        rows = index.rows[candidates[start : start + step]]
        vectors = (rows['image'] if part is None else rows['parts'][:, part]).astype(np.float32)
        found = vectors @ query / np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)
        similarity[start : start + step] = found if part is None else np.where(rows['present'][:, part], found, -np.inf)
    best = [i for i in np.argsort(-similarity, kind='stable')[:k].tolist() if np.isfinite(similarity[i])]
    files = index.files
    return [
        Neighbor(str(files[row]), int(index.labels[row]), float(similarity[i]), row)
        for i, row in zip(best, candidates[best].tolist())
    ]
