"""Turning images upright: the physical symmetry of quarter turns, and rotation against SciPy's."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from absl.testing import parameterized
from flax import nnx

from ssanet_jax.models.backbones.registry import build_backbone
from ssanet_jax.models.upright import Upright, rotate, small_views, sum_over_quarters, turn_boxes_back, turn_upright

B, SIZE, VIEW = 3, 64, 32
turn_upright = jax.jit(turn_upright, static_argnames='num_angles')


@functools.cache
def network(num_angles):
    """A backbone with random weights, and a classifier of orientations in evaluation mode."""
    rngs = nnx.Rngs(0)
    backbone = build_backbone('resnet_tiny', rngs, jnp.dtype('float32'), 0)
    upright = Upright(backbone.num_features, num_angles, VIEW, rngs=rngs)
    return backbone, upright


def scores(num_angles, images):
    backbone, upright = network(num_angles)
    return jax.jit(lambda images: upright.scores(backbone, images))(images)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope='module')
def images():
    return normal(0, B, SIZE, SIZE, 3)


class TestScores(chex.TestCase):
    """`Upright.scores`."""

    @parameterized.parameters((4, 1), (4, 2), (4, 3), (12, 1), (24, 3))
    def test_turned_image_has_the_turned_scores(self, num_angles, turns):
        images = normal(0, B, SIZE, SIZE, 3)
        expected = jnp.roll(scores(num_angles, images), turns * num_angles // 4, -1)
        np.testing.assert_allclose(scores(num_angles, np.rot90(images, turns, (1, 2))), expected, rtol=1e-4, atol=1e-5)

    @parameterized.parameters(4, 12)
    def test_turned_image_has_the_same_upright_pixels(self, num_angles):
        images = normal(0, B, SIZE, SIZE, 3)
        expected = turn_upright(images, scores(num_angles, images).argmax(-1), num_angles=num_angles)
        for turns in (1, 2, 3):
            turned = np.rot90(images, turns, (1, 2)).copy()
            upright = turn_upright(turned, scores(num_angles, turned).argmax(-1), num_angles=num_angles)
            np.testing.assert_array_equal(upright, expected)

    def test_corners_are_ignored_unless_only_quarters_are_told_apart(self):
        images = normal(0, B, SIZE, SIZE, 3)
        painted = images.copy()
        painted[:, :4, :4] = 5.0
        np.testing.assert_array_equal(scores(12, images), scores(12, painted))
        assert np.abs(scores(4, images) - scores(4, painted)).max() > 1e-4


def test_scores_leave_batch_norm_as_it_is(images):
    backbone, upright = network(4)
    backbone.train()
    before = nnx.to_pure_dict(nnx.state(backbone, nnx.BatchStat))
    upright.scores(backbone, images)
    chex.assert_trees_all_equal(nnx.to_pure_dict(nnx.state(backbone, nnx.BatchStat)), before)
    assert not any(module.use_running_average for _, module in nnx.iter_modules(backbone) if is_batch_norm(module))


def is_batch_norm(module):
    return hasattr(module, 'use_running_average')


def test_scores_have_no_gradient(images):
    backbone, upright = network(4)
    gradient = jax.grad(lambda images: upright.scores(backbone, images).sum())(images)
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize('num_angles', [0, 2, 6])
def test_number_of_orientations_must_be_a_multiple_of_4(num_angles):
    with pytest.raises(ValueError, match='multiple of 4'):
        Upright(8, num_angles, VIEW, rngs=nnx.Rngs(0))


def test_sum_over_quarters():
    logits = normal(0, 4, 2, 8)
    expected = [[sum(logits[j, b, (t + 2 * j) % 8] for j in range(4)) for t in range(8)] for b in range(2)]
    np.testing.assert_allclose(sum_over_quarters(jnp.asarray(logits)), expected, rtol=1e-5)


def test_views_are_averages(images):
    averages = images.reshape(B, VIEW, 2, VIEW, 2, 3).mean((2, 4))
    views = small_views(images, VIEW, disc=False)
    smooth = np.abs(views - averages).mean() / np.abs(averages).mean()
    assert smooth < 0.6  # a triangle filter reaches into the neighboring pixels
    np.testing.assert_allclose(small_views(np.ones_like(images), VIEW, disc=False), 1, rtol=1e-5)
    assert small_views(np.ones_like(images), VIEW, disc=True)[:, 0, 0].max() == 0


class TestTurnUpright(chex.TestCase):
    """`turn_upright`."""

    @parameterized.product(num_angles=(4, 8, 24), turns=(0, 1, 2, 3))
    def test_quarters_are_lossless(self, num_angles, turns):
        images = normal(0, B, SIZE, SIZE, 3)
        turned = np.rot90(images, turns, (1, 2)).copy()
        orientation = jnp.full(B, turns * num_angles // 4)
        np.testing.assert_array_equal(turn_upright(turned, orientation, num_angles=num_angles), images)

    @parameterized.parameters(1, 5, 11, 14, 23)
    def test_other_angles_agree_with_scipy(self, orientation):
        image = scipy.ndimage.gaussian_filter(normal(0, SIZE, SIZE, 3), (2, 2, 0))
        found = turn_upright(image[None], jnp.array([orientation]), num_angles=24)[0]
        # SciPy's positive angles are counter-clockwise for axes (1, 0).
        expected = scipy.ndimage.rotate(image, -15 * orientation, axes=(1, 0), reshape=False, order=1)
        inside = scipy.ndimage.rotate(np.ones((SIZE, SIZE)), -15 * orientation, reshape=False, order=1) > 0.999
        inside = scipy.ndimage.binary_erosion(inside, iterations=2)  # the two treat the border differently
        np.testing.assert_allclose(found[inside], expected[inside], atol=2e-5)

    def test_each_image_has_its_own_orientation(self):
        images = normal(0, 4, SIZE, SIZE, 3)
        found = turn_upright(images, jnp.arange(4), num_angles=4)
        for turns in range(4):
            np.testing.assert_array_equal(found[turns], np.rot90(images[turns], -turns))

    def test_undoes_a_rotation(self):
        y, x = np.mgrid[:SIZE, :SIZE] / SIZE
        image = np.sin(6 * y + 2 * x)[..., None].astype(np.float32)  # smooth: two interpolations change it little
        turned = rotate(jnp.asarray(image), jnp.radians(7 * 15.0))
        found = turn_upright(turned[None], jnp.array([7]), num_angles=24)[0]
        middle = slice(SIZE // 4, -SIZE // 4)
        np.testing.assert_allclose(found[middle, middle], image[middle, middle], atol=0.01)


class TestTurnBoxesBack(chex.TestCase):
    """`turn_boxes_back`."""

    @parameterized.product(num_angles=(4, 24), turns=(0, 1, 2, 3))
    def test_quarters_contain_the_same_pixels(self, num_angles, turns):
        image = normal(0, SIZE, SIZE, 1)
        orientation = jnp.array([turns * num_angles // 4])
        upright = np.asarray(turn_upright(image[None], orientation, num_angles=num_angles))[0]
        y0, x0, y1, x1 = box = (5, 12, 30, 22)
        back = turn_boxes_back(jnp.array([[box]], jnp.float32), orientation, num_angles, SIZE)[0, 0]
        a0, b0, a1, b1 = np.asarray(back).astype(int)
        np.testing.assert_array_equal(np.rot90(image[a0:a1, b0:b1], -turns), upright[y0:y1, x0:x1])
        np.testing.assert_array_equal(back, [a0, b0, a1, b1])  # whole pixels

    @parameterized.parameters(1, 4, 10, 17)
    def test_other_angles_map_the_center_and_keep_the_sides(self, orientation):
        image = np.zeros((SIZE, SIZE, 1), np.float32)
        image[20, 40] = 1.0
        image = scipy.ndimage.gaussian_filter(image, (2, 2, 0))
        upright = np.asarray(turn_upright(image[None], jnp.array([orientation]), num_angles=24))[0, ..., 0]
        y, x = np.array(scipy.ndimage.center_of_mass(upright)) + 0.5
        box = jnp.array([[y - 4, x - 4, y + 4, x + 4]])
        back = turn_boxes_back(box, jnp.array([orientation]), 24, SIZE)[0]
        np.testing.assert_allclose((back[:2] + back[2:]) / 2, [20.5, 40.5], atol=0.05)
        np.testing.assert_allclose(back[2:] - back[:2], [8, 8], rtol=1e-5)

    def test_keeps_leading_dimensions(self):
        boxes = jnp.asarray(normal(0, B, 2, 5, 4))
        found = turn_boxes_back(boxes, jnp.arange(B), 4, SIZE)
        assert found.shape == boxes.shape
        np.testing.assert_array_equal(found[1, 1, 2], turn_boxes_back(boxes[1:2, 1, 2], jnp.array([1]), 4, SIZE)[0])
