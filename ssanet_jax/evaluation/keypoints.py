"""Compares the parts of test images with annotated key points (the paper's Figure 4), beside controls."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ssanet_jax.data.dataset import Dataset, Source
from ssanet_jax.data.pipeline import Batch, eval_batches
from ssanet_jax.data.preprocessing import to_input_pixels
from ssanet_jax.distributed import sharding
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.keypoint_layout import KeypointLayout
from ssanet_jax.evaluation.part_statistics import (
    Annotations,
    LocatedParts,
    PartStatistics,
    part_distances,
    part_statistics,
    presence,
)

CENTER = 'centre of the image'  # photographers center the object
RANDOM_POINTS = 'random points in the object'
RANDOM_BOXES = 'random boxes'
_CONTROL_SEED = 0


@dataclass(frozen=True)
class KeypointResult:
    """Statistics of the parts of all images with a visible key point.

    Attributes:
      images: number of images.
      without_keypoints: number of images left out because no key point is visible.
      unreadable: positions of the images left out because they cannot be read.
      boxes: statistics by name, such as those of the parts before and after scale mining; then those of the controls.
      controls: the names of the controls among `boxes`.
      per_image: arrays with one row per image, by name, to compare two runs image by image. `index` is the position in
        the test set, `diagonal` that of the object's box; `<name>/distance`, `[images, K]`, the distance to the nearest
        key point; `<name>/<group>`, `[images, K]`, to a group of key points. Distances are in pixels of the input, inf
        where no key point of the group is visible, nan where the part is not present.
    """

    images: int
    without_keypoints: int
    unreadable: list[int]
    boxes: dict[str, PartStatistics]
    controls: list[str]
    per_image: dict[str, np.ndarray]

    def to_json(self) -> dict[str, Any]:
        """All but the arrays, as a tree that JSON can represent."""
        return {
            'images': self.images,
            'without_keypoints': self.without_keypoints,
            'unreadable': self.unreadable,
            'boxes': {name: asdict(statistics) for name, statistics in self.boxes.items()},
            'controls': self.controls,
        }


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
    locate: Callable[[jax.Array], Mapping[str, LocatedParts]],
    batches: Iterable[Batch],
    mesh: Mesh,
    layout: KeypointLayout,
) -> KeypointResult:
    """Compares the parts of all images with their key points, in one process.

    Args:
      locate: images, uint8 `[B, S, S, 3]` on the devices of the mesh -> parts by name, such as those before and after
        scale mining.
      batches: from `annotated_batches`.
      mesh: the devices.
      layout: which key points count as one, and the groups.

    Raises:
      UserError: no image has a visible key point, or no part is present.
    """
    indices, keypoints, objects = [], [], []
    located: list[dict[str, LocatedParts]] = []
    controls: list[str] = []
    unreadable: list[int] = []
    without_keypoints = image_size = 0
    for batch, on_device in sharding.prefetch_to_device(batches, mesh, ('image',)):
        image_size = batch['image'].shape[1]
        readable = batch['mask'] & (batch['skipped'] < 0)
        usable = (batch['keypoints'][..., 2] > 0).any(-1)  # never without an image
        parts = {name: _select(value, usable) for name, value in locate(on_device['image']).items()}
        num_parts = next(iter(parts.values())).boxes.shape[1]
        placed = control_parts(batch['index'][usable], batch['box'][usable], num_parts, image_size)
        controls = list(placed)
        located.append(parts | placed)
        indices.append(batch['index'][usable])
        keypoints.append(batch['keypoints'][usable])
        objects.append(batch['box'][usable])
        without_keypoints += int((readable & ~usable).sum())
        unreadable += batch['skipped'][(batch['skipped'] >= 0) & batch['mask']].tolist()
    annotations = Annotations(np.concatenate(keypoints), np.concatenate(objects), image_size)
    if not len(annotations.objects):
        raise UserError('no test image has a visible key point: check config.data')
    parts = {name: _concatenate([batch[name] for batch in located]) for name in located[0]}
    return KeypointResult(
        images=len(annotations.objects),
        without_keypoints=without_keypoints,
        unreadable=unreadable,
        boxes={name: part_statistics(value, annotations, layout) for name, value in parts.items()},
        controls=controls,
        per_image={'index': np.concatenate(indices)} | _distances_per_image(parts, annotations, layout),
    )


def control_parts(indices: np.ndarray, objects: np.ndarray, num_parts: int, image_size: int) -> dict[str, LocatedParts]:
    """Places that need no network, to compare the parts with.

    Args:
      indices: `[B]`, positions of the images in the test set. They seed the random places, which thus depend neither
        on the batches nor on the network.
      objects: `[B, 4]`, the box around the object, pixels of the input.
      num_parts: number of random places per image.
      image_size: side of the input, pixels.

    Returns:
      The center of the image, as one part; points, uniform in the visible part of the object's box; and boxes with two
      opposite corners uniform in the image.
    """
    draws = [np.random.default_rng((_CONTROL_SEED, int(index))) for index in indices]
    # [B, K, point or corner, 2], in [0, 1)
    uniform = np.array([draw.random((num_parts, 3, 2)) for draw in draws]).reshape(-1, num_parts, 3, 2)
    low, high = np.split(np.clip(objects, 0, image_size)[:, None], 2, axis=-1)  # [B, 1, 2]
    points = low + (high - low) * uniform[:, :, 0]
    corners = np.sort(uniform[:, :, 1:], axis=2) * image_size
    center = np.array([0, 0, image_size, image_size], np.float32)
    return {
        CENTER: LocatedParts(np.tile(center, (len(indices), 1, 1))),
        RANDOM_POINTS: LocatedParts(np.concatenate([points, points], -1)),
        RANDOM_BOXES: LocatedParts(corners.reshape(-1, num_parts, 4)),
    }


def _select(parts: LocatedParts, images: np.ndarray) -> LocatedParts:
    """The parts of some of the images, on the host."""
    select = lambda field: None if field is None else np.asarray(field)[images]
    return LocatedParts(np.asarray(parts.boxes)[images], select(parts.present), select(parts.assignment))


def _concatenate(batches: Sequence[LocatedParts]) -> LocatedParts:
    boxes, *optional = zip(*batches)
    return LocatedParts(
        np.concatenate(boxes), *(None if fields[0] is None else np.concatenate(fields) for fields in optional)
    )


def _distances_per_image(
    parts: Mapping[str, LocatedParts], annotations: Annotations, layout: KeypointLayout
) -> dict[str, np.ndarray]:
    """The arrays of `KeypointResult.per_image`, except for the index; float32."""
    arrays = {}
    for name, located in parts.items():
        distances = part_distances(np.asarray(located.boxes), annotations, layout)
        keypoints, groups = np.split(distances.targets, [len(layout.names)], axis=-1)
        columns = {'distance': keypoints.min(-1)} | dict(zip(layout.groups, np.moveaxis(groups, -1, 0)))
        arrays['diagonal'] = distances.diagonal
        arrays |= {f'{name}/{key}': np.where(presence(located), column, np.nan) for key, column in columns.items()}
    return {name: array.astype(np.float32) for name, array in arrays.items()}
