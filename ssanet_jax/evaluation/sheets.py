"""Sheets of pictures with the parts that a network found."""

from collections.abc import Sequence

import numpy as np

from ssanet_jax.evaluation.drawing import contact_sheet, draw_parts
from ssanet_jax.evaluation.explanation import part_name
from ssanet_jax.evaluation.fonts import can_draw
from ssanet_jax.evaluation.prediction import Prediction


def parts_sheet(
    predictions: Sequence[Prediction], labels: Sequence[int], columns: int = 5, *, side: int = 448
) -> np.ndarray:
    """Draws photos with their parts (Figure 6); the caption gives the prediction, and the truth if it differs.

    The frame of a part that is not clearly seen is dashed.

    Args:
      predictions: the prediction for each image; at least one.
      labels: index of the true class of each image.
      columns: images per row.
      side: side of each picture, pixels.

    Returns:
      uint8 `[H, W, 3]`, RGB.
    """
    pictures = [
        _draw_parts(prediction, _caption(prediction, label), side) for prediction, label in zip(predictions, labels)
    ]
    return contact_sheet(pictures, columns)


def keypoints_sheet(
    predictions: Sequence[Prediction],
    labels: Sequence[int],
    keypoints: Sequence[np.ndarray],
    proposals: Sequence[np.ndarray] = (),
    *,
    side: int = 448,
) -> np.ndarray:
    """Draws parts among key points (Figure 7), one column per image.

    Key points are dots, centers of the parts triangles. With `proposals`, the upper row has the parts before scale
    mining, the lower row those after it.

    Args:
      predictions, labels, side: as for `parts_sheet`.
      keypoints: the key points of each image, `[P, 3]`, (y, x, visible) in pixels of the photo.
      proposals: the parts of each image before scale mining, `[K, 4]`, in pixels of the photo.

    Returns:
      uint8 `[H, W, 3]`, RGB.
    """
    before = [
        draw_parts(prediction.photo(), boxes, (), 'before scale mining', side, keypoints=points)
        for prediction, boxes, points in zip(predictions, proposals, keypoints)
    ]
    after = [
        _draw_parts(prediction, f'{"after: " if before else ""}{_caption(prediction, label)}', side, points)
        for prediction, label, points in zip(predictions, labels, keypoints)
    ]
    return contact_sheet(before + after, columns=len(predictions))


def evenly(count: int, total: int) -> list[int]:
    """At most `count` of `total` positions at even distances, so that the images shown are not hand-picked."""
    return np.linspace(0, total - 1, min(count, total)).astype(int).tolist()


def _draw_parts(prediction: Prediction, caption: str, side: int, keypoints: np.ndarray | None = None) -> np.ndarray:
    # Networks that find an object are those that know which parts are there.
    names = [part_name(part, True).removeprefix('part ') for part in range(len(prediction.present))]
    hidden = [part for part, is_seen in enumerate(prediction.present) if not is_seen]
    return draw_parts(
        prediction.photo(),
        prediction.input_boxes if prediction.read_photo is None else prediction.boxes,
        prediction.scales if (prediction.scales != 1).any() else (),  # a single scale is no choice
        caption,
        side,
        orientations=prediction.orientations,
        names=[f'{name}?' if part in hidden else name for part, name in enumerate(names)],
        dashed=hidden,
        keypoints=keypoints,
    )


def _caption(prediction: Prediction, label: int) -> str:
    name = prediction.drawn_name(prediction.class_index)
    if prediction.class_index == label:
        return name
    caption = f'{name} (is {prediction.drawn_name(label)})'
    # Each name has a font, but two scripts may have none in common.
    return caption if can_draw(caption) else f'class {prediction.class_index} (is class {label})'
