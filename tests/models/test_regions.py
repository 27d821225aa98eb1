"""Resampling by separable weights against a slow bilinear loop."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ssanet_jax.models import regions

resample = jax.jit(regions.resample, static_argnames=('size', 'stride', 'samples', 'clamp'))


def pixel(image, row, column):
    height, width, channels = image.shape
    if 0 <= row < height and 0 <= column < width:
        return image[row, column]
    return np.zeros(channels)


def bilinear(image, y, x):
    """The value at (y, x) in pixels; the center of pixel (0, 0) is (0.5, 0.5); outside the image it is zero."""
    y, x = y - 0.5, x - 0.5
    row, column = int(np.floor(y)), int(np.floor(x))
    dy, dx = y - row, x - column
    return (
        (1 - dy) * (1 - dx) * pixel(image, row, column)
        + (1 - dy) * dx * pixel(image, row, column + 1)
        + dy * (1 - dx) * pixel(image, row + 1, column)
        + dy * dx * pixel(image, row + 1, column + 1)
    )


def clamped_bilinear(image, y, x):
    """As `bilinear`, by the rule of torchvision's roi_align with aligned=True.

    Relative to the center of pixel (0, 0), a point below -1 or above the side along either axis is empty. Otherwise
    it is moved to [0, side - 1].
    """
    y, x = y - 0.5, x - 0.5
    height, width, channels = image.shape
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros(channels)
    y, x = max(y, 0), max(x, 0)
    row, column = int(y), int(x)
    if row >= height - 1:
        row, y = height - 1, height - 1
    if column >= width - 1:
        column, x = width - 1, width - 1
    below, right = min(row + 1, height - 1), min(column + 1, width - 1)
    dy, dx = y - row, x - column
    top = (1 - dx) * image[row, column] + dx * image[row, right]
    return (1 - dy) * top + dy * ((1 - dx) * image[below, column] + dx * image[below, right])


def by_loops(image, boxes, size, stride, samples, read=bilinear):
    image = np.float64(image)
    out = np.zeros((len(boxes), size, size, image.shape[-1]))
    for r, box in enumerate(np.float64(boxes) / stride):
        bin_height, bin_width = (box[2] - box[0]) / size, (box[3] - box[1]) / size
        for i in range(size):
            for j in range(size):
                for a in range(samples):
                    for b in range(samples):
                        y = box[0] + (i + (a + 0.5) / samples) * bin_height
                        x = box[1] + (j + (b + 0.5) / samples) * bin_width
                        out[r, i, j] += read(image, y, x) / samples**2
    return out


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


coordinate = st.floats(-20, 30, allow_nan=False, width=32)
side = st.floats(0, 40, allow_nan=False, width=32)


@settings(deadline=None, max_examples=40)
@given(coordinate, coordinate, side, side, st.sampled_from([(4, 1, 1), (3, 2, 2), (2, 4, 3)]))
def test_against_the_bilinear_loop(y, x, height, width, setting):
    """Boxes inside, across, around and entirely outside the image, and empty ones."""
    size, stride, samples = setting
    image = normal(0, 9, 7, 2)
    boxes = np.float32([[y, x, y + height, x + width]])
    out = resample(image, boxes, size, stride=stride, samples=samples)
    chex.assert_shape(out, (1, size, size, 2))
    np.testing.assert_allclose(out, by_loops(image, boxes, size, stride, samples), atol=2e-4)


def ambiguous(box, size, stride, samples, sides):
    """Whether a sampling point lies where the border rule jumps, so that rounding decides."""
    steps = (np.arange(size * samples) + 0.5) / (size * samples)
    for axis, side in enumerate(sides):
        points = (box[axis] + (box[axis + 2] - box[axis]) * steps) / stride - 0.5
        if (np.minimum(abs(points + 1), abs(points - side)) < 1e-4).any():
            return True
    return False


@settings(deadline=None, max_examples=60)
@given(coordinate, coordinate, side, side, st.sampled_from([(4, 1, 1), (3, 2, 2), (2, 4, 3), (7, 2, 2)]))
def test_roi_align_against_the_loop_of_torchvision_s_rule(y, x, height, width, setting):
    size, stride, samples = setting
    image = normal(0, 9, 7, 2)
    boxes = np.float32([[y, x, y + height, x + width]])
    assume(not ambiguous(np.float64(boxes[0]), size, stride, samples, (9, 7)))
    out = resample(image, boxes, size, stride=stride, samples=samples, clamp=True)
    expected = by_loops(image, boxes, size, stride, samples, clamped_bilinear)
    np.testing.assert_allclose(out, expected, atol=2e-4)


def test_roi_align_against_torchvision():
    torch = pytest.importorskip('torch')
    ops = pytest.importorskip('torchvision.ops', reason='needs torchvision')
    image, random = normal(10, 9, 7, 3), np.random.default_rng(11)
    corner = random.uniform(-30, 60, (200, 2))
    boxes = np.float32(np.concatenate([corner, corner + random.uniform(0, 90, (200, 2))], 1))
    swapped = torch.tensor(boxes[:, [1, 0, 3, 2]])  # x0, y0, x1, y1
    theirs = ops.roi_align(torch.tensor(image).permute(2, 0, 1)[None], [swapped], 7, 1 / 8, 2, aligned=True)
    ours = resample(image, boxes, 7, stride=8, samples=2, clamp=True)
    np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1), atol=2e-4)


def test_roi_align_repeats_the_border_of_the_map():
    """A box over the corner of a constant map is constant within a cell of the outermost cells' centers."""
    feature_map = np.ones((4, 4, 1), np.float32)
    out = np.array(resample(feature_map, np.float32([[-16, -16, 16, 16]]), 4, stride=32, clamp=True))[0, ..., 0]
    np.testing.assert_array_equal(out, np.ones((4, 4)))
    padded = np.array(resample(feature_map, np.float32([[-16, -16, 16, 16]]), 4, stride=32))[0, ..., 0]
    np.testing.assert_allclose(padded[0], np.array([0.125, 0.375, 0.625, 0.875]) * 0.125, atol=1e-6)


def test_the_center_moves_the_grid():
    feature_map, box = normal(12, 6, 6, 2), np.float32([[40, 60, 130, 140]])
    out = resample(feature_map, box, 3, stride=32, samples=2, center=23.5, clamp=True)
    np.testing.assert_allclose(out, resample(feature_map, box - 7.5, 3, stride=32, samples=2, clamp=True), atol=1e-5)


class ResampleVariants(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters((7, 1, 1), (5, 8, 2), (3, 32, 4))
    def test_many_boxes(self, size, stride, samples):
        image = normal(1, 11, 13, 3)
        rng = np.random.default_rng(2)
        corner = rng.uniform(-4, 10, (6, 2)) * stride
        boxes = np.concatenate([corner, corner + rng.uniform(1, 9, (6, 2)) * stride], axis=1).astype(np.float32)
        out = self.variant(lambda i, b: regions.resample(i, b, size, stride=stride, samples=samples))(image, boxes)
        chex.assert_shape(out, (6, size, size, 3))
        np.testing.assert_allclose(out, by_loops(image, boxes, size, stride, samples), atol=2e-4)

    @chex.variants(with_jit=True, without_jit=True)
    def test_the_whole_image_is_itself(self):
        image = normal(3, 8, 8, 3)
        out = self.variant(lambda i: regions.resample(i, np.float32([[0, 0, 8, 8]]), 8))(image)
        np.testing.assert_array_equal(out[0], image)

    @chex.variants(with_jit=True, without_jit=True)
    def test_under_vmap(self):
        images, boxes = normal(4, 3, 6, 6, 2), np.float32([[[0, 0, 4, 4]], [[1, 2, 6, 6]], [[-2, 3, 5, 9]]])
        out = self.variant(jax.vmap(lambda i, b: regions.resample(i, b, 3)))(images, boxes)
        expected = np.stack([by_loops(i, b, 3, 1, 1) for i, b in zip(images, boxes)])
        np.testing.assert_allclose(out, expected, atol=1e-5)


def test_a_box_on_the_grid_is_a_slice():
    image = normal(5, 10, 12, 2)
    out = resample(image, np.float32([[2, 5, 6, 9]]), 4)
    np.testing.assert_allclose(out[0], image[2:6, 5:9], atol=1e-6)


def test_the_stride_maps_input_pixels_to_map_pixels():
    feature_map = normal(6, 4, 4, 2)
    out = resample(feature_map, np.float32([[0, 0, 128, 128], [32, 64, 96, 128]]), 4, stride=32)
    np.testing.assert_allclose(out[0], feature_map, atol=1e-6)
    halves = resample(feature_map, np.float32([[1, 2, 3, 4]]), 4)
    np.testing.assert_allclose(out[1], halves[0], atol=1e-6)


def test_outside_is_zero():
    image = np.ones((6, 6, 1), np.float32)
    out = np.array(resample(image, np.float32([[-6, -6, 6, 6], [20, 0, 26, 6], [0, -9, 6, -3]]), 12))
    np.testing.assert_allclose(out[0, 6:, 6:], 1, atol=1e-6)
    assert not out[0, :6].any() and not out[0, :, :6].any()
    assert not out[1:].any()


def test_samples_average_a_finer_grid():
    image, boxes = normal(7, 9, 9, 2), np.float32([[0.3, 1.2, 8.4, 6.1], [-3, 4, 7, 15]])
    fine = np.array(resample(image, boxes, 12))
    averaged = fine.reshape(2, 4, 3, 4, 3, 2).mean((2, 4))
    np.testing.assert_allclose(resample(image, boxes, 4, samples=3), averaged, atol=1e-5)


def test_rows_are_y_and_columns_are_x():
    image = np.zeros((8, 8, 2), np.float32)
    image[..., 0] = np.arange(8)[:, None] + 0.5
    image[..., 1] = np.arange(8)[None] + 0.5
    out = resample(image, np.float32([[1, 2, 5, 6]]), 2)[0]
    np.testing.assert_allclose(out[..., 0], [[2, 2], [4, 4]], atol=1e-5)
    np.testing.assert_allclose(out[..., 1], [[3, 5], [3, 5]], atol=1e-5)


@pytest.mark.parametrize('stride, samples', [(1, 1), (2, 2)])
def test_gradient_of_the_image_against_finite_differences(stride, samples):
    image, boxes = normal(8, 5, 6, 2), np.float32([[0.4, -2, 3.7, 5], [1, 1, 9, 9]])
    weight = normal(9, 2, 3, 3, 2)

    def total(image):
        return jnp.sum(weight * regions.resample(image, boxes, 3, stride=stride, samples=samples))

    def slow(image):
        return np.sum(weight * by_loops(image, boxes, 3, stride, samples))

    gradient = jax.jit(jax.grad(total))(image)
    numeric = np.zeros(image.shape)
    for index in np.ndindex(image.shape):
        step = np.zeros(image.shape)
        step[index] = 0.5  # linear in the image: any step is exact
        numeric[index] = slow(image + step) - slow(image - step)
    assert np.abs(numeric).max() > 0.1
    np.testing.assert_allclose(gradient, numeric, atol=1e-4)


@settings(deadline=None, max_examples=25)
@given(st.floats(0, 20, width=32), st.floats(0, 20, width=32), st.floats(4, 60, width=32))
def test_crop_equals_jax_antialiased_scaling(y, x, side):
    """Against `jax.image.scale_and_translate`, for boxes inside the image, enlarged as well as shrunk."""
    image, size = normal(0, 80, 80, 2), 16
    box = np.float32([y, x, y + side, x + side])
    scale = size / (box[2:] - box[:2])
    expected = jax.image.scale_and_translate(
        image, (size, size, 2), (0, 1), scale, -box[:2] * scale, method='linear', antialias=True
    )
    for cut in (regions.crop, regions.crop_by_products, regions.crop_by_gathers):
        chex.assert_trees_all_close(cut(image, box[None], size=size)[0], expected, atol=2e-3)


@settings(deadline=None, max_examples=25)
@given(st.floats(-30, 60, width=32), st.floats(-30, 60, width=32), st.floats(2, 150, width=32))
def test_both_ways_to_crop_agree(y, x, side):
    """For boxes anywhere, also larger than the image, of an image that is no square."""
    image, boxes = normal(0, 40, 70, 2), np.float32([[y, x, y + side, x + 0.7 * side], [0, 0, 40, 70]])
    products, gathers = (cut(image, boxes, size=16) for cut in (regions.crop_by_products, regions.crop_by_gathers))
    chex.assert_trees_all_close(products, gathers, atol=1e-5)


def test_all_pixels_that_a_crop_averages_are_gathered():
    """A loop over the triangle filter of the whole image, shrunk by a factor that is no integer."""
    image = normal(0, 50, 50, 1)
    found = regions.crop(image, np.float32([[0, 0, 50, 50]]), 16)[0, ..., 0]
    weights = np.zeros((16, 50))
    for i in range(16):
        for pixel in range(50):
            weights[i, pixel] = max(0, 1 - abs((i + 0.5) * 50 / 16 - 0.5 - pixel) / (50 / 16))
    weights /= weights.sum(1, keepdims=True)
    np.testing.assert_allclose(found, weights @ image[..., 0] @ weights.T, atol=1e-5)


def test_crop_of_the_whole_image_at_its_size_is_the_image():
    image = normal(0, 12, 12, 3)
    chex.assert_trees_all_close(regions.crop(image, np.float32([[0, 0, 12, 12]]), 12)[0], image, atol=1e-5)


def test_crop_repeats_the_border():
    image = np.ones((8, 8, 1), np.float32)
    chex.assert_trees_all_close(regions.crop(image, np.float32([[-4, -4, 12, 12]]), 8)[0], image, atol=1e-6)
