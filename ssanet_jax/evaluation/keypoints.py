"""Distances from the parts to annotated key points (the paper's Figure 4), and the consistency of part indices."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ssanet_jax.data.dataset import Dataset, Source
from ssanet_jax.data.pipeline import Batch, eval_batches
from ssanet_jax.data.transforms import to_input_pixels
from ssanet_jax.distributed import sharding
from ssanet_jax.errors import UserError


@dataclass(frozen=True)
class PartStatistics:
    """Statistics of the centers of the parts.

    Attributes:
      distance: from the center of a part to the nearest visible key point, pixels of the input, mean over parts and
        images.
      distance_of_part: `[K]`, the same for each part.
      distance_share: the same relative to the diagonal of the image's own object box, both in the input, where images
        are resized to a square.
      inside: share of the centers that lie inside the object's box, its edge included.
      nearest: `[K][P]`, share of the images in which the key point is the visible one nearest to the part (the first
        in case of ties); each row sums to 1.
      consistency, consistency_shuffled: see `part_consistency`.
    """

    distance: float
    distance_of_part: list[float]
    distance_share: float
    inside: float
    nearest: list[list[float]]
    consistency: float
    consistency_shuffled: float


@dataclass(frozen=True)
class KeypointResult:
    """Statistics of the parts of all images with a visible key point.

    Attributes:
      images: number of images.
      without_keypoints: number of images left out because no key point is visible.
      unreadable: positions of the images left out because they cannot be read.
      boxes: statistics by name, such as those of the parts before and after scale mining.
    """

    images: int
    without_keypoints: int
    unreadable: list[int]
    boxes: dict[str, PartStatistics]


def check_keypoints(dataset: Dataset) -> None:
    """Raises `UserError` if the data set has no key points."""
    if not dataset.keypoint_names:
        raise UserError(f'{dataset.name} has no key points to measure the parts by: cub and toy_birds have')


def annotated_batches(dataset: Dataset, data: Any) -> Iterator[Batch]:
    """Iterates over the test images with their annotations.

    Args:
      dataset: a data set with key points.
      data: the `data` section of a config.

    Returns:
      An iterator of the batches of `eval_batches` with two more entries: `'keypoints'`, float32 `[b, P, 3]`,
      (y, x, visible), and `'box'`, float32 `[b, 4]`, around the object, both in pixels of the network's input. A key
      point outside of the crop is not visible; the box is not clipped. Both are zero where there is no image.
    """
    source = _AnnotationSource(dataset.test, data)
    missing = (np.zeros((len(dataset.keypoint_names), 3), np.float32), np.zeros(4, np.float32))
    for batch in eval_batches(source, data):
        readable = batch['mask'] & (batch['skipped'] < 0)
        annotations = [
            source.annotations.pop(int(index)) if is_readable else missing
            for index, is_readable in zip(batch['index'], readable)
        ]
        keypoints, boxes = (np.stack(column) for column in zip(*annotations))
        yield batch | {'keypoints': keypoints, 'box': boxes}


class _AnnotationSource:
    """Wraps a source and keeps the annotations of each image read, so that no image is decoded twice."""

    def __init__(self, source: Source, data: Any):
        self._source, self._data = source, data
        self.labels = source.labels
        self.annotations: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self._source[index]
        self.annotations[int(index)] = annotations_in_input_pixels(example, self._data)
        return example


def annotations_in_input_pixels(example: Mapping[str, Any], data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Converts the annotations of an example to pixels of the network's input.

    Args:
      example: an example of a data set with key points: `'image'`, `'keypoints'`, `'box'` (see `dataset.Source`).
      data: the `data` section of a config.

    Returns:
      Key points, float32 `[P, 3]`, (y, x, visible), where a point outside of the crop is not visible; and the box,
      float32 `[4]`, `(y0, x0, y1, x1)`, not clipped.
    """
    shape = example['image'].shape[:2]
    points = to_input_pixels(example['keypoints'][:, :2], shape, data)
    inside = ((points >= 0) & (points <= data.image_size)).all(-1)
    keypoints = np.column_stack([points, (example['keypoints'][:, 2] > 0) & inside])
    return keypoints.astype(np.float32), to_input_pixels(example['box'], shape, data).astype(np.float32)


def evaluate_keypoints(
    locate: Callable[[jax.Array], Mapping[str, jax.Array | np.ndarray]], batches: Iterable[Batch], mesh: Mesh
) -> KeypointResult:
    """Compares the parts of all images with their key points, in one process.

    Args:
      locate: images, uint8 `[B, S, S, 3]` on the devices of the mesh -> `{name: boxes [B, K, 4]}`, such as the parts
        before and after scale mining, in pixels of the input.
      batches: from `annotated_batches`.
      mesh: the devices.

    Raises:
      UserError: no image has a visible key point.
    """
    collected: list[dict[str, np.ndarray]] = []
    names: list[str] = []
    unreadable: list[int] = []
    without_keypoints = 0
    for batch, on_device in sharding.prefetch_to_device(batches, mesh, ('image',)):
        boxes = {name: np.asarray(value) for name, value in locate(on_device['image']).items()}
        names = list(boxes)
        readable = batch['mask'] & (batch['skipped'] < 0)
        usable = (batch['keypoints'][..., 2] > 0).any(-1)  # never without an image
        annotations = {name: batch[name] for name in ('keypoints', 'box')}  # keeping the images would fill the memory
        collected.append({name: value[usable] for name, value in (annotations | boxes).items()})
        without_keypoints += int((readable & ~usable).sum())
        unreadable += batch['skipped'][(batch['skipped'] >= 0) & batch['mask']].tolist()
    arrays = {name: np.concatenate([part[name] for part in collected]) for name in collected[0]}
    if not len(arrays['box']):
        raise UserError('no test image has a visible key point: check config.data')
    return KeypointResult(
        images=len(arrays['box']),
        without_keypoints=without_keypoints,
        unreadable=unreadable,
        boxes={name: part_statistics(arrays[name], arrays['keypoints'], arrays['box']) for name in names},
    )


def part_statistics(boxes: np.ndarray, keypoints: np.ndarray, objects: np.ndarray) -> PartStatistics:
    """Computes the statistics of the centers of the parts over all images.

    Args:
      boxes: `[n, K, 4]`, the parts, pixels of the input.
      keypoints: `[n, P, 3]`, (y, x, visible), pixels of the input; at least one is visible in each image.
      objects: `[n, 4]`, the box around the object, pixels of the input.
    """
    boxes, keypoints, objects = (x.astype(np.float64) for x in (boxes, keypoints, objects))
    centers = (boxes[..., :2] + boxes[..., 2:]) / 2  # [n, K, 2]
    distances = np.linalg.norm(centers[:, :, None] - keypoints[:, None, :, :2], axis=-1)  # [n, K, P]
    distances = np.where(keypoints[:, None, :, 2] > 0, distances, np.inf)
    nearest, distance = distances.argmin(-1), distances.min(-1)  # [n, K]
    diagonal = np.linalg.norm(objects[:, 2:] - objects[:, :2], axis=-1)  # [n]
    inside = ((centers >= objects[:, None, :2]) & (centers <= objects[:, None, 2:])).all(-1)  # [n, K]
    num_keypoints = keypoints.shape[1]
    consistency, shuffled = part_consistency(nearest, num_keypoints)
    return PartStatistics(
        distance=float(distance.mean()),
        distance_of_part=distance.mean(0).tolist(),
        distance_share=float((distance / diagonal[:, None]).mean()),
        inside=float(inside.mean()),
        nearest=np.eye(num_keypoints)[nearest].mean(0).tolist(),
        consistency=consistency,
        consistency_shuffled=shuffled,
    )


def part_consistency(nearest: np.ndarray, num_keypoints: int) -> tuple[float, float]:
    """Measures whether the same index means the same part, the aim of the alignment constraints (Eq. 2).

    Like those it compares pairs of images, and needs no assignment of parts to key points.

    Args:
      nearest: int `[n, K]`, the key point nearest to each part.
      num_keypoints: P.

    Returns:
      The consistency: how often, over all pairs of different images and all parts, the same part is nearest to the
      same key point in both. And its expectation if the indices of the parts were shuffled within each image. Boxes
      that all coincide have a high consistency in any order, so only an excess over the shuffled value shows that an
      index has a meaning. Both are 0 for a single image.
    """
    one_hot = np.eye(num_keypoints)[nearest]  # [n, K, P]
    # Over ordered pairs: all pairs minus those of an image with itself.
    agreement = lambda x: (x.sum(0) ** 2 - (x**2).sum(0)).sum(-1) / max(len(x) * (len(x) - 1), 1)
    # When shuffled, each part is nearest to a key point as often as the image's parts are on average.
    return float(agreement(one_hot).mean()), float(agreement(one_hot.mean(1)))
