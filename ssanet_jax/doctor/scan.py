"""Reading of every image of a data set once, and the summary of about a kilobyte that the checks work on."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator

import cv2
import numpy as np
from PIL import UnidentifiedImageError

from ssanet_jax.cpu_limit import available_cpus
from ssanet_jax.data.color_tags import ignored_color_tags
from ssanet_jax.data.file_kinds import may_be_deep
from ssanet_jax.data.image_files import read_file
from ssanet_jax.data.image_formats import explain_content
from ssanet_jax.data.images import decode_image, measure_bit_depth
from ssanet_jax.data.listing import Listing
from ssanet_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ImageSummary:
    """The properties of an image that the checks need."""

    path: str
    problem: str = ''
    """Why the file cannot be read; '' if it can. Otherwise the fields below are meaningless."""
    missing: bool = False
    height: int = 0
    """In pixels, without the rows that the listing crops."""
    width: int = 0
    gray: bool = False
    bits: int = 0
    """The bits that the values of an image of 16 bits per channel use; 0 for other images."""
    color_tags: str = ''
    """What its color tags say that reading it ignores; '' if nothing."""
    digest: bytes = b''
    """SHA-256 of the decoded pixels, so that the file format does not matter."""
    hash: int = 0
    """Difference hash of 64 bits: for 8 x 9 cells, whether a cell is darker than its right neighbor."""
    thumbnail: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((16, 18), np.uint8))
    """uint8 [16, 18], grayscale."""


def scan_images(listing: Listing, num_workers: int | None = None) -> Iterator[ImageSummary]:
    """Reads every file of a listing once, in its order. Unreadable files are reported in `ImageSummary.problem`.

    Args:
      listing: the data set.
      num_workers: threads that decode; by default, one per available CPU.
    """
    paths = dict.fromkeys(record.path for record in listing.records)
    with concurrent.futures.ThreadPoolExecutor(num_workers or available_cpus()) as pool:
        bits = pool.map(lambda path: _bits_used(listing.root / path), paths)
        depth = max(bits, default=0)
        yield from pool.map(lambda path: scan_image(listing.root, path, listing.crop_bottom, depth), paths)


def _bits_used(path: pathlib.Path) -> int:
    """As `measure_bit_depth`; of most files, only the first bytes are read."""
    try:
        if not path.is_file():  # opening a pipe would block
            return 0
        with open(path, 'rb') as file:
            deep = may_be_deep(file.read(32))
        return measure_bit_depth(read_file(path)) if deep else 0
    except (OSError, ValueError):  # reported by `scan_image`
        return 0


def scan_image(root: pathlib.Path, path: str, crop_bottom: int = 0, bit_depth: int = 0) -> ImageSummary:
    """Reads and decodes one image as training does.

    Args:
      root: the root of the data set.
      path: the file, relative to the root.
      crop_bottom: rows to crop from the bottom of the image.
      bit_depth: bits that the values of images of 16 bits per channel use; 0 for as many as each image needs.
    """
    try:
        data = read_file(root / path)
        summary = _summarize(path, decode_image(data, path, bit_depth), crop_bottom)
        return dataclasses.replace(summary, bits=measure_bit_depth(data), color_tags=ignored_color_tags(data))
    except (FileNotFoundError, NotADirectoryError):
        return ImageSummary(path, problem='missing', missing=True)
    except UserError as error:  # its cause is the reason, without the name of the file
        reason = error.__cause__ or error
        problem = explain_content(data) if isinstance(reason, UnidentifiedImageError) else _one_line(reason)
        return ImageSummary(path, problem=problem)
    except (OSError, ValueError) as error:  # ValueError: an impossible file name
        return ImageSummary(path, problem=_one_line(getattr(error, 'strerror', None) or error))


def _summarize(path: str, image: np.ndarray, crop_bottom: int) -> ImageSummary:
    image = image[: max(image.shape[0] - crop_bottom, 0)]
    if not image.size:
        return ImageSummary(path, problem=f'empty after cropping the bottom {crop_bottom} rows')
    height, width = image.shape[:2]
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(image.data)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    # In two steps, since OpenCV averages large cells slowly.
    cells = cv2.resize(gray, (36, 32), interpolation=cv2.INTER_AREA)
    nine = cv2.resize(cells, (9, 8), interpolation=cv2.INTER_AREA)
    return ImageSummary(
        path,
        height=height,
        width=width,
        gray=bool((image[..., 0] == image[..., 1]).all() and (image[..., 0] == image[..., 2]).all()),
        digest=digest.digest(),
        hash=int.from_bytes(np.packbits(nine[:, 1:] > nine[:, :-1]).tobytes(), 'big'),
        thumbnail=cv2.resize(cells, (18, 16), interpolation=cv2.INTER_AREA),
    )


def _one_line(error: object) -> str:
    return ' '.join(str(error).split()) or type(error).__name__
