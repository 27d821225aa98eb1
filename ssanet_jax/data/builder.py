"""Random access to listed images through array_record files, written by TensorFlow Datasets on first use.

A reader (`cub.py`, `cars.py`, ...) only lists the images of a folder. This module copies them once into array_record
files with tensorflow-datasets (which does not need TensorFlow), and decodes them when they are read.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import hashlib
import io
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from rich.console import Console
from rich.progress import track

from ssanet_jax.data.dataset import Dataset
from ssanet_jax.data.images import decode_image
from ssanet_jax.data.listing import SPLITS, Listing, Record
from ssanet_jax.data.transforms import shrink_image
from ssanet_jax.errors import UnreadableImage, UserError
from ssanet_jax.filesystem.locks import lock_file
from ssanet_jax.filesystem.paths import user_path

DEFAULT_PREPARED_DIR = '~/.cache/ssanet_jax/data'
_CHUNK_SIZE = 256  # images that are converted in parallel


def build_dataset(listing: Listing, config: Any) -> Dataset:
    """Opens the array_record copy of a data set, and writes it first if there is none.

    The copy is at ``prepared_dir/<slug>-<fingerprint>``. The fingerprint covers the folder's absolute path, the
    records and the stored size, so that other annotations or folders get a copy of their own. An interrupted write
    leaves nothing that is used later. If several processes start together, one writes and the others wait.

    Args:
      listing: the images and annotations.
      config: the ``data`` section of a configuration. ``prepared_dir`` is the folder of the copies
        (``~/.cache/ssanet_jax/data`` by default). With ``shrink``, images much larger than ``resize`` are stored at
        that size, which makes every epoch faster; other files are copied byte for byte.

    Raises:
      UserError: a split has no images, an image file is missing, or the copy is damaged or cannot be written.
    """
    name, records = listing.name, listing.records
    counts = {split: sum(record.split == split for record in records) for split in SPLITS}
    for split, count in counts.items():
        if not count:
            raise UserError(f'{listing.root} lists no {split} images: check config.data.dir')
    side = config.resize if config.get('shrink') else None
    folder = user_path(config.get('prepared_dir') or DEFAULT_PREPARED_DIR, 'config.data.prepared_dir')
    folder = folder / f'{listing.slug}-{_fingerprint(listing, side)}'
    try:
        builder = _open_or_write(folder, listing, side)
    except OSError as error:
        raise UserError(
            f'cannot copy {name} to {folder} ({error}): set config.data.prepared_dir to a writable'
            ' folder with space for a copy of the images'
        ) from error
    if {split: info.num_examples for split, info in builder.info.splits.items()} != counts:
        raise UserError(f'the copy {folder} is damaged: delete that folder and run again')
    try:
        sources: Any = builder.as_data_source(decoders={'image': tfds.decode.SkipDecoding()})
    except (OSError, ValueError) as error:
        raise UserError(f'the copy {folder} cannot be opened: delete that folder and run again') from error
    return Dataset(
        name=name,
        class_names=listing.class_names,
        train=_ArrayRecordSource(sources['train'], _labels(records, 'train')),
        test=_ArrayRecordSource(sources['test'], _labels(records, 'test')),
        keypoint_names=listing.keypoint_names,
        keypoint_groups=listing.keypoint_groups,
        digest=_digest(records),
    )


def _digest(records: Sequence[Record]) -> str:
    """A hash of the paths, labels and splits; independent of the root folder and of modification times."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(repr((record.path, record.label, record.split)).encode(errors='surrogateescape'))
    return digest.hexdigest()


def _labels(records: Sequence[Record], split: str) -> np.ndarray:
    return np.array([record.label for record in records if record.split == split], np.int32)


class _ArrayRecordSource:
    """One split of the copy, as a `Source`."""

    def __init__(self, records: Any, labels: np.ndarray):
        self._records = records
        self.labels = labels

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = dict(self._records[index])
        example['file'] = example['file'].decode(errors='surrogateescape')
        example['label'] = np.int32(example['label'])
        image = decode_image(example['image'], example['file'])
        example['image'] = image[: max(image.shape[0] - example.pop('cut_bottom'), 0)]
        if not example['image'].size:
            raise UnreadableImage(
                f'{example["file"]} is empty after cropping its bottom rows: remove it from the data set'
            )
        if 'box' in example:  # a few published boxes extend beyond their image
            height, width = example['image'].shape[:2]
            example['box'] = example['box'].clip(0, np.array([height, width, height, width], np.float32))
        return example


class _RecordInfo(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Does nothing: TFDS's bucket does not hold our data sets, and a lookup leaves an empty temporary folder."""


class _RecordBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes the images and annotations of any `Listing`."""

    name = 'records'
    VERSION = tfds.core.Version('2.0.0')
    # Nothing is downloaded. Without this, TFDS looks for a checksum file next to this module, for which it imports
    # a package (importlib_resources) that it does not require.
    url_infos: ClassVar[dict[str, Any]] = {}

    def __init__(self, folder: pathlib.Path, listing: Listing, side: int | None):
        self._listing = listing
        self._side = side
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
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        chosen = [record for record in self._listing.records if record.split == split]
        converted = track(
            self._convert(chosen),
            total=len(chosen),
            description=f'Copying {self._listing.name}: {split}',
            console=Console(stderr=True),
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
        convert = lambda record: convert_image(
            (self._listing.root / record.path).read_bytes(), record.path, self._listing.crop_bottom, self._side
        )
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(records), _CHUNK_SIZE):
                chunk = records[start : start + _CHUNK_SIZE]
                yield from zip(chunk, pool.map(convert, chunk))


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


def _open_or_write(folder: pathlib.Path, listing: Listing, side: int | None) -> _RecordBuilder:
    make = functools.partial(_RecordBuilder, folder, listing, side)
    builder = make()
    if builder.data_path.exists():  # TFDS renames the folder to this path when it is complete.
        return builder
    for record in listing.records:
        path = listing.root / record.path
        if not path.is_file():
            cure = 'extract the archive again' if listing.origin else 'restore the file or remove it from the list'
            raise UserError(f'{path} is listed but missing: {cure}')
    folder.mkdir(parents=True, exist_ok=True)
    with lock_file(folder / 'lock', wait=True) as no_lock:
        builder = make()
        if not builder.data_path.exists():
            if not no_lock:  # nobody else writes here: remains of a killed run
                shutil.rmtree(folder / builder.name, ignore_errors=True)
            try:
                _write(builder)
            except OSError:
                # Without a lock, another process may have written the copy meanwhile: TFDS renames a folder of its own.
                if not no_lock or not builder.data_path.exists():
                    raise
                builder = make()
            if not no_lock:
                shutil.rmtree(folder / 'downloads', ignore_errors=True)
    return builder


def _write(builder: _RecordBuilder) -> None:
    # Silences TFDS's messages and progress bars: `_generate_examples` shows a bar with totals on stderr, and stdout
    # is reserved for the results of commands.
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    finally:
        tfds.enable_progress_bar()


def _fingerprint(listing: Listing, side: int | None) -> str:
    """The cache key of a copy: a hash of everything that decides its contents."""
    digest = hashlib.sha256()
    digest.update(repr((os.fspath(listing.root), listing.class_names, side, str(_RecordBuilder.VERSION))).encode())
    for record in listing.records:
        digest.update(repr((record.path, record.label, record.split, record.mtime_ns)).encode())
        for array in (record.box, record.keypoints):
            digest.update(b'none' if array is None else array.tobytes())
    return digest.hexdigest()[:16]
