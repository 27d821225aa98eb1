"""How near the parts come to annotated key points (the paper's Figure 4), and whether an index means one part."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ssanet_jax.data.dataset import Dataset, Source
from ssanet_jax.data.pipeline import Batch, eval_batches
from ssanet_jax.data.transforms import to_input_pixels
from ssanet_jax.distributed import sharding
from ssanet_jax.errors import UserError


def check_keypoints(dataset: Dataset) -> None:
    """Raises `UserError` for a set whose images have no key points."""
    if not dataset.keypoint_names:
        raise UserError(f'{dataset.name} has no key points to measure the parts by: cub and toy_birds have')


def annotated_batches(dataset: Dataset, data: Any) -> Iterator[Batch]:
    """The test images with their annotations.

    Args:
      dataset: one with key points.
      data: the `data` section of a config.

    Returns:
      An iterator of `eval_batches`' batches with `'keypoints'`, float32 `[b, P, 3]`, (y, x, visible), and `'box'`,
      float32 `[b, 4]`, around the object, both in pixels of the network's input. A key point that the crop leaves
      out is not visible; the box is whole, even where it reaches outside. Zeros where there is no image.
    """
    noted = _Noted(dataset.test, data)
    nothing = (np.zeros((len(dataset.keypoint_names), 3), np.float32), np.zeros(4, np.float32))
    for batch in eval_batches(noted, data):
        there = batch['mask'] & (batch['skipped'] < 0)
        rows = [noted.notes.pop(int(i)) if here else nothing for i, here in zip(batch['index'], there)]
        keypoints, boxes = (np.stack(column) for column in zip(*rows))
        yield batch | {'keypoints': keypoints, 'box': boxes}


class _Noted:
    """A source that notes the annotations of what is read from it, so that no image is decoded twice for them."""

    def __init__(self, source: Source, data: Any):
        self._source, self._data = source, data
        self.labels = source.labels
        self.notes: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self._source[index]
        self.notes[int(index)] = in_input_pixels(example, self._data)
        return example


def in_input_pixels(example: dict[str, Any], data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Key points and box of an example in pixels of the network's input; see `annotated_batches`."""
    shape = example['image'].shape[:2]
    places = to_input_pixels(example['keypoints'][:, :2], shape, data)
    inside = ((places >= 0) & (places <= data.image_size)).all(-1)
    keypoints = np.column_stack([places, (example['keypoints'][:, 2] > 0) & inside])
    return keypoints.astype(np.float32), to_input_pixels(example['box'], shape, data).astype(np.float32)


def keypoint_distances(
    locate: Callable[[jax.Array], dict[str, jax.Array]], batches: Iterable[Batch], mesh: Mesh
) -> dict[str, Any]:
    """Holds the parts of all images against their key points, in one process.

    Args:
      locate: images, uint8 `[B, S, S, 3]` on the devices of the mesh -> `{name: boxes [B, K, 4]}`, such as the parts
        before and after scale mining, in pixels of the input.
      batches: from `annotated_batches`.
      mesh: the devices.

    Returns:
      `{'images': number measured, 'without_keypoints': number left out because no key point is visible,
      'unreadable': positions of those left out because they cannot be read, 'boxes': {name: summarise(...)}}`.

    Raises:
      UserError: no image has a visible key point.
    """
    found: list[dict[str, np.ndarray]] = []
    unreadable: list[int] = []
    without = 0
    for batch, on_device in sharding.prefetch_to_device(batches, mesh, ('image',)):
        boxes = {name: np.asarray(value) for name, value in locate(on_device['image']).items()}
        there = batch['mask'] & (batch['skipped'] < 0)
        usable = (batch['keypoints'][..., 2] > 0).any(-1)  # never without an image
        annotated = {name: batch[name] for name in ('keypoints', 'box')}  # the images themselves would fill the memory
        found.append({name: value[usable] for name, value in (annotated | boxes).items()})
        without += int((there & ~usable).sum())
        unreadable += batch['skipped'][(batch['skipped'] >= 0) & batch['mask']].tolist()
    images = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    if not len(images['box']):
        raise UserError('no test image has a visible key point that could be measured: check config.data')
    return {
        'images': len(images['box']),
        'without_keypoints': without,
        'unreadable': unreadable,
        'boxes': {name: summarise(images[name], images['keypoints'], images['box']) for name in boxes},
    }


def summarise(boxes: np.ndarray, keypoints: np.ndarray, objects: np.ndarray) -> dict[str, Any]:
    """Where the centres of the parts lie, from arrays over all images.

    Args:
      boxes: `[n, K, 4]`, the parts, pixels of the input.
      keypoints: `[n, P, 3]`, (y, x, visible), pixels of the input; at least one is visible in each image.
      objects: `[n, 4]`, the box around the object, pixels of the input.

    Returns:
      A tree of numbers:

      * `distance`: from the centre of a part to the nearest visible key point, pixels of the input, mean over parts
        and images; `distance_of_part`, `[K]`, of each part;
      * `distance_share`: the same as a share of the diagonal of the image's own object box, both in the input, where
        images are squeezed into a square;
      * `inside`: share of the centres that lie in the object's box, its rim included;
      * `nearest`: `[K][P]`, the share of images in which this key point is the visible one nearest to the part (the
        first of equals); each row sums to 1;
      * `consistency`, `consistency_shuffled`: of `consistency`.
    """
    boxes, keypoints, objects = (x.astype(np.float64) for x in (boxes, keypoints, objects))
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2  # [n, K, 2]
    to_each = np.linalg.norm(centres[:, :, None] - keypoints[:, None, :, :2], axis=-1)  # [n, K, P]
    to_each = np.where(keypoints[:, None, :, 2] > 0, to_each, np.inf)
    nearest, distance = to_each.argmin(-1), to_each.min(-1)  # [n, K]
    diagonal = np.linalg.norm(objects[:, 2:] - objects[:, :2], axis=-1)
    inside = ((centres >= objects[:, None, :2]) & (centres <= objects[:, None, 2:])).all(-1)
    points = keypoints.shape[1]
    return {
        'distance': float(distance.mean()),
        'distance_of_part': distance.mean(0).tolist(),
        'distance_share': float((distance / diagonal[:, None]).mean()),
        'inside': float(inside.mean()),
        'nearest': np.eye(points)[nearest].mean(0).tolist(),
        **consistency(nearest, points),
    }


def consistency(nearest: np.ndarray, points: int) -> dict[str, float]:
    """Whether the same index means the same part, which is what the alignment constraints (Eq. 2) train for.

    Like those it compares pairs of images, and needs no assignment of parts to key points.

    Args:
      nearest: int `[n, K]`, the key point on which each part lands.
      points: P, number of key points.

    Returns:
      `{'consistency': how often, over all pairs of different images and all parts, the same part lands on the same
      key point in both, 'consistency_shuffled': the same, expected if the indices of the parts were shuffled within
      each image}`. Boxes that all lie on one spot have a high figure under any order, so only what exceeds the second
      says that an index means something. Both are 0 for a single image.
    """
    landed = np.eye(points)[nearest]  # [n, K, P]
    # Of ordered pairs: all, less those of an image with itself.
    pairs = lambda x: (x.sum(0) ** 2 - (x**2).sum(0)).sum(-1) / max(len(x) * (len(x) - 1), 1)
    # Shuffled, each part lands on a key point as often as the image's parts do on average.
    return {
        'consistency': float(pairs(landed).mean()),
        'consistency_shuffled': float(pairs(landed.mean(1))),
    }
