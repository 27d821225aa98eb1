"""What is kept of every image of a set to examine it: about a kilobyte, from one reading of its file."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import io
import os
import pathlib
import stat
import threading
from collections.abc import Iterator

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from ssanet_jax.data.images import decode_image
from ssanet_jax.data.listing import Listing
from ssanet_jax.errors import UserError

_MAX_BYTES = 1 << 30  # of a file; no image that Pillow agrees to decode is larger
_LARGE = 16e6  # pixels; images above are decoded one at a time, so that memory stays bounded
_ONE_LARGE = threading.Lock()


@dataclasses.dataclass(frozen=True)
class ImageSummary:
    """What is kept of an image."""

    path: str
    problem: str = ''
    """Why it cannot be used; then nothing below is known."""
    missing: bool = False
    height: int = 0
    """Without the rows that the listing cuts."""
    width: int = 0
    gray: bool = False
    digest: bytes = b''
    """Of the pixels: the same for two files with the same picture, however packed."""
    hash: int = 0
    """64 bits: whether each of 8 x 9 cells is darker than its right neighbour."""
    thumbnail: np.ndarray | None = None
    """uint8 [16, 18]."""


def scan_images(listing: Listing, num_workers: int | None = None) -> Iterator[ImageSummary]:
    """Reads every file that the listing names, once, in its order; never raises for a file.

    Args:
      listing: the set.
      num_workers: images decoded at the same time; as many as processors by default.
    """
    paths = dict.fromkeys(record.path for record in listing.records)
    with concurrent.futures.ThreadPoolExecutor(num_workers or os.cpu_count()) as pool:
        # Results are small: only images being decoded take memory.
        yield from pool.map(lambda path: scan_image(listing.root, path, listing.crop_bottom), paths)


def scan_image(root: pathlib.Path, path: str, crop_bottom: int = 0) -> ImageSummary:
    """Reads and fully decodes one image, as training will.

    Args:
      root, path: the set's folder, and the file relative to it.
      crop_bottom: rows to leave out at the bottom.
    """
    try:
        data = _read_file(root / path)
        with _room_for(data):
            return _describe(path, decode_image(data, path), crop_bottom)
    except (FileNotFoundError, NotADirectoryError):
        return ImageSummary(path, problem='missing', missing=True)
    except UserError as error:  # from `decode_image`; its cause is the reason without the file's name
        reason = error.__cause__ or error
        return ImageSummary(
            path, problem='this is no image' if isinstance(reason, UnidentifiedImageError) else _one_line(reason)
        )
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        return ImageSummary(path, problem=_one_line(getattr(error, 'strerror', None) or error))


def _read_file(path: pathlib.Path) -> bytes:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise OSError('this is a folder')
    if not stat.S_ISREG(status.st_mode):
        raise OSError('this is no ordinary file')  # reading a pipe would wait for ever
    if not status.st_size:
        raise OSError('the file is empty')
    if status.st_size > _MAX_BYTES:
        raise OSError(f'{status.st_size / 1e9:.1f} GB are too many for an image')
    return path.read_bytes()


def _room_for(data: bytes) -> contextlib.AbstractContextManager:
    """Waits until no other large image is being decoded, if this is one."""
    try:
        with Image.open(io.BytesIO(data)) as image:  # reads the header only
            large = image.width * image.height > _LARGE
    except Exception:  # whatever it is, `decode_image` meets it again and reports it
        large = False
    return _ONE_LARGE if large else contextlib.nullcontext()


def _describe(path: str, image: np.ndarray, crop_bottom: int) -> ImageSummary:
    image = image[: max(image.shape[0] - crop_bottom, 0)]
    if not image.size:
        return ImageSummary(path, problem=f'nothing is left above the {crop_bottom} rows to cut')
    height, width = image.shape[:2]
    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(image)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    # In two steps, because averaging over large cells is slow in OpenCV and is done only once so.
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
