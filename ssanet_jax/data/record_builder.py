"""Copies listed images and their annotations into array_record files, with TensorFlow Datasets."""

from __future__ import annotations

import concurrent.futures
import contextlib
import io
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from ssanet_jax.cpu_limit import available_cpus
from ssanet_jax.data.image_files import read_file
from ssanet_jax.data.images import decode_image, measure_bit_depth
from ssanet_jax.data.listing import Listing, Record
from ssanet_jax.data.preprocessing import shrink_image
from ssanet_jax.data.source_files import FileStatus, SourceFiles, digest, file_status
from ssanet_jax.errors import UserError
from ssanet_jax.plain_text import track

_CHUNK_SIZE = 256  # images that are converted in parallel


class _RecordInfo(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Does nothing: TFDS's bucket does not hold our data sets, and a lookup leaves an empty temporary folder."""


class RecordBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes the images and annotations of any `Listing`.

    Args:
      folder: where to.
      listing: the images and annotations.
      side: see `convert_image`.
    """

    name = 'records'
    VERSION = tfds.core.Version('2.0.0')
    # Nothing is downloaded. Without this, TFDS looks for a checksum file next to this module, for which it imports
    # a package (importlib_resources) that it does not require.
    url_infos: ClassVar[dict[str, Any]] = {}

    def __init__(self, folder: pathlib.Path, listing: Listing, side: int | None):
        self._listing = listing
        self._side = side
        self._files: dict[str, tuple[FileStatus, np.ndarray, int]] = {}  # by path: state, digest and bit depth
        super().__init__(data_dir=folder, file_format='array_record')

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            'image': tfds.features.Image(shape=(None, None, 3)),
            'label': tfds.features.ClassLabel(num_classes=len(self._listing.class_names)),
            'file': tfds.features.Text(),
            'cut_bottom': np.int32,  # rows to crop when the image is read; renaming it would invalidate all copies
        }
        first = self._listing.records[0]
        if first.box is not None:
            features['box'] = tfds.features.Tensor(shape=(4,), dtype=np.float32)
        if first.keypoints is not None:
            features['keypoints'] = tfds.features.Tensor(shape=first.keypoints.shape, dtype=np.float32)
        return _RecordInfo(
            builder=self,
            description=self._listing.name.encode(errors='replace').decode(),  # a folder name need not be UTF-8
            features=tfds.features.FeaturesDict(features),
            # Keeps the order of the listing; the training pipeline shuffles anyway.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # Nothing is downloaded.
        return {split: self._generate_examples(split) for split, count in self._listing.counts.items() if count}

    def write(self) -> None:
        """Writes all splits."""
        # Silences TFDS's messages and progress bars: `_generate_examples` shows a bar with totals on stderr, and stdout
        # is reserved for the results of commands.
        tfds.disable_progress_bar()
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                self.download_and_prepare()
        finally:
            tfds.enable_progress_bar()

    def source_files(self) -> SourceFiles:
        """The state of the image files when this builder read them."""
        status, digests, bit_depths = zip(*(self._files[record.path] for record in self._listing.records))
        return SourceFiles(np.array(status, np.int64), np.array(digests), np.array(bit_depths, np.uint8))

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        chosen = [record for record in self._listing.records if record.split == split]
        converted = track(
            self._convert(chosen),
            total=len(chosen),
            description=f'Copying {self._listing.name}: {split}',
        )
        for key, (record, image) in enumerate(converted):
            example = {
                'image': image.data,
                'label': record.label,
                # As bytes, since a file name need not be UTF-8.
                'file': record.path.encode(errors='surrogateescape'),
                'cut_bottom': image.crop_bottom,
            }
            if record.box is not None:
                example['box'] = record.box * np.float32(image.scale)
            if record.keypoints is not None:
                example['keypoints'] = record.keypoints * np.array([image.scale, image.scale, 1], np.float32)
            yield key, example

    def _convert(self, records: Sequence[Record]) -> Iterator[tuple[Record, StoredImage]]:
        """Reads and converts the images, in parallel threads and in chunks that bound the memory."""
        with concurrent.futures.ThreadPoolExecutor(available_cpus()) as pool:
            for start in range(0, len(records), _CHUNK_SIZE):
                chunk = records[start : start + _CHUNK_SIZE]
                yield from zip(chunk, pool.map(self._read, chunk))

    def _read(self, record: Record) -> StoredImage:
        path = self._listing.root / record.path
        status = file_status(path)  # before reading, so that a later change shows
        try:
            data = read_file(path)
        except OSError as error:
            raise UserError(
                f'cannot read {path} ({error.strerror or error}): replace the file or move it out of the data set'
            ) from error
        bit_depth = measure_bit_depth(data)
        self._files[record.path] = status, digest(data), bit_depth
        # How the values of 16-bit images are reduced to 8 bits is known when all of them have been read.
        return convert_image(data, record.path, self._listing.crop_bottom, None if bit_depth else self._side)


class StoredImage(NamedTuple):
    """An encoded image in the copy."""

    data: bytes
    crop_bottom: int  # rows to crop when it is read
    scale: float  # stored pixels per pixel of the file


def convert_image(data: bytes, file: str, crop_bottom: int, side: int | None) -> StoredImage:
    """Converts an image file to the form in which it is stored.

    Args:
      data: the contents of the file.
      file: its name, for error messages.
      crop_bottom: rows to crop from the bottom of the image.
      side: the shorter side that the network needs, in pixels: much larger images are stored as `shrink_image` returns
        them. None keeps every file unchanged. A file that cannot be decoded is kept unchanged, since reading it
        reports the error.
    """
    unchanged = StoredImage(data, crop_bottom, 1.0)
    if side is None:
        return unchanged
    try:
        image = decode_image(data, file)
    except UserError:
        return unchanged
    image = image[: max(image.shape[0] - crop_bottom, 0)]
    shrunk = shrink_image(image, side) if image.size else None
    return StoredImage(shrunk.data, 0, shrunk.scale) if shrunk else unchanged
