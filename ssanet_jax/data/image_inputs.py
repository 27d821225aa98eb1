"""Images as a user has them, in files, folders or memory -> the network's input."""

import functools
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ssanet_jax.data.image_files import links_outside_line, read_file, search_folder, without_repeats
from ssanet_jax.data.image_formats import image_suffixes
from ssanet_jax.data.images import MAX_PIXELS, decode_image, from_pillow, measure_bit_depth
from ssanet_jax.data.left_out import LeftOut, left_out_line
from ssanet_jax.data.preprocessing import InputSettings, preprocess_for_evaluation, shrink_image
from ssanet_jax.errors import UnreadableImage, UserError
from ssanet_jax.filesystem.paths import user_path
from ssanet_jax.printable import printable

_log = logging.getLogger(__name__)

ImageInput = str | os.PathLike[str] | np.ndarray | Image.Image


class FoundInputs(NamedTuple):
    """Image files, and the files of the same folders that are not used."""

    files: list[Path]
    left_out: list[LeftOut]


def find_images(paths: Iterable[str | os.PathLike[str]], exclude: Path | None = None) -> FoundInputs:
    """Lists image files, and the image files in folders and their subfolders.

    Args:
      paths: files, which are taken whatever they are, and folders, whose images are sorted; see `image_files`.
      exclude: a folder whose own files are left out, such as one that pictures are written to.

    Raises:
      UserError: a path does not exist, or there is no image at all.
    """
    paths = [user_path(path, 'image') for path in paths]
    files: list[Path] = []
    left_out: list[LeftOut] = []
    excluded = exclude.resolve() if exclude else None
    resolve = functools.cache(lambda folder: Path(folder).resolve())  # once per folder, not per file
    # Only files directly in the excluded folder: for the working directory, images may lie in folders below.
    outside = lambda file: not excluded or resolve(os.path.dirname(file)) != excluded
    for path in paths:
        if not path.exists():
            raise UserError(f'{path} does not exist: give images or folders of images')
        if path.is_dir():
            found = search_folder(path)
            images = filter(outside, without_repeats(found.images, found.linked, path))
            chosen = sorted(images, key=lambda file: file.parts)  # as paths, whose comparison is slow
            if line := links_outside_line(chosen, path):
                _log.warning('%s', printable(line))
            files += chosen
            left_out += [item for item in found.left_out if outside(item.path)]
        else:
            files.append(path)
    if not files:
        where = ', '.join(map(str, paths)) or 'the arguments'
        listed = f' ({left_out_line(left_out, 0)})' if left_out else ''
        raise UserError(f'no image ({", ".join(image_suffixes())}) in {where}{listed}: give images or folders')
    return FoundInputs(files, left_out)


def expand_folders(images: ImageInput | Iterable[ImageInput]) -> Iterator[ImageInput]:
    """One image, one folder, or any number of both -> single images, in order.

    Raises:
      UserError: a folder without images.
    """
    if isinstance(images, (str, os.PathLike, Image.Image)) or (isinstance(images, np.ndarray) and images.ndim == 3):
        images = [images]
    for image in images:
        if isinstance(image, (str, os.PathLike)) and user_path(image, 'image').is_dir():
            files, left_out = find_images([image])
            if left_out:
                _log.warning('%s', left_out_line(left_out, len(files)))
            yield from files
        else:
            yield image


def read_image(image: ImageInput, bit_depth: int = 0) -> np.ndarray:
    """Reads an image, upright as its EXIF orientation says.

    Args:
      image: the path of an image file, a uint8 array `[H, W, 3]` (RGB), or a Pillow image.
      bit_depth: bits that the values of images of 16 bits per channel use, as in the data set that the network was
        trained on; 0 for as many as each image needs, with a warning in the log.

    Returns:
      uint8 `[H, W, 3]`, RGB.

    Raises:
      UnreadableImage: the file is missing, damaged or not an image.
      ValueError: an array of another type or shape.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f'an image array must be uint8 [H, W, 3], RGB; got {image.dtype} {list(image.shape)}')
        return image
    if isinstance(image, Image.Image):
        name = getattr(image, 'filename', '') or 'in memory'
        try:
            return from_pillow(image, bit_depth)
        except Exception as error:  # Pillow reads the file only now, and its decoders raise almost anything
            raise UnreadableImage(f'cannot read the image {name} ({error}): replace it') from error
    try:
        data = read_file(user_path(image, 'image'))
    except OSError as error:
        raise UnreadableImage(f'cannot read the image {image} ({error.strerror}): check the path') from error
    return decode_file(data, str(image), bit_depth)


def decode_file(data: bytes, name: str, bit_depth: int = 0, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decodes the content of an image file, upright as its EXIF orientation says.

    Args:
      data: the content.
      name: its name, for messages.
      bit_depth: as for `read_image`.
      max_pixels: the most pixels that the header may declare.

    Returns:
      uint8 `[H, W, 3]`, RGB.

    Raises:
      UnreadableImage: it is damaged, too large, or not an image.
    """
    if not bit_depth and (bit_depth := measure_bit_depth(data)):
        _warn_of_depth(bit_depth)
    return decode_image(data, name, bit_depth, max_pixels)


@functools.cache  # once per depth
def _warn_of_depth(bit_depth: int) -> None:
    _log.warning(
        'values of 16 bits per channel are read as %d bits, the fewest that hold those of the image, since the network '
        'was trained without such images',
        bit_depth,
    )


def network_input(image: np.ndarray, settings: InputSettings) -> np.ndarray:
    """An image of any size -> the network's input, with the pixels that training and evaluation would read.

    With `settings.shrink`, a data set stores much larger images shrunk (`builder.build_dataset`), so this shrinks them
    too.

    Args:
      image: uint8 `[H, W, 3]`, RGB.
      settings: those of the network.

    Returns:
      uint8 `[image_size, image_size, 3]`, RGB.
    """
    if settings.shrink:
        shrunk = shrink_image(image, settings.resize)
        if shrunk:
            image = decode_image(shrunk.data, 'shrunk')
    return preprocess_for_evaluation(image, settings)
