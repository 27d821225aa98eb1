"""Inputs for tests of data sets."""

import pathlib
import zlib

import ml_collections
import numpy as np
import pytest
from PIL import Image

REAL = pathlib.Path(__file__).parents[1] / '../shared/data'


def real_folder(name: str) -> pathlib.Path:
    """Returns a folder of real data, or skips the test."""
    if not (REAL / name).is_dir():
        pytest.skip(f'needs the real {name} in ../shared/data')
    return REAL / name


def make_config(**fields) -> ml_collections.ConfigDict:
    """A `config.data` section with every field of the pipeline."""
    values = dict(
        batch_size=4,
        eval_batch_size=4,
        resize=24,
        image_size=16,
        interpolation='bilinear',
        scale_min=1.0,
        flip=True,
        color_jitter=0.0,
        random_erasing=0.0,
        num_workers=2,
        prefetch=2,
    )
    return ml_collections.ConfigDict(values | fields)


def write_image(path: pathlib.Path, height=24, width=32, mode='RGB') -> np.ndarray:
    """Writes a smooth image, determined by its name, and returns its pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    color = np.random.default_rng(zlib.crc32(path.name.encode())).integers(40, 215, 3)
    ramp = np.linspace(-40, 40, width)[None, :, None]
    pixels = np.broadcast_to(color + ramp, (height, width, 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    image.convert(mode).save(path, quality=95)
    return np.array(image.convert(mode).convert('RGB'))


class ArraySource:
    """A source of random images in memory."""

    def __init__(self, count: int, height: int = 24, width: int = 24):
        rng = np.random.default_rng(0)
        self.labels = (np.arange(count) % 5).astype(np.int32)
        self.images = rng.integers(0, 256, (count, height, width, 3), np.uint8)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {
            'image': self.images[index],
            'label': np.int32(index % 5),
            'file': f'{index}.png',
        }
