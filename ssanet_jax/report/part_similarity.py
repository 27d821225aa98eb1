"""How similar the aligned parts of images of one class are to the network (the paper's Figure 5)."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from rich.console import Console

from ssanet_jax.data.dataset import Dataset
from ssanet_jax.data.preprocessing import preprocess_for_evaluation
from ssanet_jax.errors import UnreadableImage, UserError
from ssanet_jax.evaluation.aligned_maps import AlignedMaps, AlignedParts
from ssanet_jax.evaluation.prediction import ORIENTATIONS
from ssanet_jax.evaluation.sheets import evenly
from ssanet_jax.plain_text import track
from ssanet_jax.runs.run import Run

# The features of a part that are compared.
FIXED = 'pooled'  # Gamma_h with Gamma_h and Gamma_v with Gamma_v (Eq. 9, 10); the mean of the two cosines
CHOSEN = 'pooled, at the chosen orientations'  # the orientations that maximize Eq. 13 in each of the two images
MAP = '7 x 7 map'  # all channels of the aligned map
OTHER_MAP = '7 x 7 map of the other run'
_ORIENTATION = 'orientation'  # one-hot vectors, so that the cosine is 1 for equal orientations and 0 otherwise


@dataclass(frozen=True)
class CosineStatistics:
    """Cosines between pairs of images, each the mean over their parts, part k with part k."""

    same_class: float  # mean over pairs of one class
    different_classes: float  # mean over pairs of different classes
    roc_auc: float  # probability that a pair of one class has a higher cosine than a pair of different classes


@dataclass(frozen=True)
class PartSimilarity:
    """One part of two images of one class, and the similarity of the parts over all compared pairs of images.

    Attributes:
      label: the class of both images.
      part: k, from 0.
      indices: positions of the images in the test set.
      images: uint8 `[2, S, S, 3]`, the network's inputs.
      boxes: `[2, 4]`, the part at the chosen scale, pixels of the input.
      orientation: int `[2]`, the chosen orientations, indices of `ORIENTATIONS`.
      pooled: `[2, 4, G * P * P]`, Gamma_h, Gamma_v, Gamma'_h, Gamma'_v, each the mean over channels.
      maps: `[2, 49]`, the aligned map row by row, mean over channels.
      other_maps: `[2, 49]`, the same of the other run, from its own part k; None without another run.
      cosines: between the two images, of the whole vectors (not of their means over channels).
      statistics: over all pairs.
      same_class_pairs, different_class_pairs: number of compared pairs.
      same_orientation: share of parts with the same orientation, in pairs of one class and of different classes.
    """

    label: int
    part: int
    indices: tuple[int, int]
    images: np.ndarray
    boxes: np.ndarray
    orientation: np.ndarray
    pooled: np.ndarray
    maps: np.ndarray
    other_maps: np.ndarray | None
    cosines: dict[str, float]
    statistics: dict[str, CosineStatistics]
    same_class_pairs: int
    different_class_pairs: int
    same_orientation: tuple[float, float]


def compare_parts(
    run: Run,
    dataset: Dataset,
    console: Console,
    other: Run | None = None,
    *,
    num_classes: int = 50,
    images_per_class: int = 4,
) -> PartSimilarity:
    """Compares the parts of test images of one class with those of images of different classes.

    The images are evenly spaced: classes with at least two test images, and images of each class. All pairs within a
    class are compared, and all pairs of each class with the previous class. The example is the median pair and part by
    the cosine at the chosen orientations.

    Args:
      run: a run whose network has oriented pooling.
      dataset: the data set whose test images are compared.
      console: shows the progress.
      other: a run on the same classes with as many parts, such as one trained without oriented pooling.
      num_classes: the most classes to compare.
      images_per_class: the most images to compare of each class, at least 2.

    Raises:
      UserError: the run has no oriented pooling, the other run is not comparable, or there are too few test images.
    """
    check_comparable(run, other)
    extractors = [_PartExtractor(of, images_per_class) for of in (run, other) if of]
    names = [FIXED, CHOSEN, MAP, OTHER_MAP][: 2 + len(extractors)]
    same_lists: dict[str, list[np.ndarray]] = {name: [] for name in [*names, _ORIENTATION]}
    different_lists: dict[str, list[np.ndarray]] = {name: [] for name in same_lists}
    pairs: list[tuple[int, int]] = []
    previous: dict[str, np.ndarray] = {}
    groups = _image_groups(dataset.test.labels, num_classes, images_per_class)
    for group in track(groups, 'comparing parts', console=console, transient=True):
        indices, images = _load_readable(dataset, group)
        if len(indices) < 2:
            continue
        features = _part_features(extractors[0](images))
        if other:
            features[OTHER_MAP] = _part_features(extractors[1](images))[MAP]
        first, second = np.triu_indices(len(indices), 1)
        pairs += [(indices[i], indices[j]) for i, j in zip(first, second)]
        for name, of_group in features.items():
            same_lists[name].append(_cosines(of_group, of_group)[first, second])  # [pairs, K]
            if previous:
                across = _cosines(of_group, previous[name])
                different_lists[name].append(across.reshape(-1, across.shape[-1]))
        previous = features
    if not different_lists[MAP]:
        raise UserError(
            f'{dataset.name} has too few test images to compare parts: two classes of two images are needed'
        )
    same = {name: np.concatenate(cosines) for name, cosines in same_lists.items()}
    different = {name: np.concatenate(cosines) for name, cosines in different_lists.items()}

    median = np.argsort(same[CHOSEN], axis=None, kind='stable')[same[CHOSEN].size // 2]
    pair, part = (int(i) for i in np.unravel_index(median, same[CHOSEN].shape))
    _, images = _load_readable(dataset, pairs[pair])
    extracted = [extract(images) for extract in extractors]
    mean_map = lambda parts: parts.maps[:, part].mean(-1).reshape(2, -1)
    channels = extracted[0].maps.shape[-1]
    return PartSimilarity(
        label=int(dataset.test.labels[pairs[pair][0]]),
        part=part,
        indices=pairs[pair],
        images=np.stack(extractors[0].inputs(images)),
        boxes=extracted[0].boxes[:, part],
        orientation=extracted[0].orientation[:, part],
        pooled=extracted[0].pooled[:, part].reshape(2, len(ORIENTATIONS), -1, channels).mean(-1),
        maps=mean_map(extracted[0]),
        other_maps=mean_map(extracted[1]) if other else None,
        cosines={name: float(same[name][pair, part]) for name in names},
        statistics={name: cosine_statistics(same[name].mean(1), different[name].mean(1)) for name in names},
        same_class_pairs=len(pairs),
        different_class_pairs=len(different[MAP]),
        same_orientation=(float(same[_ORIENTATION].mean()), float(different[_ORIENTATION].mean())),
    )


def cosine_statistics(same: np.ndarray, different: np.ndarray) -> CosineStatistics:
    """Statistics of the cosines of pairs of one class, `[n]`, and of different classes, `[m]`."""
    # Mann-Whitney U over n * m is the area under the ROC curve; ties count half.
    u = scipy.stats.mannwhitneyu(same, different, method='asymptotic').statistic
    return CosineStatistics(float(same.mean()), float(different.mean()), float(u / (len(same) * len(different))))


class _PartExtractor:
    """A run as a function from images of any size to their aligned parts."""

    def __init__(self, run: Run, batch_size: int):
        self._aligned_maps = AlignedMaps(run.model, run.active, batch_size)
        self._data = run.config.data

    def inputs(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [preprocess_for_evaluation(image, self._data) for image in images]

    def __call__(self, images: Sequence[np.ndarray]) -> AlignedParts:
        return self._aligned_maps(self.inputs(images))


def check_comparable(run: Run, other: Run | None) -> None:
    """Raises `UserError` if the run has no oriented pooling or the other run cannot be compared with it."""
    if 'oriented_pooling' not in run.active:
        raise UserError(f'the network of stage {run.stage} has no oriented pooling: take a run that trains it')
    if other is None:
        return
    if other.class_names != run.class_names:
        raise UserError('the two runs were trained on different classes: take runs on the same data set')
    if 'proposals' not in other.active or other.model.num_parts != run.model.num_parts:
        raise UserError(f'the other run must locate {run.model.num_parts} parts, as this one does: take another')


def _image_groups(labels: np.ndarray, num_classes: int, images_per_class: int) -> list[list[int]]:
    """Positions of the images to compare, one list per class."""
    positions = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    positions = [of_class for of_class in positions if len(of_class) > 1]
    chosen = [positions[i] for i in evenly(num_classes, len(positions))]
    return [of_class[evenly(images_per_class, len(of_class))].tolist() for of_class in chosen]


def _load_readable(dataset: Dataset, indices: Sequence[int]) -> tuple[list[int], list[np.ndarray]]:
    """The readable ones of these test images, with their positions."""
    images = {}
    for index in indices:
        with contextlib.suppress(UnreadableImage):  # listed among the mistakes
            images[index] = dataset.test[index]['image']
    return list(images), list(images.values())


def _part_features(parts: AlignedParts) -> dict[str, np.ndarray]:
    """The features to compare: `[B, K, n, L]`, n vectors per part."""
    chosen = np.take_along_axis(parts.pooled, parts.orientation[..., None, None], 2)
    return {
        FIXED: parts.pooled[:, :, :2],  # the reversed orientations have the same cosines
        CHOSEN: chosen,
        MAP: parts.maps.reshape(*parts.maps.shape[:2], 1, -1),
        _ORIENTATION: np.eye(len(ORIENTATIONS), dtype=np.float32)[parts.orientation][:, :, None],
    }


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosines between each image of `a` and each of `b`, `[B, K, n, L]`, `[D, K, n, L]` -> `[B, D, K]`."""
    a, b = (x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12) for x in (a, b))
    return np.einsum('iknl,jknl->ijk', a, b, optimize=True) / a.shape[2]
