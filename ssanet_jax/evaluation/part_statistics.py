"""Statistics of located parts over annotated images: where the parts are, and whether an index means one part."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.clustering import adjusted_rand_index, contingency_table, normalized_mutual_information
from ssanet_jax.evaluation.keypoint_layout import KeypointLayout

NEAR = 0.2  # a part is at a key point within this share of the diagonal of the object's box


class LocatedParts(NamedTuple):
    """The parts of a batch of images.

    Attributes:
      boxes: `[B, K, 4]`, `(y0, x0, y1, x1)`, pixels of the input.
      present: bool `[B, K]`; statistics use the parts that are present. None: all parts are.
      assignment: int `[B, h, w]`, the part, or another number for the background, of each cell of a map that covers
        the input evenly. None: a key point belongs to the part with the nearest center.
    """

    boxes: np.ndarray | jax.Array
    present: np.ndarray | jax.Array | None = None
    assignment: np.ndarray | jax.Array | None = None


class Annotations(NamedTuple):
    """The annotations of n images.

    Attributes:
      keypoints: `[n, P, 3]`, (y, x, visible), pixels of the input; at least one is visible in each image.
      objects: `[n, 4]`, the box around the object, pixels of the input.
      image_size: side of the input, pixels.
    """

    keypoints: np.ndarray
    objects: np.ndarray
    image_size: int


@dataclass(frozen=True)
class PartStatistics:
    """Statistics of the centers of the parts that are present.

    Left and right key points are merged (`keypoint_layout.merge_left_right`) unless stated otherwise: Q are left.

    Attributes:
      present: `[K]`, share of the images in which the part is present.
      distance: from the center of a part to the nearest visible key point, pixels of the input, mean over parts and
        images.
      distance_of_part: `[K]`, the same for each part; None for a part that is never present.
      distance_share: the same relative to the diagonal of the image's own object box, both in the input, where images
        are resized to a square.
      inside: share of the centers that lie inside the object's box, its edge included.
      nearest: `[K][Q]`, share of the images in which the key point is the visible one nearest to the part (the first
        in case of ties); each row sums to 1, or to 0 for a part that is never present.
      consistency, consistency_shuffled: see `part_consistency`.
      nmi, ari: normalized mutual information and adjusted Rand index of the part (see `assign_keypoints`) and the name
        of each visible key point.
      nmi_unmerged, ari_unmerged: the same with left and right as different key points, as in published figures.
      pck: `[K][Q + G]`, for each key point and each group (see `PartDistances`), share of the images that show it in
        which the part is present and its center is within `NEAR` of the object's diagonal from it; None if no image
        shows it.
      best_part: `[Q + G]`, the part (from 0) with the largest `pck`, the same part in all images.
    """

    present: list[float]
    distance: float
    distance_of_part: list[float | None]
    distance_share: float
    inside: float
    nearest: list[list[float]]
    consistency: float
    consistency_shuffled: float
    nmi: float
    ari: float
    nmi_unmerged: float
    ari_unmerged: float
    pck: list[list[float | None]]
    best_part: list[int | None]


class PartDistances(NamedTuple):
    """Distances from the centers of the parts, pixels of the input; inf to key points that are not visible.

    Attributes:
      annotated: `[n, K, P]`, to each annotated key point.
      targets: `[n, K, Q + G]`, to each merged key point (the nearer one if both sides are visible), then to each group:
        the mean of its visible annotated key points.
      shown: bool `[n, Q + G]`, whether the key point, or one of the group, is visible.
      diagonal: `[n]`, of the object's box.
    """

    annotated: np.ndarray
    targets: np.ndarray
    shown: np.ndarray
    diagonal: np.ndarray


def part_distances(boxes: np.ndarray, annotations: Annotations, layout: KeypointLayout) -> PartDistances:
    """Measures the distances from the parts to the key points and their groups.

    Args:
      boxes: `[n, K, 4]`, pixels of the input.
      annotations: those of the images.
      layout: which key points count as one, and the groups.
    """
    keypoints, objects = (np.asarray(x, np.float64) for x in annotations[:2])
    visible = keypoints[..., 2] > 0  # [n, P]
    places = np.where(visible[..., None], keypoints[..., :2], 0)  # [n, P, 2]; hidden ones may be nan
    centers = _centers(boxes)
    annotated = _distances(centers, places, visible)  # [n, K, P]
    merged = np.array(layout.merged)
    targets = [annotated[..., merged == index].min(-1, keepdims=True) for index in range(len(layout.names))]
    shown = [visible[:, merged == index].any(1, keepdims=True) for index in range(len(layout.names))]
    for members in layout.groups.values():
        counts = visible[:, members].sum(1, keepdims=True)  # [n, 1]
        mean = places[:, members].sum(1) / np.maximum(counts, 1)  # [n, 2]; places of hidden key points are 0
        targets.append(_distances(centers, mean[:, None], counts > 0))
        shown.append(counts > 0)
    diagonal = np.linalg.norm(objects[:, 2:] - objects[:, :2], axis=-1)
    return PartDistances(annotated, np.concatenate(targets, -1), np.concatenate(shown, -1), diagonal)


def _centers(boxes: np.ndarray | jax.Array) -> np.ndarray:
    boxes = np.asarray(boxes, np.float64)
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def _distances(centers: np.ndarray, places: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """From `[n, K, 2]` to `[n, P, 2]`, as `[n, K, P]`; inf where `visible`, `[n, P]`, is False."""
    distances = np.linalg.norm(centers[:, :, None] - places[:, None], axis=-1)
    return np.where(visible[:, None], distances, np.inf)


def part_statistics(parts: LocatedParts, annotations: Annotations, layout: KeypointLayout) -> PartStatistics:
    """Computes the statistics of the parts over all images.

    Args:
      parts: the parts of the n images.
      annotations: those of the images.
      layout: which key points count as one, and the groups.

    Raises:
      UserError: no part is present in any image.
    """
    distances = part_distances(np.asarray(parts.boxes), annotations, layout)
    num_names = len(layout.names)
    present = presence(parts)  # [n, K]
    if not present.any():
        raise UserError('no part is present in any test image: locate the parts with a lower threshold of presence')
    nearest = distances.targets[..., :num_names].argmin(-1)  # [n, K]
    distance = distances.targets[..., :num_names].min(-1)  # [n, K]
    objects = np.asarray(annotations.objects, np.float64)[:, None]
    centers = _centers(parts.boxes)
    inside = ((centers >= objects[..., :2]) & (centers <= objects[..., 2:])).all(-1)  # [n, K]
    shares = present[..., None] * np.eye(num_names)[nearest]  # [n, K, Q]

    counts = present.sum(0)
    sums = np.where(present, distance, 0).sum(0)
    consistency, shuffled = part_consistency(nearest, num_names, present)

    visible = annotations.keypoints[..., 2] > 0  # [n, P]
    assigned = assign_keypoints(parts, annotations, distances.annotated)[visible]
    keypoints = np.broadcast_to(np.arange(visible.shape[1]), visible.shape)[visible]
    merged = contingency_table(assigned, np.array(layout.merged)[keypoints])
    unmerged = contingency_table(assigned, keypoints)

    within = present[..., None] & (distances.targets <= NEAR * distances.diagonal[:, None, None])  # [n, K, Q + G]
    hits, shown = within.sum(0), distances.shown.sum(0)  # [K, Q + G], [Q + G]: numbers of images
    return PartStatistics(
        present=(counts / len(present)).tolist(),
        distance=float(distance[present].mean()),
        distance_of_part=[float(total / n) if n else None for total, n in zip(sums, counts)],
        distance_share=float((distance / distances.diagonal[:, None])[present].mean()),
        inside=float(np.mean(inside, where=present)),
        nearest=(shares.sum(0) / np.maximum(counts, 1)[:, None]).tolist(),
        consistency=consistency,
        consistency_shuffled=shuffled,
        nmi=normalized_mutual_information(merged),
        ari=adjusted_rand_index(merged),
        nmi_unmerged=normalized_mutual_information(unmerged),
        ari_unmerged=adjusted_rand_index(unmerged),
        pck=[[int(count) / int(n) if n else None for count, n in zip(row, shown)] for row in hits],
        best_part=[int(column.argmax()) if n else None for column, n in zip(hits.T, shown)],
    )


def presence(parts: LocatedParts) -> np.ndarray:
    """bool `[n, K]`: whether each part is present."""
    if parts.present is None:
        return np.ones(parts.boxes.shape[:2], bool)
    return np.asarray(parts.present).astype(bool)


def assign_keypoints(parts: LocatedParts, annotations: Annotations, distances: np.ndarray) -> np.ndarray:
    """Assigns each annotated key point to a part, for the agreement of parts and key points.

    Choudhury, Laina, Rupprecht and Vedaldi: Unsupervised Part Discovery from Contrastive Reconstruction (NeurIPS 2021);
    van der Klis et al.: PDiscoNet (ICCV 2023). There, a key point is assigned to the part, or the background, with the
    largest attention at its place, which `parts.assignment` holds. Boxes have no attention: without a map, a key point
    is assigned to the part with the nearest center.

    Args:
      parts: the parts of the n images.
      annotations: those of the images.
      distances: `[n, K, P]`, from each part to each annotated key point.

    Returns:
      int `[n, P]`: the part; K where no part of the image is present; arbitrary where the key point is not visible.
    """
    if parts.assignment is None:
        present = presence(parts)
        nearest = np.where(present[..., None], distances, np.inf).argmin(1)  # [n, P]
        return np.where(present.any(1, keepdims=True), nearest, present.shape[1])
    assignment = np.asarray(parts.assignment)
    size = np.array(assignment.shape[1:])
    keypoints = np.asarray(annotations.keypoints, np.float64)
    places = np.where(keypoints[..., 2:] > 0, keypoints[..., :2], 0)  # [n, P, 2]
    cells = np.clip((places / annotations.image_size * size).astype(int), 0, size - 1)
    return assignment[np.arange(len(cells))[:, None], cells[..., 0], cells[..., 1]]


def part_consistency(nearest: np.ndarray, num_keypoints: int, present: np.ndarray | None = None) -> tuple[float, float]:
    """Measures whether the same index means the same part, the aim of the alignment constraints (Eq. 2).

    Like those it compares pairs of images, and needs no assignment of parts to key points.

    Args:
      nearest: int `[n, K]`, the key point nearest to each part.
      num_keypoints: Q.
      present: bool `[n, K]`, the parts that are present. None: all parts are.

    Returns:
      The consistency: how often, over all parts and all pairs of different images in which the part is present, the
      part is nearest to the same key point in both. And its expectation if the indices of the present parts were
      shuffled within each image. Boxes that all coincide have a high consistency in any order, so only an excess over
      the shuffled value shows that an index has a meaning. Both are 0 if there is no such pair.
    """
    present = np.ones(nearest.shape) if present is None else present.astype(float)
    one_hot = present[..., None] * np.eye(num_keypoints)[nearest]  # [n, K, Q]
    # When shuffled, each part is nearest to a key point as often as the image's present parts are on average.
    counts = np.maximum(present.sum(1), 1)  # [n]
    shuffled = present[..., None] * (one_hot.sum(1) / counts[:, None])[:, None]  # [n, K, Q]
    # Over ordered pairs: all pairs minus those of an image with itself.
    over_pairs = lambda x: float((x.sum(0) ** 2 - (x**2).sum(0)).sum())
    num_pairs = max(over_pairs(present), 1)
    return over_pairs(one_hot) / num_pairs, over_pairs(shuffled) / num_pairs
