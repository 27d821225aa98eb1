"""The published data sets that `ssanet download` fetches: their archives, mirrors, checksums and licenses.

Sizes and SHA-256 sums are those of TensorFlow Datasets, which records them for each of its downloads. It does not have
FGVC-Aircraft; the MD5 of that archive is the one that other libraries check. An archive is the same file on each of its
mirrors, so that a download may continue on another one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

from ssanet_jax.download import lists


@dataclasses.dataclass(frozen=True)
class Archive:
    """A file to download."""

    name: str
    urls: tuple[str, ...]
    """The same file on several servers, in the order in which they are tried."""
    checksum: str
    """'sha256:' or 'md5:' and the hexadecimal digest."""
    size: int | None = None
    """Bytes; None if only the checksum is known."""

    @property
    def is_archive(self) -> bool:
        """Whether the file is unpacked, instead of moved into the folder as it is."""
        return self.name.endswith(('.tgz', '.tar.gz', '.tar'))


@dataclasses.dataclass(frozen=True)
class PublishedSet:
    """A data set, and how its folder is made from its archives."""

    title: str
    page: str
    """The publisher's page."""
    license: str
    archives: tuple[Archive, ...]
    published: dict[str, int]
    """Number of 'train' images, 'test' images and 'classes'."""
    reader: str
    """`config.data.name`: the reader of the folder."""
    list_images: Callable[[Path], Iterable[lists.Line]] | None = None
    """Reads the publisher's lists of a folder, for the CSV file of `configs/folder.py`."""
    remark: str = ''
    """What the user should know, such as that a server is gone."""


def _vgg(path: str) -> tuple[str, ...]:
    return tuple(f'https://{host}.robots.ox.ac.uk/~vgg/data/{path}' for host in ('www', 'thor'))


_DOGS = 'http://vision.stanford.edu/aditya86/ImageNetDogs'
_CARS = 'http://ai.stanford.edu/~jkrause'

PUBLISHED_SETS = {
    'cub': PublishedSet(
        title='CUB-200-2011',
        page='https://www.vision.caltech.edu/datasets/cub_200_2011',
        license='images for non-commercial research and education only; their photographers keep the copyright',
        archives=(
            Archive(
                'CUB_200_2011.tgz',
                (
                    'https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1',
                    'https://s3.amazonaws.com/fast-ai-imageclas/CUB_200_2011.tgz',
                ),
                'sha256:0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081',
                1150585339,
            ),
        ),
        published=dict(classes=200, train=5994, test=5794),
        reader='cub',
    ),
    'cars': PublishedSet(
        title='Stanford Cars',
        page='https://ai.stanford.edu/~jkrause/cars/car_dataset.html',
        license='none stated; the images come from the web',
        archives=(
            Archive(
                'car_devkit.tgz',
                ('https://ai.stanford.edu/~jkrause/cars/car_devkit.tgz',),
                'sha256:b97deb463af7d58b6bfaa18b2a4de9829f0f79e8ce663dfa9261bf7810e9accd',
                330960,
            ),
            Archive(
                'cars_test_annos_withlabels.mat',
                (f'{_CARS}/car196/cars_test_annos_withlabels.mat',),
                'sha256:790f75be8ea34eeded134cc559332baf23e30e91367e9ddca97d26ed9b895f05',
                185758,
            ),
            Archive(
                'cars_train.tgz',
                (f'{_CARS}/car196/cars_train.tgz',),
                'sha256:512b227b30e2f0a8aab9e09485786ab4479582073a144998da74d64b801fd288',
                979269282,
            ),
            Archive(
                'cars_test.tgz',
                (f'{_CARS}/car196/cars_test.tgz',),
                'sha256:bffea656d6f425cba3c91c6d83336e4c5f86c6cffd8975b0f375d3a10da8e243',
                977350468,
            ),
        ),
        published=dict(classes=196, train=8144, test=8041),
        reader='cars',
        remark="the publisher's server has not served these files since 2023; Kaggle has copies, which need an account",
    ),
    'aircraft': PublishedSet(
        title='FGVC-Aircraft',
        page='https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft',
        license='non-commercial research only; the photographers keep the copyright',
        archives=(
            Archive(
                'fgvc-aircraft-2013b.tar.gz',
                _vgg('fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz'),
                'md5:d4acdd33327262359767eeaa97a4f732',
            ),
        ),
        published=dict(classes=100, train=6667, test=3333),
        reader='aircraft',
    ),
    'flowers': PublishedSet(
        title='Oxford 102 Flowers',
        page='https://www.robots.ox.ac.uk/~vgg/data/flowers/102',
        license='none stated',
        archives=(
            Archive(
                '102flowers.tgz',
                _vgg('flowers/102/102flowers.tgz'),
                'sha256:2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246',
                344862509,
            ),
            Archive(
                'imagelabels.mat',
                _vgg('flowers/102/imagelabels.mat'),
                'sha256:4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d',
                502,
            ),
            Archive(
                'setid.mat',
                _vgg('flowers/102/setid.mat'),
                'sha256:46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd',
                14989,
            ),
        ),
        published=dict(classes=102, train=2040, test=6149),
        reader='folder',
        list_images=lists.flowers,
    ),
    'pets': PublishedSet(
        title='Oxford-IIIT Pets',
        page='https://www.robots.ox.ac.uk/~vgg/data/pets',
        license='CC BY-SA 4.0; the photographers keep the copyright',
        archives=(
            Archive(
                'images.tar.gz',
                tuple(reversed(_vgg('pets/images.tar.gz'))) + _vgg('pets/data/images.tar.gz')[:1],
                'sha256:67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d',
                791918971,
            ),
            Archive(
                'annotations.tar.gz',
                tuple(reversed(_vgg('pets/annotations.tar.gz'))) + _vgg('pets/data/annotations.tar.gz')[:1],
                'sha256:52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91',
                19173078,
            ),
        ),
        published=dict(classes=37, train=3680, test=3669),
        reader='folder',
        list_images=lists.pets,
    ),
    'dogs': PublishedSet(
        title='Stanford Dogs',
        page=_DOGS,
        license='the images come from ImageNet, whose terms allow non-commercial research and education',
        archives=(
            Archive(
                'images.tar',
                (f'{_DOGS}/images.tar',),
                'sha256:a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58',
                793579520,
            ),
            Archive(
                'lists.tar',
                (f'{_DOGS}/lists.tar',),
                'sha256:34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c',
                481280,
            ),
        ),
        published=dict(classes=120, train=12000, test=8580),
        reader='folder',
        list_images=lists.dogs,
    ),
}
