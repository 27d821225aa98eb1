"""Anchor boxes against the published layout of NTS-Net, and the static IoU table against loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssanet_jax.models import anchors

SCALES = ((2 ** (1 / 3), 2 ** (2 / 3)), (2 ** (1 / 3), 2 ** (2 / 3)), (1, 2 ** (1 / 3), 2 ** (2 / 3)))
RATIOS = (0.667, 1, 1.5)


def boxes_by_loops(image_size, stride, base_size):
    boxes, side = [], image_size // stride
    for level, scales in enumerate(SCALES):
        pitch, base = stride * 2**level, base_size * 2**level
        for row in range(side):
            for column in range(side):
                y, x = pitch / 2 + row * pitch, pitch / 2 + column * pitch
                for scale in scales:
                    for ratio in RATIOS:
                        height = base * scale / np.sqrt(ratio)
                        width = base * scale * np.sqrt(ratio)
                        boxes.append((y - height / 2, x - width / 2, y + height / 2, x + width / 2))
        side = -(-side // 2)
    return np.array(boxes)


def iou(a, b):
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    if height <= 0 or width <= 0:
        return 0.0
    both = height * width
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def test_a_448_image_has_1614_anchors():
    boxes = anchors.anchor_boxes(448)
    assert isinstance(boxes, np.ndarray) and boxes.dtype == np.float32
    assert boxes.shape == (1614, 4)  # 14 * 14 * 6 + 7 * 7 * 6 + 4 * 4 * 9


@pytest.mark.parametrize(
    'image_size, stride, count',
    [
        (448, 32, 1614),
        (224, 32, 7 * 7 * 6 + 4 * 4 * 6 + 2 * 2 * 9),
        (128, 16, 8 * 8 * 6 + 4 * 4 * 6 + 2 * 2 * 9),
        (72, 8, 9 * 9 * 6 + 5 * 5 * 6 + 3 * 3 * 9),
    ],
)
def test_every_box_in_order(image_size, stride, count):
    boxes = anchors.anchor_boxes(image_size, stride=stride)
    expected = boxes_by_loops(image_size, stride, 48 * image_size / 448)
    assert len(expected) == count
    np.testing.assert_allclose(boxes, expected, rtol=1e-5, atol=1e-4)
    # In version 0.1.0, the sizes were proportional to the stride.
    legacy = anchors.anchor_boxes(image_size, stride=stride, base_size=1.5 * stride)
    np.testing.assert_allclose(legacy, boxes_by_loops(image_size, stride, 1.5 * stride), rtol=1e-5, atol=1e-4)


def test_sizes_at_448_pixels_are_those_of_version_0_1_0():
    np.testing.assert_array_equal(anchors.anchor_boxes(448), anchors.anchor_boxes(448, base_size=1.5 * 32))


@pytest.mark.parametrize('image_size, stride', [(224, 32), (224, 16), (672, 32), (96, 8)])
def test_boxes_have_the_same_proportions_to_the_image_at_every_size(image_size, stride):
    shares = lambda boxes, size: np.unique(np.round((boxes[:, 2:] - boxes[:, :2]) / size, 4), axis=0)
    found, published = (
        shares(anchors.anchor_boxes(image_size, stride), image_size),
        shares(anchors.anchor_boxes(448), 448),
    )
    np.testing.assert_allclose(found, published, atol=2e-4)
    sides = np.sqrt(published.prod(1))
    np.testing.assert_allclose((sides.min(), sides.max()), (0.135, 0.68), atol=1e-3)


def test_half_the_size_at_half_the_stride_halves_every_box():
    np.testing.assert_allclose(anchors.anchor_boxes(224, 16) * 2, anchors.anchor_boxes(448), atol=1e-3)


def test_first_box_of_each_level_by_hand():
    boxes = np.float64(anchors.anchor_boxes(448))
    for first, center, size in ((0, 16, 48 * 2 ** (1 / 3)), (1176, 32, 96 * 2 ** (1 / 3)), (1470, 64, 192)):
        y0, x0, y1, x1 = boxes[first]
        np.testing.assert_allclose(((y0 + y1) / 2, (x0 + x1) / 2), center, atol=1e-3)
        # Ratio 0.667 comes first: a tall box of area size * size.
        np.testing.assert_allclose((y1 - y0, x1 - x0), (size / 0.667**0.5, size * 0.667**0.5), rtol=1e-5)
    y0, x0, y1, x1 = boxes[-1]  # the last box: stride 128, scale 2^(2/3), ratio 1.5, the lower right cell
    np.testing.assert_allclose(((y0 + y1) / 2, (x0 + x1) / 2), 64 + 3 * 128, atol=1e-3)
    np.testing.assert_allclose((x1 - x0) / (y1 - y0), 1.5, rtol=1e-5)


def test_order_within_a_cell_and_along_a_row():
    boxes = np.float64(anchors.anchor_boxes(448))
    heights, widths = (boxes[:, 2:] - boxes[:, :2]).T
    np.testing.assert_allclose((widths / heights)[:6], RATIOS * 2, rtol=1e-4)
    np.testing.assert_allclose(np.sqrt(widths * heights)[:6] / 48, np.repeat(SCALES[0], 3), rtol=1e-4)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    np.testing.assert_allclose(centers[6], (16, 48), atol=1e-3)  # x runs first
    np.testing.assert_allclose(centers[6 * 14], (48, 16), atol=1e-3)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), st.sampled_from([0.0625, 0.25, 0.5, 0.9]), st.integers(0, 2**32 - 1))
def test_overlap_table_against_loops(count, threshold, seed):
    rng = np.random.default_rng(seed)
    corner = rng.integers(-10, 20, (count, 2))
    boxes = np.concatenate([corner, corner + rng.integers(1, 20, (count, 2))], axis=1).astype(np.float32)
    table = anchors.overlap_table(boxes, threshold)
    assert table.shape == (count, count) and table.dtype == bool
    for i in range(count):
        for j in range(count):
            overlap = iou(np.float64(boxes[i]), np.float64(boxes[j]))
            if abs(overlap - threshold) > 1e-6:
                assert table[i, j] == (overlap > threshold), (boxes[i], boxes[j], overlap)


def test_overlap_table_includes_the_threshold():
    boxes = np.float32([[0, 0, 4, 4], [0, 0, 2, 2], [0, 2, 2, 4], [4, 0, 8, 4]])  # IoU 1/4, 1/4 and a shared edge
    expected = np.eye(4, dtype=bool)
    expected[0, 1:3] = expected[1:3, 0] = True
    np.testing.assert_array_equal(anchors.overlap_table(boxes, 0.25), expected)


def test_overlap_table_of_the_real_anchors():
    boxes = anchors.anchor_boxes(448)
    table = np.asarray(anchors.overlap_table(boxes, 0.25))
    assert table.shape == (1614, 1614) and table.diagonal().all()
    np.testing.assert_array_equal(table, table.T)
    for i, j in np.random.default_rng(0).integers(0, 1614, (2000, 2)):
        overlap = iou(np.float64(boxes[i]), np.float64(boxes[j]))
        if abs(overlap - 0.25) > 1e-5:
            assert table[i, j] == (overlap > 0.25)


def test_a_small_anchor_within_one_of_twice_its_side_overlaps_by_the_threshold():
    """Thousands of pairs of neighboring levels have an IoU of exactly 1/4: rounding must not decide about them."""
    boxes = np.float64(anchors.anchor_boxes(448))
    table = np.asarray(anchors.overlap_table(anchors.anchor_boxes(448), 0.25))
    sides = boxes[:, 2:] - boxes[:, :2]
    small, large = np.arange(1176), np.arange(1176, 1470)
    twice = np.isclose(sides[small, None] * 2, sides[large], rtol=1e-5).all(-1)
    within = ((boxes[small, None, :2] >= boxes[large, :2]) & (boxes[small, None, 2:] <= boxes[large, 2:])).all(-1)
    assert (twice & within).sum() > 1000
    assert table[small[:, None], large][twice & within].all()
