"""Static anchor boxes and the table of the pairs that overlap.

The boxes follow NTS-Net (Yang et al., ECCV 2018), whose images have 448 pixels. At other sizes, they have the same
proportions to the image: sides of 11 to 83 % of its side, or 13 to 68 % as the square root of the area. They depend
only on the size of the input, so they are NumPy constants of the compiled program, and non-maximum suppression
computes no intersection over union at run time.
"""

import math

import numpy as np

RATIOS = (0.667, 1.0, 1.5)  # width / height
# For each level: its stride as a multiple of the backbone's, and the scales of its boxes.
LEVELS = (
    (1, (2 ** (1 / 3), 2 ** (2 / 3))),
    (2, (2 ** (1 / 3), 2 ** (2 / 3))),
    (4, (1.0, 2 ** (1 / 3), 2 ** (2 / 3))),
)
BASE_SIZE, BASE_IMAGE = 48, 448  # NTS-Net's boxes have base sizes of 48, 96 and 192 in an image of 448 pixels


def level_sides(map_side: int) -> list[int]:
    """The side of each level's grid for a backbone map of side `map_side`: 14 -> [14, 7, 4]."""
    sides = [map_side]
    for _ in LEVELS[1:]:
        sides.append(math.ceil(sides[-1] / 2))
    return sides


def boxes_per_cell() -> list[int]:
    """The number of boxes per grid cell of each level: [6, 6, 9]."""
    return [len(scales) * len(RATIOS) for _, scales in LEVELS]


def anchor_boxes(image_size: int, stride: int = 32, base_size: float | None = None) -> np.ndarray:
    """The anchor boxes of a square image in NTS-Net's layout: 1614 boxes at 448 pixels.

    Args:
      image_size: side of the network's input, pixels.
      stride: input pixels per cell of the backbone's map, and between the boxes of the finest level.
      base_size: base size of the boxes of the finest level, pixels; 48/448 of the image by default, as in NTS-Net.
        (In version 0.1.0 it was 1.5 strides, which is the same at 448 pixels and stride 32.)

    Returns:
      float32 `[A, 4]`, each row `(y0, x0, y1, x1)` in pixels of the input, in the order level, row, column, scale,
      ratio. Boxes near the border extend beyond the image.

    Raises:
      ValueError: the image is smaller than the stride.
    """
    if image_size < stride:
        raise ValueError(f'image_size {image_size} is smaller than the stride {stride} of the backbone')
    if base_size is None:
        base_size = BASE_SIZE * image_size / BASE_IMAGE
    boxes = []
    for (multiple, scales), side in zip(LEVELS, level_sides(math.ceil(image_size / stride))):
        step, base = stride * multiple, base_size * multiple
        centers = step / 2 + step * np.arange(side)
        shapes = np.array(
            [(base * scale / math.sqrt(ratio), base * scale * math.sqrt(ratio)) for scale in scales for ratio in RATIOS]
        )  # [R, 2], (height, width)
        y, x = np.meshgrid(centers, centers, indexing='ij')
        middle = np.stack([y, x], -1)[:, :, None]  # [side, side, 1, 2]
        corners = np.concatenate([middle - shapes / 2, middle + shapes / 2], -1)  # [side, side, R, 4]
        boxes.append(corners.reshape(-1, 4))
    return np.concatenate(boxes).astype(np.float32)


def overlap_table(anchors: np.ndarray, threshold: float) -> np.ndarray:
    """Which pairs of boxes overlap too much for both to be kept.

    Args:
      anchors: `[A, 4]` boxes.
      threshold: intersection over union at which two boxes exclude each other.

    Returns:
      bool `[A, A]`, true where IoU >= threshold.
    """
    # Thousands of pairs (an anchor inside one of twice its side) have an IoU of exactly 1/4, the threshold of
    # NTS-Net. float64 and the tolerance keep rounding from deciding about them.
    anchors = np.asarray(anchors, np.float64)
    threshold -= 1e-5
    low = np.maximum(anchors[:, None, :2], anchors[None, :, :2])
    high = np.minimum(anchors[:, None, 2:], anchors[None, :, 2:])
    intersection = np.prod(np.maximum(high - low, 0), -1)  # [A, A]
    area = np.prod(anchors[:, 2:] - anchors[:, :2], -1)
    return intersection >= threshold * (area[:, None] + area[None, :] - intersection)
