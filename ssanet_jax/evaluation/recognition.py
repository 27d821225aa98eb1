"""From the network's outputs to what a person wants to know of an image."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from ssanet_jax.distributed import sharding
from ssanet_jax.evaluation.accuracy import make_predict
from ssanet_jax.evaluation.drawing import contact_sheet, draw_parts
from ssanet_jax.models.candidates import scale_factors
from ssanet_jax.models.inference import optimize_for_inference
from ssanet_jax.models.ssanet import SSANet, split_model

ORIENTATIONS = ('horizontal', 'vertical', 'horizontal reversed', 'vertical reversed')


class Recognition(NamedTuple):
    """What the network found in one image."""

    label: int  # index of the predicted class
    probabilities: np.ndarray  # float32 [N], softmax of the summed logits
    boxes: np.ndarray  # float32 [K, 4], parts at the chosen scale, pixels of the input; [0, 4] without parts
    scales: np.ndarray  # float32 [K], side of each box over that of its proposal, where DSM takes part; else [0]
    orientations: list[str]  # of each part, where OP takes part
    proposals: np.ndarray  # float32 [K, 4], the parts before scale mining


class Recogniser:
    """A trained network as a function of images.

    Args:
      model: the network.
      active: groups that take part in the prediction.
      batch_size: images a compiled call; fewer are padded, so that there is one program. Where there are more
        devices than images, those left over share the candidates of each image.
    """

    def __init__(self, model: SSANet, active: frozenset[str], batch_size: int = 8):
        # Every process recognises for itself.
        mesh = sharding.make_mesh(jax.local_devices(), images=batch_size)
        model = optimize_for_inference(model)
        _, params, stats = split_model(model)
        self._params, self._stats = sharding.replicate((params, stats), mesh)
        self._predict = make_predict(model, active, mesh)
        self._mined = 'scale_mining' in active
        self._factors = scale_factors(model.num_scales, model.alpha)
        self._batch_size = batch_size

    def __call__(self, images: Sequence[np.ndarray]) -> Iterator[Recognition]:
        """Recognises uint8 images `[H, H, 3]` of the network's input size, in order."""
        for first in range(0, len(images), self._batch_size):
            chunk = np.stack(images[first : first + self._batch_size])
            padded = np.concatenate([chunk, np.repeat(chunk[-1:], self._batch_size - len(chunk), axis=0)])
            outputs = jax.device_get(self._predict(self._params, self._stats, padded))
            probabilities = np.asarray(jax.nn.softmax(outputs.logits))
            for i in range(len(chunk)):
                located = outputs.boxes is not None
                boxes = outputs.aligned_boxes[i] if located else np.zeros((0, 4), np.float32)
                yield Recognition(
                    label=int(probabilities[i].argmax()),
                    probabilities=probabilities[i],
                    boxes=boxes,
                    scales=self._factors[outputs.aligned_scale[i]] if self._mined else np.zeros(0, np.float32),
                    orientations=[ORIENTATIONS[o] for o in outputs.orientation[i]]
                    if outputs.orientation is not None
                    else [],
                    proposals=outputs.boxes[i, : len(boxes)] if located else boxes,
                )


def parts_sheet(
    recognise: Recogniser,
    images: Sequence[np.ndarray],
    labels: Sequence[int],
    class_names: Sequence[str],
    columns: int = 5,
    *,
    side: int = 448,
) -> np.ndarray:
    """A sheet of images with their parts (Figure 6); the caption says what was predicted, and the truth if it differs.

    Args:
      recognise: the network.
      images: the network's inputs, uint8 `[H, H, 3]`, at least one.
      labels: of each.
      class_names: name of each label.
      columns: images in a row.
      side: of each picture, pixels.

    Returns:
      uint8 `[H, W, 3]`, RGB.
    """
    pictures = []
    for image, label, found in zip(images, labels, recognise(images)):
        caption = _caption(found.label, label, class_names)
        pictures.append(draw_parts(image, found.boxes, found.scales, caption, side, orientations=found.orientations))
    return contact_sheet(pictures, columns)


def keypoints_sheet(
    recognise: Recogniser,
    images: Sequence[np.ndarray],
    labels: Sequence[int],
    keypoints: Sequence[np.ndarray],
    class_names: Sequence[str],
    *,
    side: int = 448,
) -> np.ndarray:
    """As Figure 7: annotated key points as dots, centres of the parts as triangles, an image a column.

    Above are the parts before scale mining, the proposals, below those after it.

    Args:
      recognise, images, labels, class_names, side: as for `parts_sheet`.
      keypoints: of each image, `[P, 3]`, (y, x, visible) in pixels of the input (`keypoints.in_input_pixels`).

    Returns:
      uint8 `[H, W, 3]`, RGB.
    """
    rows = [[], []]
    for image, label, points, found in zip(images, labels, keypoints, recognise(images)):
        rows[0].append(draw_parts(image, found.proposals, (), 'before scale mining', side, keypoints=points))
        caption = f'after: {_caption(found.label, label, class_names)}'
        rows[1].append(
            draw_parts(
                image, found.boxes, found.scales, caption, side, orientations=found.orientations, keypoints=points
            )
        )
    return contact_sheet(rows[0] + rows[1], columns=len(images))


def evenly(count: int, total: int) -> list[int]:
    """At most `count` of `total` positions at even distances, so that nobody picks the images to show."""
    return np.linspace(0, total - 1, min(count, total)).astype(int).tolist()


def _caption(predicted: int, label: int, class_names: Sequence[str]) -> str:
    if predicted == label:
        return class_names[predicted]
    return f'{class_names[predicted]} (is {class_names[label]})'
