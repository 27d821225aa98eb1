"""Robustness: rotated and downscaled images against SciPy and Pillow, counts against hand-made classifiers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from data_samples import make_config
from PIL import Image

from ssanet_jax.data.pipeline import eval_batches
from ssanet_jax.distributed import sharding
from ssanet_jax.errors import UnreadableImage
from ssanet_jax.evaluation.robustness import PERTURBATIONS, evaluate_robustness, random_angles, rotate, shrink_and_pad

SIDE = 16
DATA = make_config(resize=SIDE, image_size=SIDE, eval_batch_size=4, num_workers=1)
QUARTERS = {'original': 0, 'rotated by 90': 1, 'rotated by 180': 2, 'rotated by 270': 3}


class Pictures:
    """Images in memory with labels; some may be broken."""

    def __init__(self, images, labels, broken=()):
        self.images, self.labels, self.broken = images, np.asarray(labels, np.int32), broken

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        if index in self.broken:
            raise UnreadableImage(f'{index} cannot be read')
        return {'image': self.images[index], 'label': self.labels[index], 'file': f'{index}'}


def noise(count, side=SIDE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def measure(classify, source, data=DATA, seed=0):
    return evaluate_robustness(classify, eval_batches(source, data), sharding.make_mesh(), seed)


@pytest.mark.parametrize('height, width', [(16, 16), (15, 15), (12, 20)])
def test_rotate_is_scipys_affine_transform(height, width):
    images = np.random.default_rng(1).integers(0, 256, (6, height, width, 3), np.uint8)
    angles = np.array([0, 17.5, 90, 123.4, 200, 359])
    turned = np.asarray(rotate(jnp.asarray(images), jnp.asarray(angles, jnp.float32)))
    middle = (np.array([height, width]) - 1) / 2
    for image, angle, result in zip(images, angles, turned):
        cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        back = np.array([[cos, sin], [-sin, cos]])  # where (y, x) comes from, y down, turned counter-clockwise
        for channel in range(3):
            expected = scipy.ndimage.affine_transform(
                image[..., channel].astype(float), back, middle - back @ middle, order=1, mode='grid-constant'
            )
            np.testing.assert_allclose(result[..., channel], expected, atol=0.51)


def test_rotate_agrees_with_rot90_and_with_pillow():
    images = noise(4, 24)
    quarters = np.asarray(rotate(jnp.asarray(images), 90.0 * jnp.arange(4)))
    for k in range(4):
        np.testing.assert_array_equal(quarters[k], np.rot90(images[k], k))
    smooth = scipy.ndimage.gaussian_filter(noise(1, 64)[0].astype(float), (3, 3, 0)).astype(np.uint8)
    ours = np.asarray(rotate(jnp.asarray(smooth[None]), jnp.array([33.0])))[0].astype(int)
    theirs = np.asarray(Image.fromarray(smooth).rotate(33, Image.Resampling.BILINEAR)).astype(int)
    inside = np.hypot(*np.mgrid[-31.5:32, -31.5:32]) < 30  # Pillow treats the rim in its own way
    assert np.abs(ours - theirs)[inside].max() <= 1
    assert (ours[:8, :8] == 0).all(), 'the corner comes from outside'


@pytest.mark.parametrize('name', QUARTERS)
def test_quarter_turns_are_exact(name):
    images = noise(3)
    changed = PERTURBATIONS[name](jnp.asarray(images), jnp.zeros(3))
    np.testing.assert_array_equal(changed, np.rot90(images, QUARTERS[name], axes=(1, 2)))


@pytest.mark.parametrize('side, small', [(448, 300), (224, 150), (96, 64), (64, 43), (7, 5)])
def test_shrink_and_pad_pads_a_smaller_image_with_black(side, small):
    images = np.full((2, side, side, 3), (10, 200, 90), np.uint8)
    reduced = np.asarray(shrink_and_pad(jnp.asarray(images)))
    assert reduced.shape == images.shape and reduced.dtype == np.uint8
    first = (side - small) // 2
    middle = np.zeros((side, side), bool)
    middle[first : first + small, first : first + small] = True
    assert (reduced[:, middle] == (10, 200, 90)).all() and (reduced[:, ~middle] == 0).all()


def test_reduced_pixels_are_pillows():
    """Pillow shrinks with the same antialiased triangle filter, rounding once an axis."""
    image = noise(1, 224)[0]
    ours = np.asarray(shrink_and_pad(jnp.asarray(image[None])))[0, 37:187, 37:187].astype(int)
    theirs = np.asarray(Image.fromarray(image).resize((150, 150), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(ours - theirs).max() <= 2


def corner_pictures():
    """Eleven images (no multiple of the batch) of four quarters, each of one of four reds: a class."""
    random = np.random.default_rng(0)
    corners = random.integers(0, 4, (11, 2, 2))  # of top, bottom x left, right
    images = np.zeros((11, SIDE, SIDE, 3), np.uint8)
    halves = np.repeat(np.repeat(corners, SIDE // 2, 1), SIDE // 2, 2)
    images[..., 0] = 30 + 60 * halves
    return images, corners


def red_corner(images):
    """The class of the color in the top left pixel; 4, not a label, for black."""
    red = np.asarray(images)[:, 0, 0, 0].astype(int)
    return np.where(red < 15, 4, np.round((red - 30) / 60).astype(int))


@pytest.mark.parametrize('as_logits', [False, True])
@pytest.mark.parametrize('size', [1, 4, 16])
def test_a_classifier_of_one_corner(size, as_logits):
    """Its prediction for a rotated image is known: the color of the corner that moves to the top left."""
    images, corners = corner_pictures()
    labels = corners[:, 0, 0]
    classify = (lambda images: np.eye(5)[red_corner(images)]) if as_logits else red_corner
    result = measure(classify, Pictures(images, labels), make_config(**DATA.to_dict() | {'eval_batch_size': size}))
    # Counter-clockwise: the top right corner comes to the top left, then the bottom right, then the bottom left.
    expected = {
        'original': 1.0,
        'rotated by 90': (corners[:, 0, 1] == labels).mean(),
        'rotated by 180': (corners[:, 1, 1] == labels).mean(),
        'rotated by 270': (corners[:, 1, 0] == labels).mean(),
        'reduced': 0.0,  # the corner is black
    }
    assert len(set(expected.values())) == 5, 'the expected values are distinct'
    got = dict(result.accuracy)
    got.pop('rotated at random')
    assert got == pytest.approx(expected)
    assert result.drop.keys() == PERTURBATIONS.keys() - {'original'}
    for name, drop in result.drop.items():
        assert drop == pytest.approx(100 * (1 - result.accuracy[name]))
    assert result.examples == 11 and result.unreadable == []


def test_random_rotations_image_by_image():
    """The count at random angles, from images rotated one by one by SciPy."""
    images, corners = corner_pictures()
    labels = corners[:, 0, 0]
    center_left = lambda images: np.round((np.asarray(images)[:, 6, 6, 0].astype(int) - 30) / 60).astype(int)
    result = measure(center_left, Pictures(images, labels), seed=5)
    angles = np.asarray(random_angles(5, jnp.arange(11)))
    turned = [scipy.ndimage.rotate(image, a, reshape=False, order=1) for image, a in zip(images, angles)]
    assert result.accuracy['rotated at random'] == pytest.approx((center_left(np.stack(turned)) == labels).mean())
    assert 0 < result.accuracy['rotated at random'] < 1


@pytest.mark.parametrize('seed', [0, 2**31 - 1, 2**31, 2**32 - 1])
def test_every_seed_has_angles(seed):
    """Against keys made from their two words, the upper of which is 0."""
    key = jax.random.wrap_key_data(np.array([0, seed], np.uint32))
    expected = [jax.random.uniform(jax.random.fold_in(key, i), maxval=360.0) for i in range(3)]
    np.testing.assert_allclose(random_angles(seed, jnp.arange(3)), expected, rtol=1e-6)


def test_angles_belong_to_the_image_and_the_seed():
    angles = np.asarray(random_angles(0, jnp.arange(4000)))
    assert (angles >= 0).all() and (angles < 360).all()
    assert np.histogram(angles, 8, (0, 360))[0].min() > 400  # 500 expected, standard deviation 21
    np.testing.assert_array_equal(angles[[7, 3]], random_angles(0, jnp.array([7, 3])))
    assert not (angles[:50] == np.asarray(random_angles(1, jnp.arange(50)))).any()
    images = noise(11)
    labels = (images.sum((1, 2, 3)) % 3).astype(int)
    guess = lambda images: np.asarray(images).astype(int).sum((1, 2, 3)) % 3  # as good as random on turned images
    batches = [make_config(**DATA.to_dict() | {'eval_batch_size': size}) for size in (2, 5)]
    one, other = (measure(guess, Pictures(images, labels), data, seed=4) for data in batches)
    assert one == other, 'the batch size has no effect'


def test_a_classifier_of_the_mean_color_is_invariant_to_quarter_turns():
    images = noise(10) // 4
    labels = np.arange(10) % 3
    images[np.arange(10), :, :, labels] += 100
    result = measure(lambda images: images.astype(jnp.float32).mean((1, 2)), Pictures(images, labels))
    assert all(result.accuracy[name] == 1 for name in QUARTERS)
    assert result.accuracy['reduced'] == 1, 'the largest of the three means stays the largest'


def test_unreadable_images_are_wrong_and_padding_is_not_counted():
    """The classifier predicts the label of every black image correctly."""
    images, labels = noise(6), np.full(6, 2)
    result = measure(lambda images: np.full(len(images), 2), Pictures(images, labels, broken=(1, 5)))
    assert all(value == pytest.approx(4 / 6) for value in result.accuracy.values())
    assert result.examples == 6 and result.unreadable == [1, 5]
    for name in PERTURBATIONS:
        assert result.images.correct(name).tolist() == [True, False, True, True, True, False]
    assert all(drop == pytest.approx(0) for drop in result.drop.values())
