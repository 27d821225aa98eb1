"""The page's preprocessing against OpenCV."""

import cv2
import numpy as np
import pytest
from node import run_with_node

from ssanet_jax.data.image_inputs import network_input
from ssanet_jax.data.preprocessing import InputSettings, to_source_pixels

PREPROCESS = """
import { readFileSync, writeFileSync } from 'node:fs';
import { preprocess, toPhotoPixels } from './preprocessing.js';
return given.map(({ file, width, height, settings, box }) => {
  const data = new Uint8ClampedArray(readFileSync(file));  // RGBA, as a canvas has it
  const rows = (first, count) => data.subarray(first * width * 4, (first + count) * width * 4);
  writeFileSync(`${file}.out`, preprocess({ width, height, channels: 4, rows }, settings));
  return toPhotoPixels(box, { width, height }, settings);
});
"""
METHODS = {'bilinear': cv2.INTER_LINEAR, 'bicubic': cv2.INTER_CUBIC}
BOX = [3.5, -2.0, 20.25, 18.0]

# Height and width of the photo; image_size, resize, interpolation, shrink.
CASES = {
    'integer factors': (96, 144, 40, 48, 'bilinear', False),
    'halves': (96, 96, 48, 48, 'bilinear', False),
    'fractional factors': (107, 151, 40, 48, 'bilinear', False),
    'hardly smaller': (61, 60, 53, 60, 'bicubic', False),
    'of equal size': (48, 48, 31, 48, 'bilinear', False),
    'enlarged bilinearly': (31, 40, 40, 48, 'bilinear', False),
    'enlarged bicubically': (31, 40, 40, 48, 'bicubic', False),
    'a pixel': (1, 1, 40, 48, 'bicubic', False),
    'two rows of pixels': (2, 47, 40, 48, 'bicubic', False),
    'smaller height, larger width': (150, 30, 40, 48, 'bilinear', False),
    'larger height, smaller width': (37, 200, 47, 48, 'bicubic', False),
    'shrunk before': (200, 333, 40, 48, 'bilinear', True),
    'shrunk by 1.5': (72, 101, 40, 48, 'bilinear', True),
    'too small to be shrunk': (71, 101, 40, 48, 'bilinear', True),
    'shrunk to half a pixel': (96, 145, 40, 48, 'bilinear', True),  # 72.5 is rounded to 72
    'several strips': (1100, 1300, 100, 120, 'bilinear', False),
}


def resize_by_opencv(image, height, width, interpolation):
    if image.shape[:2] == (height, width):
        return image
    shrinks = image.shape[0] * image.shape[1] > height * width
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else METHODS[interpolation])


def preprocess_by_opencv(image, settings):
    size, side = settings.image_size, settings.resize
    height, width = image.shape[:2]
    scale = side / min(height, width)
    if settings.shrink and scale <= 1 / 1.5:
        image = resize_by_opencv(image, round(height * scale), round(width * scale), 'bilinear')
    square = resize_by_opencv(image, side, side, settings.interpolation)
    start = (side - size) // 2
    return square[start : start + size, start : start + size]


def photo(height, width, seed=0):
    """Noise beside a ramp with a fine grid: what interpolation and averaging treat differently."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = np.stack([255 * y / height, 255 * x / width, 127 + 127 * np.sin(2 * x + y)], -1)
    image[:, : width // 2] = rng.integers(0, 256, (height, width // 2, 3))
    return image.astype(np.uint8)


@pytest.fixture(scope='module')
def preprocessed(tmp_path_factory):
    """Photo, settings, input and box in the photo of each case, by one process."""
    folder, jobs, cases = tmp_path_factory.mktemp('photos'), [], {}
    for index, (name, (height, width, size, side, interpolation, shrink)) in enumerate(CASES.items()):
        settings = InputSettings(size, side, interpolation, shrink, 0)
        image = photo(height, width, index)
        path = folder / f'{index}.raw'
        path.write_bytes(np.dstack([image, np.full((height, width), 255, np.uint8)]).tobytes())
        jobs.append(
            {'file': str(path), 'width': width, 'height': height, 'settings': vars(settings), 'box': BOX},
        )
        cases[name] = image, settings, path.with_name(f'{path.name}.out')
    boxes = run_with_node(tmp_path_factory.mktemp('page'), PREPROCESS, jobs)
    return {
        name: (image, settings, np.fromfile(path, np.uint8).reshape(settings.image_size, settings.image_size, 3), box)
        for (name, (image, settings, path)), box in zip(cases.items(), boxes)
    }


@pytest.mark.parametrize('case', CASES)
def test_pixels_are_those_of_opencv(preprocessed, case):
    image, settings, found, _ = preprocessed[case]
    expected = preprocess_by_opencv(image, settings)
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= (2 if settings.shrink else 1)  # roundings of both steps add up
    assert difference.mean() < 0.25  # OpenCV rounds integers of 11 bits, and halves up


@pytest.mark.parametrize('case', CASES)
def test_boxes_come_back_as_in_python(preprocessed, case):
    image, settings, _, box = preprocessed[case]
    np.testing.assert_allclose(box, to_source_pixels(np.array([BOX]), image.shape[:2], settings)[0])


def test_inputs_differ_little_from_those_of_predict(preprocessed):
    """`predict` compresses a photo that it shrinks, as training images were."""
    image, settings, found, _ = preprocessed['shrunk before']
    difference = np.abs(found.astype(int) - network_input(image, settings).astype(int))
    assert difference.mean() < 3  # of noise, which compresses badly
