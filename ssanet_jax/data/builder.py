"""Prepared copies of real data sets: one TFDS builder for all of them.

A reader (`cub.py`, `cars.py`, ...) only turns a published folder into a list of `Record`s. This
module writes them once as array_record files with tensorflow-datasets (without TensorFlow) and
gives random access to them. Image files are copied byte for byte and decoded when read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import io
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from rich.console import Console
from rich.progress import track

from ssanet_jax.data.dataset import Dataset
from ssanet_jax.data.images import decode_image
from ssanet_jax.errors import UserError

DEFAULT_PREPARED_DIR = '~/.cache/ssanet_jax'
SPLITS = ('train', 'test')


@dataclasses.dataclass(frozen=True)
class Record:
    """One image of a data set before it is read."""

    path: str
    """Relative to the set's folder, with forward slashes."""
    label: int
    split: str
    """'train' or 'test'."""
    box: np.ndarray | None = None
    """float32 [4], (y0, x0, y1, x1) in pixels."""
    keypoints: np.ndarray | None = None
    """float32 [P, 3], (y, x, visible)."""
    stamp: int = 0
    """Changes when the file does, for sets whose files have no published identity."""


def existing_dir(config: Any, what: str) -> pathlib.Path:
    """Returns the absolute ``config.dir``.

    Args:
      config: the ``data`` section of a config.
      what: what the folder should hold, for the message: 'the extracted CUB_200_2011 folder'.

    Raises:
      UserError: the field is empty or names no folder.
    """
    if not config.get('dir'):
        raise UserError(f'config.data.dir is not set: set it to {what}')
    root = pathlib.Path(config.dir).expanduser()
    if not root.is_dir():
        raise UserError(f'config.data.dir={config.dir} is not a folder: set it to {what}')
    return root.resolve()


def require_file(path: pathlib.Path, what: str) -> pathlib.Path:
    """Returns ``path`` if it is a file.

    Raises:
      UserError: it is not; the message says that its folder is not ``what``.
    """
    if not path.is_file():
        raise UserError(f'{path} is missing: set config.data.dir to {what}')
    return path


def prepare(
    *,
    slug: str,
    name: str,
    root: pathlib.Path,
    prepared_dir: str | None,
    class_names: Sequence[str],
    records: Sequence[Record],
    cut_bottom: int = 0,
) -> Dataset:
    """Opens the prepared copy of a data set, after writing it if this is the first time.

    The copy lives in ``prepared_dir/<slug>-<fingerprint>``; the fingerprint covers the folder's
    absolute path and everything in ``records``, so other annotations or another folder get a
    copy of their own. An interrupted preparation leaves nothing that would be used later, and of
    several processes that start together one prepares while the others wait.

    Args:
      slug: short name for the folder, such as 'cub'.
      name: the set's name in reports.
      root: absolute folder that the records' paths start from.
      prepared_dir: where prepared copies are kept; None or '' is ``~/.cache/ssanet_jax``.
      class_names: the name of each label.
      records: all images, in the order in which the two splits should list them.
      cut_bottom: rows to leave out at the bottom of every decoded image.

    Raises:
      UserError: a split without images, an image that is not on disk, a prepared copy that
        cannot be written or has been damaged.
    """
    counts = {split: sum(record.split == split for record in records) for split in SPLITS}
    for split, count in counts.items():
        if not count:
            raise UserError(f'{root} lists no {split} images: check config.data.dir')
    place = pathlib.Path(prepared_dir or DEFAULT_PREPARED_DIR).expanduser()
    place = place / f'{slug}-{_fingerprint(root, class_names, records)}'
    try:
        builder = _prepared_builder(place, name, root, class_names, records)
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
        class_names=tuple(class_names),
        train=_PreparedSplit(sources['train'], cut_bottom),
        test=_PreparedSplit(sources['test'], cut_bottom),
    )


class _PreparedSplit:
    """A split of a prepared copy as a `Source`."""

    def __init__(self, records: Any, cut_bottom: int):
        self._records = records
        self._cut_bottom = cut_bottom

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = dict(self._records[index])
        example['file'] = example['file'].decode()
        example['label'] = np.int32(example['label'])
        image = decode_image(example['image'], example['file'])
        example['image'] = image[: image.shape[0] - self._cut_bottom]
        return example


class _RecordBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Writes a list of records; everything particular to a set is in its arguments."""

    name = 'records'
    VERSION = tfds.core.Version('1.0.0')
    # Nothing is downloaded. Left to itself, TFDS would look for a table of checksums beside this
    # file, with a package (importlib_resources) that it does not require.
    url_infos: dict[str, Any] = {}

    def __init__(
        self,
        place: pathlib.Path,
        title: str,
        root: pathlib.Path,
        class_names: Sequence[str],
        records: Sequence[Record],
    ):
        self._title = title
        self._root = root
        self._class_names = class_names
        self._records = records
        super().__init__(data_dir=place, file_format='array_record')

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            'image': tfds.features.Image(shape=(None, None, 3)),
            'label': tfds.features.ClassLabel(num_classes=len(self._class_names)),
            'file': tfds.features.Text(),
        }
        first = self._records[0]
        if first.box is not None:
            features['box'] = tfds.features.Tensor(shape=(4,), dtype=np.float32)
        if first.keypoints is not None:
            features['keypoints'] = tfds.features.Tensor(shape=first.keypoints.shape, dtype=np.float32)
        return tfds.core.DatasetInfo(
            builder=self,
            description=self._title,
            features=tfds.features.FeaturesDict(features),
            # The published order makes an example's index mean something to a reader; the
            # training pipeline shuffles anyway.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # Nothing is downloaded.
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        chosen = [record for record in self._records if record.split == split]
        bar = track(
            chosen,
            description=f'Preparing {self._title}: {split}',
            console=Console(stderr=True),
        )
        for key, record in enumerate(bar):
            example = {
                'image': (self._root / record.path).read_bytes(),
                'label': record.label,
                'file': record.path,
            }
            if record.box is not None:
                example['box'] = record.box
            if record.keypoints is not None:
                example['keypoints'] = record.keypoints
            yield key, example


def _prepared_builder(
    place: pathlib.Path,
    name: str,
    root: pathlib.Path,
    class_names: Sequence[str],
    records: Sequence[Record],
) -> _RecordBuilder:
    make = functools.partial(_RecordBuilder, place, name, root, class_names, records)
    builder = make()
    if builder.data_path.exists():  # It gets this name only when it is complete.
        return builder
    for record in records:
        if not (root / record.path).is_file():
            raise UserError(f'{root / record.path} is listed but missing: extract the archive of the set again')
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


def _fingerprint(root: pathlib.Path, class_names: Sequence[str], records: Sequence[Record]) -> str:
    digest = hashlib.sha256()
    digest.update(repr((os.fspath(root), tuple(class_names))).encode())
    for record in records:
        digest.update(repr((record.path, record.label, record.split, record.stamp)).encode())
        for array in (record.box, record.keypoints):
            digest.update(b'none' if array is None else array.tobytes())
    return digest.hexdigest()[:16]
