"""Prepared copies of real data sets: one TFDS builder for all of them.

A reader (`cub.py`, `cars.py`, ...) only turns a published folder into a list of `Record`s. This
module writes them once as array_record files with tensorflow-datasets (without TensorFlow) and
gives random access to them. Image files are decoded when read.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import fcntl
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
from ssanet_jax.data.listing import SPLITS, Listing, Record, expand_home
from ssanet_jax.data.transforms import shrink_image
from ssanet_jax.errors import UnreadableImage, UserError

DEFAULT_PREPARED_DIR = '~/.cache/ssanet_jax/data'
_CHUNK_SIZE = 256  # images that are prepared at a time


def build_dataset(listing: Listing, config: Any) -> Dataset:
    """Opens the prepared copy of a data set, after writing it if this is the first time.

    The copy lives in ``prepared_dir/<slug>-<fingerprint>``; the fingerprint covers the folder's
    absolute path, everything in the records and the stored size, so other annotations or another
    folder get a copy of their own. An interrupted preparation leaves nothing that would be used
    later, and of several processes that start together one prepares while the others wait.

    Args:
      listing: the set.
      config: the ``data`` section of a config. ``prepared_dir`` is where prepared copies are kept
        (``~/.cache/ssanet_jax/data`` by default). With ``shrink``, images much larger than ``resize``
        are stored at that size, so that each epoch decodes less; the others are copied byte for
        byte.

    Raises:
      UserError: a split without images, an image that is not on disk, a prepared copy that
        cannot be written or has been damaged, a home folder that nobody has.
    """
    name, records = listing.name, listing.records
    counts = {split: sum(record.split == split for record in records) for split in SPLITS}
    for split, count in counts.items():
        if not count:
            raise UserError(f'{listing.root} lists no {split} images: check config.data.dir')
    side = config.resize if config.get('shrink') else None
    place = expand_home(config.get('prepared_dir') or DEFAULT_PREPARED_DIR, 'config.data.prepared_dir')
    place = place / f'{listing.slug}-{_fingerprint(listing, side)}'
    try:
        builder = _prepared_builder(place, listing, side)
    except OSError as error:
        raise UserError(
            f'cannot prepare {name} in {place} ({error}): set config.data.prepared_dir to a folder'
            ' that can be written and has room for a copy of the images'
        ) from error
    if {split: info.num_examples for split, info in builder.info.splits.items()} != counts:
        raise UserError(f'the prepared copy {place} is damaged: delete that folder and run again')
    try:
        sources = builder.as_data_source(decoders={'image': tfds.decode.SkipDecoding()})
    except (OSError, ValueError) as error:
        raise UserError(f'the prepared copy {place} cannot be opened: delete that folder and run again') from error
    return Dataset(
        name=name,
        class_names=listing.class_names,
        train=_ArrayRecordSource(sources['train'], _labels(records, 'train')),
        test=_ArrayRecordSource(sources['test'], _labels(records, 'test')),
        keypoint_names=listing.keypoint_names,
        digest=_digest(records),
    )


def _digest(records: Sequence[Record]) -> str:
    """Which images are in which split under which label; the folder may move, and files may be touched."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(repr((record.path, record.label, record.split)).encode(errors='surrogateescape'))
    return digest.hexdigest()


def _labels(records: Sequence[Record], split: str) -> np.ndarray:
    return np.array([record.label for record in records if record.split == split], np.int32)


class _ArrayRecordSource:
    """A split of a prepared copy as a `Source`."""

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
        example['image'] = image[: max(image.shape[0] - example.pop('crop_bottom'), 0)]
        if not example['image'].size:
            raise UnreadableImage(f'nothing of {example["file"]} is left above the rows to cut: remove it from the set')
        if 'box' in example:  # a few published ones overrun their image
            height, width = example['image'].shape[:2]
            example['box'] = example['box'].clip(0, np.float32([height, width, height, width]))
        return example


class _RecordInfo(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Nothing: our sets are not in TFDS's bucket, and looking leaves an empty temporary folder each time."""


class _RecordBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes a list of records; everything particular to a set is in its arguments."""

    name = 'records'
    VERSION = tfds.core.Version('3.0.0')
    # Nothing is downloaded. Left to itself, TFDS would look for a table of checksums beside this
    # file, with a package (importlib_resources) that it does not require.
    url_infos: ClassVar[dict[str, Any]] = {}

    def __init__(self, place: pathlib.Path, listing: Listing, side: int | None):
        self._listing = listing
        self._side = side
        super().__init__(data_dir=place, file_format='array_record')

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            'image': tfds.features.Image(shape=(None, None, 3)),
            'label': tfds.features.ClassLabel(num_classes=len(self._listing.class_names)),
            'file': tfds.features.Text(),
            'crop_bottom': np.int32,  # rows that are not part of the picture
        }
        first = self._listing.records[0]
        if first.box is not None:
            features['box'] = tfds.features.Tensor(shape=(4,), dtype=np.float32)
        if first.keypoints is not None:
            features['keypoints'] = tfds.features.Tensor(shape=first.keypoints.shape, dtype=np.float32)
        return _RecordInfo(
            builder=self,
            description=self._listing.name.encode(errors='replace').decode(),  # a folder's need not be UTF-8
            features=tfds.features.FeaturesDict(features),
            # The published order makes an example's index mean something to a reader; the
            # training pipeline shuffles anyway.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # Nothing is downloaded.
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        chosen = [record for record in self._listing.records if record.split == split]
        stored = track(
            self._stored(chosen),
            total=len(chosen),
            description=f'Preparing {self._listing.name}: {split}',
            console=Console(stderr=True),
        )
        for key, (record, image) in enumerate(stored):
            example = {
                'image': image.data,
                'label': record.label,
                # As bytes: a name need not be UTF-8, and Python then has no text of it that Text would take.
                'file': record.path.encode(errors='surrogateescape'),
                'crop_bottom': image.crop_bottom,
            }
            if record.box is not None:
                example['box'] = record.box * np.float32(image.scale)
            if record.keypoints is not None:
                example['keypoints'] = record.keypoints * np.float32([image.scale, image.scale, 1])
            yield key, example

    def _stored(self, records: Sequence[Record]) -> Iterator[tuple[Record, StoredImage]]:
        """What is stored of each image, made by several threads a stretch at a time."""
        store = lambda record: convert_image(
            (self._listing.root / record.path).read_bytes(), record.path, self._listing.crop_bottom, self._side
        )
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, len(records), _CHUNK_SIZE):
                stretch = records[start : start + _CHUNK_SIZE]
                yield from zip(stretch, pool.map(store, stretch))


class StoredImage(NamedTuple):
    """An image as it is kept in a prepared copy."""

    data: bytes
    crop_bottom: int  # rows that are still to be left out when it is read
    scale: float  # stored pixels per pixel of the file


def convert_image(data: bytes, file: str, crop_bottom: int, side: int | None) -> StoredImage:
    """The bytes of an image file -> those to store.

    Args:
      data, file: the file's content and name.
      crop_bottom: rows at its bottom that are not part of the picture.
      side: shorter side that the network needs, pixels: a much larger image is stored as `shrink_image` leaves it.
        None stores every file as it is.
    """
    as_it_is = StoredImage(data, crop_bottom, 1.0)
    if side is None:
        return as_it_is
    try:
        image = decode_image(data, file)
    except UserError:
        return as_it_is  # whoever reads it meets the same error, and reports it
    image = image[: max(image.shape[0] - crop_bottom, 0)]
    shrunk = shrink_image(image, side) if image.size else None
    return StoredImage(shrunk.data, 0, shrunk.scale) if shrunk else as_it_is


def _prepared_builder(place: pathlib.Path, listing: Listing, side: int | None) -> _RecordBuilder:
    make = functools.partial(_RecordBuilder, place, listing, side)
    builder = make()
    if builder.data_path.exists():  # It gets this name only when it is complete.
        return builder
    for record in listing.records:
        path = listing.root / record.path
        if not path.is_file():
            cure = 'extract the archive of the set again' if listing.origin else 'bring the file back or remove it'
            raise UserError(f'{path} is listed but missing: {cure}')
    place.mkdir(parents=True, exist_ok=True)
    with _locked(place / 'lock'):
        builder = make()
        if not builder.data_path.exists():
            # What a killed run left behind. Nobody is writing it: we hold the lock.
            shutil.rmtree(place / builder.name, ignore_errors=True)
            _write(builder)
            shutil.rmtree(place / 'downloads', ignore_errors=True)
    return builder


def _write(builder: _RecordBuilder) -> None:
    # TFDS announces a download and shows bars without totals; the builder's own bar replaces
    # both. Standard output belongs to the results of commands.
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    finally:
        tfds.enable_progress_bar()


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    """Holds an exclusive lock that the operating system drops when the process dies."""
    with open(path, 'w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fingerprint(listing: Listing, side: int | None) -> str:
    digest = hashlib.sha256()
    digest.update(repr((os.fspath(listing.root), listing.class_names, side, str(_RecordBuilder.VERSION))).encode())
    for record in listing.records:
        digest.update(repr((record.path, record.label, record.split, record.mtime_ns)).encode())
        for array in (record.box, record.keypoints):
            digest.update(b'none' if array is None else array.tobytes())
    return digest.hexdigest()[:16]
