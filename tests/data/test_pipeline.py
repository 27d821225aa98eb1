"""Batches: what is in them, in which order, and that a resumed stream goes on exactly."""

import json

import cv2
import numpy as np
import pytest
from data_samples import ArraySource, make_config
from hypothesis import given, settings
from hypothesis import strategies as st

from ssanet_jax.data import pipeline, transforms
from ssanet_jax.errors import UserError


def _assert_same(first, second):
    first, second = list(first), list(second)
    assert len(first) == len(second)
    for a, b in zip(first, second):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 20), size=st.integers(1, 8), threads=st.integers(0, 3))
def test_evaluation_sees_every_example_once_in_order(count, size, threads):
    source = ArraySource(count)
    config = make_config(eval_batch_size=size, threads=threads)
    batches = list(pipeline.eval_batches(source, config))
    assert len(batches) == -(-count // size)
    for batch in batches:
        assert batch['image'].shape == (size, 16, 16, 3) and batch['image'].dtype == np.uint8
        assert batch['label'].dtype == batch['index'].dtype == np.int32
        assert batch['mask'].shape == (size,) and batch['mask'].dtype == bool
    every = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    np.testing.assert_array_equal(every['mask'], np.arange(len(every['mask'])) < count)
    np.testing.assert_array_equal(every['index'][:count], np.arange(count))
    np.testing.assert_array_equal(every['label'][:count], np.arange(count) % 5)
    np.testing.assert_array_equal(every['image'][:count], source.images[:, 4:20, 4:20])
    assert (every['index'][count:] == count - 1).all()


@settings(max_examples=20, deadline=None)
@given(count=st.integers(4, 23), size=st.integers(1, 4), seed=st.integers(0, 2**32 - 1))
def test_epochs_are_permutations(count, size, seed):
    source = ArraySource(count)
    config = make_config(batch_size=size, threads=0)
    steps = pipeline.steps_per_epoch(source, size)
    assert steps == count // size
    batches = list(pipeline.train_batches(source, config, seed=seed, epochs=3))
    assert len(batches) == 3 * steps
    for epoch in range(3):
        index = np.concatenate([b['index'] for b in batches[epoch * steps : (epoch + 1) * steps]])
        assert len(set(index.tolist())) == len(index) == steps * size
        assert index.min() >= 0 and index.max() < count


def _order(**options):
    batches = pipeline.train_batches(ArraySource(40), make_config(), epochs=2, **options)
    return np.concatenate([batch['index'] for batch in batches]).reshape(2, 40)


def test_epochs_and_seeds_differ():
    first, second = _order(seed=0)
    other, _ = _order(seed=1)
    assert (first != second).any() and (first != other).any() and (second != other).any()
    # A dropped remainder is not always the same examples.
    assert (first != np.arange(40)).any()


def test_remainder_changes_from_epoch_to_epoch():
    source, config = ArraySource(7), make_config(batch_size=4)
    batches = list(pipeline.train_batches(source, config, seed=0, epochs=30))
    assert set(np.concatenate([b['index'] for b in batches]).tolist()) == set(range(7))


def test_batches_carry_their_own_labels():
    config = make_config(resize=24, image_size=24, flip=False)
    source = ArraySource(12)
    for batch in pipeline.train_batches(source, config, seed=0, epochs=1):
        np.testing.assert_array_equal(batch['label'], batch['index'] % 5)
        np.testing.assert_array_equal(batch['image'], source.images[batch['index']])
        assert batch['label'].dtype == batch['index'].dtype == np.int32


@pytest.mark.parametrize('threads', [1, 3])
def test_same_batches_whatever_the_number_of_threads(threads):
    source = ArraySource(11)
    config = make_config(scale_min=0.5)
    config.threads = 0
    one = list(pipeline.train_batches(source, config, seed=3, epochs=2))
    config.threads = threads
    _assert_same(one, pipeline.train_batches(source, config, seed=3, epochs=2))


@pytest.mark.parametrize('done', [0, 1, 2, 3, 5])
@pytest.mark.parametrize('threads', [0, 2])
def test_resumes_exactly(done, threads):
    source, config = ArraySource(11), make_config(scale_min=0.5, threads=threads)  # 2 a epoch.
    batches = pipeline.train_batches(source, config, seed=0, epochs=3)
    for _ in range(done):
        next(batches)
    state = json.loads(json.dumps(batches.get_state()))  # As a checkpoint would keep it.
    following = list(batches)
    assert len(following) == 6 - done

    fresh = pipeline.train_batches(source, config, seed=0, epochs=3)
    fresh.set_state(state)
    _assert_same(following, fresh)


def test_augmentation_is_drawn_anew_each_epoch():
    source, config = ArraySource(4), make_config()
    first, second = (
        {int(i): image for i, image in zip(batch['index'], batch['image'])}
        for batch in pipeline.train_batches(source, config, seed=0, epochs=2)
    )
    assert any((first[i] != second[i]).any() for i in range(4))


def test_crops_and_flips_are_slices():
    image = ArraySource(1, 20, 20).images[0]
    windows = {}
    for top in range(5):
        for left in range(5):
            window = image[top : top + 16, left : left + 16]
            windows[window.tobytes()] = (top, left, False)
            windows[window[:, ::-1].tobytes()] = (top, left, True)
    crop = transforms.RandomCropFlip(16)
    rng = np.random.default_rng(0)
    seen = {windows[crop.random_map({'image': image}, rng)['image'].tobytes()] for _ in range(900)}
    assert len(seen) == 50  # Every place, both ways.

    plain = transforms.RandomCropFlip(16, flip=False)
    seen = {windows[plain.random_map({'image': image}, rng)['image'].tobytes()] for _ in range(99)}
    assert not any(flipped for _, _, flipped in seen)


def test_no_flip_leaves_the_crops_as_they_are():
    image = ArraySource(1, 20, 20).images[0]
    for seed in range(10):
        plain, flipped = (
            transforms.RandomCropFlip(16, flip=flip).random_map({'image': image}, np.random.default_rng(seed))['image']
            for flip in (False, True)
        )
        assert (flipped == plain).all() or (flipped == plain[:, ::-1]).all()


@settings(max_examples=40, deadline=None)
@given(scale=st.floats(0.05, 1), side=st.integers(8, 40), seed=st.integers(0, 99))
def test_scale_jitter_keeps_size_and_range(scale, side, seed):
    image = ArraySource(1, side, side).images[0] // 2 + 30
    crop = transforms.RandomCropFlip(8, scale_min=scale)
    out = crop.random_map({'image': image}, np.random.default_rng(seed))['image']
    assert out.shape == (8, 8, 3) and out.dtype == np.uint8
    assert out.min() >= image.min() and out.max() <= image.max()


def test_scale_jitter_enlarges():
    # On a ramp of slope 1, a crop of side s enlarged to 32 has a slope of s / 32.
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None] * 2, (64, 64, 3)).copy()
    crop = transforms.RandomCropFlip(32, flip=False, scale_min=0.5)
    rng = np.random.default_rng(0)
    slopes = []
    for _ in range(200):
        row = crop.random_map({'image': ramp}, rng)['image'][0, :, 0].astype(float)
        slopes.append((row[28] - row[4]) / 24 / 2)
    assert 0.47 < min(slopes) < 0.6 and 0.9 < max(slopes) < 1.03


def test_resize_gives_up_the_aspect_ratio():
    image = ArraySource(1, 48, 32).images[0]
    resized = transforms.ResizeSquare(16).map({'image': image, 'label': 1})
    blocks = image.reshape(16, 3, 16, 2, 3).mean((1, 3))
    np.testing.assert_allclose(resized['image'].astype(float), blocks, atol=1)
    assert resized['label'] == 1
    larger = transforms.ResizeSquare(64).map({'image': image})['image']
    np.testing.assert_array_equal(larger, cv2.resize(image, (64, 64)))


def test_centre_crop():
    image = ArraySource(1, 21, 21).images[0]
    out = transforms.CentreCrop(16).map({'image': image})['image']
    np.testing.assert_array_equal(out, image[2:18, 2:18])


def test_fewer_images_than_a_batch():
    with pytest.raises(UserError, match='3 training images.*batch of 4.*config.data.batch_size'):
        pipeline.train_batches(ArraySource(3), make_config(), seed=0, epochs=1)


@pytest.mark.parametrize(('field', 'value'), [('resize', 15), ('scale_min', 0.0), ('scale_min', 1.5)])
def test_fields_that_make_no_sense(field, value):
    config = make_config(**{field: value})
    with pytest.raises(UserError, match=f'config.data.{field}'):
        pipeline.train_batches(ArraySource(8), config, seed=0, epochs=1)
    with pytest.raises(UserError, match=f'config.data.{field}'):
        pipeline.eval_batches(ArraySource(8), config)


class _Broken(ArraySource):
    def __getitem__(self, index):
        if index == 3:
            raise UserError('cannot read the image 3.png: replace it')
        return super().__getitem__(index)


@pytest.mark.parametrize('threads', [0, 2])
def test_an_unreadable_image_ends_as_a_user_error(threads):
    config = make_config(threads=threads)
    for batches in (
        pipeline.eval_batches(_Broken(8), config),
        pipeline.train_batches(_Broken(8), config, seed=0, epochs=1),
    ):
        with pytest.raises(UserError) as caught:
            list(batches)
        # Grain may add notes, which a command does not print; the message stays one line.
        assert str(caught.value) == 'cannot read the image 3.png: replace it'
