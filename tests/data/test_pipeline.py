"""Batches: their contents and order, and the exact continuation of a resumed stream."""

import itertools
import json
import os
import pathlib
import socket
import subprocess
import sys

import cv2
import numpy as np
import pytest
from data_samples import ArraySource, make_config
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from ssanet_jax.data import pipeline, transforms
from ssanet_jax.errors import UnreadableImage, UserError


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
    config = make_config(eval_batch_size=size, num_workers=threads)
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
    assert not every['image'][count:].any()


@settings(max_examples=20, deadline=None)
@given(count=st.integers(4, 23), size=st.integers(1, 4), seed=st.integers(0, 2**32 - 1))
def test_epochs_are_permutations_also_when_they_do_not_fill_their_last_batch(count, size, seed):
    source = ArraySource(count)
    batches = list(pipeline.train_batches(source, make_config(batch_size=size, num_workers=0), seed=seed, epochs=3))
    assert len(batches) == pipeline.num_steps(3, count, size) == -(-3 * count // size)
    order = np.concatenate([batch['index'] for batch in batches])
    for epoch in range(3):
        assert sorted(order[epoch * count : (epoch + 1) * count]) == list(range(count))


@settings(max_examples=20, deadline=None)
@given(count=st.integers(8, 30), processes=st.integers(1, 4), share=st.integers(1, 2), batch=st.integers(0, 3))
def test_processes_share_the_batches_of_one(count, processes, share, batch):
    """All processes together read the same augmented batches as a single process."""
    source, size = ArraySource(count), processes * share
    config = make_config(batch_size=size, eval_batch_size=size, scale_min=0.5, num_workers=0)
    start = batch * size
    whole = list(pipeline.train_batches(source, config, seed=1, epochs=2, start=start))
    parts = [
        list(
            pipeline.train_batches(
                source, config, seed=1, epochs=2, start=start, process=pipeline.Process(index, processes)
            )
        )
        for index in range(processes)
    ]
    for number, one in enumerate(whole):
        for index, part in enumerate(parts):
            for key, value in part[number].items():
                np.testing.assert_array_equal(value, one[key][index::processes], err_msg=key)
    assert {len(part) for part in parts} == {len(whole)}

    parts = [
        list(pipeline.eval_batches(source, config, process=pipeline.Process(i, processes))) for i in range(processes)
    ]
    assert {len(part) for part in parts} == {-(-count // size)}
    seen = np.concatenate([batch['index'][batch['mask']] for part in parts for batch in part])
    assert sorted(seen) == list(range(count))


def _order(**options):
    batches = pipeline.train_batches(ArraySource(40), make_config(), epochs=2, **options)
    return np.concatenate([batch['index'] for batch in batches]).reshape(2, 40)


def test_epochs_and_seeds_differ():
    first, second = _order(seed=0)
    other, _ = _order(seed=1)
    assert (first != second).any() and (first != other).any() and (second != other).any()
    assert (first != np.arange(40)).any()


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
    config.num_workers = 0
    one = list(pipeline.train_batches(source, config, seed=3, epochs=2))
    config.num_workers = threads
    _assert_same(one, pipeline.train_batches(source, config, seed=3, epochs=2))


@pytest.mark.parametrize('done', [0, 1, 5, 9])  # 9: killed after the last step
@pytest.mark.parametrize('threads', [0, 2])
def test_resumes_exactly(done, threads):
    source, config = (
        ArraySource(11),
        make_config(scale_min=0.5, color_jitter=0.3, random_erasing=0.5, num_workers=threads),
    )
    whole = list(pipeline.train_batches(source, config, seed=0, epochs=3))
    assert len(whole) == 9  # 33 images, 4 per batch
    _assert_same(whole[done:], pipeline.train_batches(source, config, seed=0, epochs=3, start=4 * done))


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
    cubic = transforms.ResizeSquare(64, 'bicubic').map({'image': image})['image']
    np.testing.assert_array_equal(cubic, cv2.resize(image, (64, 64), interpolation=cv2.INTER_CUBIC))
    assert (cubic != larger).any()


def test_centre_crop():
    image = ArraySource(1, 21, 21).images[0]
    out = transforms.CenterCrop(16).map({'image': image})['image']
    np.testing.assert_array_equal(out, image[2:18, 2:18])


def test_fewer_images_than_a_batch():
    with pytest.raises(UserError, match='3 training images.*batch of 4.*config.data.batch_size'):
        pipeline.train_batches(ArraySource(3), make_config(), seed=0, epochs=1)


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('resize', 15),
        ('scale_min', 0.0),
        ('scale_min', 1.5),
        ('color_jitter', 1.0),
        ('random_erasing', -0.1),
        ('interpolation', 'nearest'),
    ],
)
def test_fields_that_make_no_sense(field, value):
    config = make_config(**{field: value})
    with pytest.raises(UserError, match=f'config.data.{field}'):
        pipeline.train_batches(ArraySource(8), config, seed=0, epochs=1)
    with pytest.raises(UserError, match=f'config.data.{field}'):
        pipeline.eval_batches(ArraySource(8), config)


class _Broken(ArraySource):
    """A source in which some images cannot be read."""

    def __init__(self, count, broken):
        super().__init__(count)
        self.broken = broken

    def __getitem__(self, index):
        if index in self.broken:
            raise UnreadableImage(f'cannot read the image {index}.png: replace it')
        return super().__getitem__(index)


@pytest.mark.parametrize('threads', [0, 2])
def test_training_passes_over_what_cannot_be_read(threads):
    source, config = _Broken(8, {3, 4, 7}), make_config(num_workers=threads)
    batches = list(pipeline.train_batches(source, config, seed=0, epochs=2))
    whole = list(pipeline.train_batches(ArraySource(8), config, seed=0, epochs=2))
    index, skipped, expected = (
        np.concatenate([batch[key] for batch in some])
        for some, key in ((batches, 'index'), (batches, 'skipped'), (whole, 'index'))
    )
    substitute = {3: 5, 4: 5, 7: 0}
    np.testing.assert_array_equal(index, [substitute.get(i, i) for i in expected])
    np.testing.assert_array_equal(skipped, [i if i in substitute else -1 for i in expected])
    assert pipeline.list_unreadable(source, skipped[skipped >= 0]) == [
        f'cannot read the image {i}.png: replace it' for i in (3, 4, 7)
    ]
    for batch in batches:
        np.testing.assert_array_equal(batch['label'], batch['index'] % 5)


@pytest.mark.parametrize('threads', [0, 2])
def test_evaluation_keeps_the_place_of_what_cannot_be_read(threads):
    batches = list(pipeline.eval_batches(_Broken(6, {3}), make_config(num_workers=threads)))
    every = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    np.testing.assert_array_equal(every['skipped'][:6], [-1, -1, -1, 3, -1, -1])
    np.testing.assert_array_equal(every['index'][:6], np.arange(6))
    np.testing.assert_array_equal(every['label'][:6], np.arange(6) % 5)
    assert not every['image'][3].any() and every['image'][2].any()


@pytest.mark.parametrize('threads', [0, 2])
def test_a_set_of_which_nothing_can_be_read_ends_as_a_user_error(threads):
    batches = pipeline.train_batches(_Broken(8, range(8)), make_config(num_workers=threads), seed=0, epochs=1)
    with pytest.raises(UserError, match='8 images in a row cannot be read.*png: replace it'):
        list(batches)


def test_a_process_without_an_image_has_as_many_batches_as_the_others():
    batches = list(pipeline.eval_batches(ArraySource(2), make_config(), process=pipeline.Process(3, 4)))
    assert [batch['mask'].tolist() for batch in batches] == [[False]]


def test_a_batch_that_does_not_divide_over_the_processes():
    with pytest.raises(UserError, match='config.data.batch_size=4 .*number of processes, 3'):
        pipeline.train_batches(ArraySource(8), make_config(), seed=0, epochs=1, process=pipeline.Process(0, 3))


_CHILD = """
import json, sys
import jax
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from data_samples import ArraySource, make_config
from ssanet_jax.data.pipeline import eval_batches, train_batches
from ssanet_jax.distributed.processes import Process
process = Process(jax.process_index(), jax.process_count())
source, config = ArraySource(21), make_config(batch_size=4, eval_batch_size=4)
ids = lambda batches: [batch['index'].tolist() for batch in batches]
tested = [batch['index'][batch['mask']].tolist() for batch in eval_batches(source, config, process=process)]
print(json.dumps([ids(train_batches(source, config, seed=0, epochs=2, process=process)), tested]))
"""


@pytest.mark.slow
def test_two_real_processes_share_an_epoch():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        address = f'127.0.0.1:{probe.getsockname()[1]}'
    environment = os.environ | {'PYTHONPATH': os.pathsep.join([str(pathlib.Path(__file__).parents[1]), *sys.path])}
    children = [
        subprocess.Popen(
            [sys.executable, '-c', _CHILD, address, str(index)], stdout=subprocess.PIPE, text=True, env=environment
        )
        for index in range(2)
    ]
    outputs = [json.loads(child.communicate(timeout=120)[0].splitlines()[-1]) for child in children]
    first, second = (np.array(trained) for trained, _ in outputs)  # [11 steps, 2]
    assert first.shape == second.shape == (11, 2)
    order = np.stack([first, second], -1).reshape(-1)  # as the two take turns
    assert sorted(order[:21]) == sorted(order[21:42]) == list(range(21))
    tested = [list(itertools.chain(*tested)) for _, tested in outputs]
    assert not set(tested[0]) & set(tested[1]) and sorted(itertools.chain(*tested)) == list(range(21))


def test_colour_jitter_against_pillow():
    """Brightness, contrast and saturation agree with Pillow's ImageEnhance, up to rounding."""
    image = ArraySource(1, 20, 20).images[0] // 3 + 80  # far from 0 and 255: Pillow clips after each step
    color_jitter = transforms.ColorJitter(0.3)
    out = color_jitter.random_map({'image': image}, np.random.default_rng(5))['image']
    brightness, contrast, saturation = np.random.default_rng(5).uniform(0.7, 1.3, 3)
    expected = Image.fromarray(image)
    for enhance, factor in (
        (ImageEnhance.Color, saturation),
        (ImageEnhance.Contrast, contrast),
        (ImageEnhance.Brightness, brightness),
    ):
        expected = enhance(expected).enhance(factor)
    np.testing.assert_allclose(out.astype(int), np.array(expected).astype(int), atol=3)
    assert np.abs(out.astype(int) - image).mean() > 5
    assert color_jitter.random_map({'image': image}, np.random.default_rng(6))['image'].tobytes() != out.tobytes()


def test_random_erasing_fills_one_rectangle():
    image = np.full((60, 80, 3), 7, np.uint8)
    erase = transforms.RandomErasing(0.5)
    shares = []
    for seed in range(200):
        out = erase.random_map({'image': image}, np.random.default_rng(seed))['image']
        changed = (out != 7).any(-1)
        if changed.any():
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            box = changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert box.mean() > 0.95  # noise is 7 in all three colors now and then
            shares.append(box.size / changed.size)
    assert 70 < len(shares) < 130
    assert 0.01 < min(shares) < 0.06 and 0.2 < max(shares) < 0.36
    assert (image == 7).all()


@pytest.mark.parametrize('transform', [transforms.ColorJitter(0), transforms.RandomErasing(0)])
def test_augmentation_that_is_off(transform):
    image = ArraySource(1).images[0]
    assert transform.random_map({'image': image}, np.random.default_rng(0))['image'] is image
