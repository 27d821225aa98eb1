"""Random access to listed images through array_record files, written by TensorFlow Datasets on first use.

A reader (`cub.py`, `cars.py`, ...) only lists the images of a folder. This module copies them once into array_record
files with tensorflow-datasets (which does not need TensorFlow), and decodes them when they are read.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ssanet_jax.data import copy_checksums
from ssanet_jax.data.dataset import Dataset
from ssanet_jax.data.left_out import first_names
from ssanet_jax.data.listing import SPLITS, Listing, Record
from ssanet_jax.data.record_builder import RecordBuilder
from ssanet_jax.data.record_source import RecordSource, require_readable
from ssanet_jax.data.source_files import NO_DATA, Comparison, SourceFiles, compare, file_status
from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.atomic_files import set_aside
from ssanet_jax.filesystem.caches import writable_cache
from ssanet_jax.filesystem.locks import lock_file
from ssanet_jax.filesystem.paths import user_path
from ssanet_jax.filesystem.regular_files import read_regular_file

DEFAULT_PREPARED_DIR = '~/.cache/ssanet_jax/data'
_SOURCE_FILES = 'source_files.npz'  # beside the records, the state of the files that they were made of
_REQUEST = 'request.json'
_MAX_REQUEST_BYTES = 1 << 20
_RECORDS = f'{RecordBuilder.name}/{RecordBuilder.VERSION}'  # where TFDS puts the records, in the folder of the copy


def build_dataset(listing: Listing, config: Any) -> Dataset:
    """Opens the array_record copy of a data set, and writes it first if there is none.

    The copy is at ``prepared_dir/<slug>-<fingerprint>``. The fingerprint covers the folder's absolute path, the
    records and the stored size, so that other annotations or folders get a copy of their own. A copy is written again
    when image files were replaced (see `source_files`), and removed when a later one for the same settings takes its
    place. An interrupted write leaves nothing that is used later. If several processes start together, one writes and
    the others wait.

    Args:
      listing: the images and annotations.
      config: the ``data`` section of a configuration. ``prepared_dir`` is the folder of the copies
        (``~/.cache/ssanet_jax/data`` by default). With ``shrink``, images much larger than ``resize`` are stored at
        that size, which makes every epoch faster; other files are copied byte for byte, and so are images of 16
        bits per channel. ``bit_depth`` is the number of bits that their values use; 0 for as many as the largest
        value of all these images needs.

    Raises:
      UserError: no image of a split can be read, an image file is missing, or the copy is damaged or cannot be written.
    """
    name, records = listing.name, listing.records
    side = config.resize if config.get('shrink') else None
    prepared_dir = config.get('prepared_dir') or DEFAULT_PREPARED_DIR
    folder = _folder_of_copies(prepared_dir) / f'{listing.slug}-{_fingerprint(listing, side)}'
    try:
        opened, state = _open_copy(folder, listing, side)
    except OSError as error:
        raise UserError(
            f'cannot copy {name} to {folder} ({error}): set config.data.prepared_dir to a writable'
            ' folder with space for a copy of the images'
        ) from error
    measured = int(state.current.bit_depths.max(initial=0))
    bit_depth = config.get('bit_depth') or measured
    sources = {
        split: RecordSource(folder, opened.get(split, ()), _labels(records, split), bit_depth) for split in SPLITS
    }
    for split, source in sources.items():
        require_readable(source, f'{split} images of {name}')
    return Dataset(
        name=name,
        class_names=listing.class_names,
        train=sources['train'],
        test=sources['test'],
        keypoint_names=listing.keypoint_names,
        keypoint_groups=listing.keypoint_groups,
        digest=_digest(records),
        messages=(*listing.messages, *_copy_messages(listing, state, folder, bit_depth)),
        bit_depth=bit_depth,
    )


def _open_copy(folder: pathlib.Path, listing: Listing, side: int | None) -> tuple[dict[str, Any], Comparison]:
    """Opens the copy, after writing it if there is none, or setting it aside and writing it again if it is damaged.

    Returns:
      `({split: records}, state of the image files)`.
    """
    builder, state = _open_or_write(folder, listing, side)
    try:
        return _open_records(builder, listing), state
    except Exception as error:  # TFDS raises many types for damaged files
        problem = f'its records cannot be opened ({type(error).__name__})'
        with lock_file(folder / 'lock', wait=True):
            _set_copy_aside(folder, problem)
    builder, state = _open_or_write(folder, listing, side)
    return _open_records(builder, listing), state


def _open_records(builder: RecordBuilder, listing: Listing) -> dict[str, Any]:
    counts = {split: count for split, count in listing.counts.items() if count}
    if {split: info.num_examples for split, info in builder.info.splits.items()} != counts:
        raise ValueError('another number of images')
    opened: Any = builder.as_data_source(decoders={'image': tfds.decode.SkipDecoding()})
    for split, info in builder.info.splits.items():
        # Opens every shard now, so that reading goes on if a later start replaces the copy.
        for start in np.cumsum([0, *info.shard_lengths[:-1]]).tolist():
            opened[split][start]
    return opened


def _set_copy_aside(folder: pathlib.Path, problem: str) -> None:
    """Renames a damaged copy; the next reader writes it again."""
    records = folder / RecordBuilder.name
    if records.exists():  # another process may have renamed it by now
        aside = set_aside(records)
        logging.warning(
            'the copy %s is damaged (%s), set aside as %s: it is written again', folder, problem, aside.name
        )


def _folder_of_copies(prepared_dir: str) -> pathlib.Path:
    """The folder of all copies: a temporary one for users without a home folder that can be written to."""
    if prepared_dir == DEFAULT_PREPARED_DIR:
        return writable_cache(prepared_dir, 'set config.data.prepared_dir')
    return user_path(prepared_dir, 'config.data.prepared_dir')


def _copy_messages(listing: Listing, state: Comparison, folder: pathlib.Path, bit_depth: int) -> Iterator[str]:
    """One line each on images that are gone, that are there twice but must not be, and that have 16 bits."""
    paths = [record.path for record in listing.records]
    if state.missing:
        gone = first_names([paths[i] for i in state.missing])
        yield f'images missing in {listing.root}: {len(state.missing)} ({gone}); their copy in {folder} is used'
    if deep := np.flatnonzero(state.current.bit_depths).tolist():
        yield (
            f'images of 16 bits per channel: {len(deep)} ({first_names([paths[i] for i in deep])}); their values are '
            f'read as {bit_depth} bits (config.data.bit_depth)'
        )
    groups: dict[bytes, list[Record]] = {}
    for record, digest in zip(listing.records, state.current.digests):
        if (digest != NO_DATA).any():
            groups.setdefault(digest.tobytes(), []).append(record)
    as_text = lambda found: first_names([' = '.join(record.path for record in group) for group in found])
    cure = 'python -m ssanet_jax.doctor lists them'
    if leaked := [group for group in groups.values() if len({record.split for record in group}) > 1]:
        yield f'images in both train and test, which raise the accuracy: {len(leaked)} ({as_text(leaked)}); {cure}'
    if ambiguous := [group for group in groups.values() if len({record.label for record in group}) > 1]:
        yield f'images in two classes: {len(ambiguous)} ({as_text(ambiguous)}); {cure}'


def _digest(records: Sequence[Record]) -> str:
    """A hash of the paths, labels and splits; independent of the root folder and of modification times."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(repr((record.path, record.label, record.split)).encode(errors='surrogateescape'))
    return digest.hexdigest()


def _labels(records: Sequence[Record], split: str) -> np.ndarray:
    return np.array([record.label for record in records if record.split == split], np.int32)


def _open_or_write(folder: pathlib.Path, listing: Listing, side: int | None) -> tuple[RecordBuilder, Comparison]:
    make = functools.partial(_make_builder, folder, listing, side)
    paths = [listing.root / record.path for record in listing.records]
    if (folder / _RECORDS).exists() and (problem := copy_checksums.find_damage(folder, _RECORDS)):
        with lock_file(folder / 'lock', wait=True):
            if copy_checksums.find_damage(folder, _RECORDS):  # another process may have written it by now
                _set_copy_aside(folder, problem)
    builder = make()
    state = _compare_with_disk(builder, folder, paths)
    # The images of a published set may have been deleted since. A missing image of the user's own is a broken link.
    if state and (listing.origin or not state.missing):
        return builder, state
    for path in paths:
        if not os.path.isfile(path):  # `Path.is_file` raises OSError for a very long name
            cure = 'extract the archive again' if listing.origin else 'restore the file or take it off the list'
            problem = 'listed but missing'
            if os.path.islink(path):
                problem = f'a link to {path.readlink()}, which is missing'
                cure = 'mount or restore what it points to, or move the link out of the data set'
            raise UserError(f'{path} is {problem}: {cure}')
    folder.mkdir(parents=True, exist_ok=True)
    with lock_file(folder / 'lock', wait=True) as no_lock:
        builder = make()
        state = _compare_with_disk(builder, folder, paths)  # another process may have written it by now
        if not state:
            # An outdated copy, or remains of a killed run. Without a lock, the latter may be another process at work.
            (folder / copy_checksums.FILE).unlink(missing_ok=True)
            _remove_records(pathlib.Path(builder.data_path) if no_lock else folder / builder.name)
            builder = make()
            try:
                builder.write()
            except OSError:
                # Without a lock, another process may have written the copy meanwhile: TFDS renames a folder of its own.
                if not no_lock or not builder.data_path.exists():
                    raise
            files = builder.source_files()
            builder = make()
            copy_checksums.write_checksums(folder, _RECORDS)
            (folder / _REQUEST).write_text(_request(listing, side))
            if not no_lock:
                shutil.rmtree(folder / 'downloads', ignore_errors=True)
                for partial in folder.glob(f'{_SOURCE_FILES}.*'):  # of killed processes
                    partial.unlink(missing_ok=True)
                _remove_outdated(folder, listing, side)
            # At the end: until this file is there, a process that was killed is taken to have written nothing.
            files.write(folder / _SOURCE_FILES)
            state = Comparison([], [], files)
    return builder, state


def _remove_records(records: pathlib.Path) -> None:
    """Removes records such that a killed process leaves no half of them under their name."""
    shutil.rmtree(partial := records.with_name(f'{records.name}.deleted'), ignore_errors=True)
    if records.exists():
        records.rename(partial)
        shutil.rmtree(partial, ignore_errors=True)


def _make_builder(folder: pathlib.Path, listing: Listing, side: int | None) -> RecordBuilder:
    try:
        return RecordBuilder(folder, listing, side)
    except Exception as error:  # TFDS reads the descriptions of the records, if there are any
        if not (folder / RecordBuilder.name).exists():
            raise
        with lock_file(folder / 'lock', wait=True):
            _set_copy_aside(folder, f'its description cannot be read ({type(error).__name__})')
        return RecordBuilder(folder, listing, side)


def _compare_with_disk(
    builder: RecordBuilder, folder: pathlib.Path, paths: Sequence[pathlib.Path]
) -> Comparison | None:
    """Compares a copy with the image files; None if there is no copy, or files have changed since it was written."""
    if not builder.data_path.exists():  # TFDS renames the folder to this path when it is complete.
        return None
    before = SourceFiles.read(folder / _SOURCE_FILES, len(paths))
    if before is None:
        if (folder / _SOURCE_FILES).exists():  # else a process was killed before it had written it
            logging.warning('%s is damaged: the copy is written again', folder / _SOURCE_FILES)
        return None
    state = compare(before, paths)
    if state.changed:
        return None
    if (state.current.status != before.status).any():
        with contextlib.suppress(OSError):  # a copy may be shared and read-only
            state.current.write(folder / _SOURCE_FILES)
    return state


def _request(listing: Listing, side: int | None) -> str:
    """Identifies what a copy was written for; a later copy for the same replaces it."""
    return json.dumps([os.fspath(listing.root), listing.variant, side])


def _remove_outdated(folder: pathlib.Path, listing: Listing, side: int | None) -> None:
    """Removes the copies of earlier records for the same request, and that of version 0.1.0."""
    old = {folder.with_name(f'{listing.slug}-{_fingerprint_0_1_0(listing, side)}')}
    for other in folder.parent.glob(f'{listing.slug}-*'):
        with contextlib.suppress(OSError, ValueError):
            request = read_regular_file(other / _REQUEST, _MAX_REQUEST_BYTES)
            if other != folder and request == _request(listing, side).encode():
                old.add(other)
    for other in old:
        shutil.rmtree(other, ignore_errors=True)


def _fingerprint(listing: Listing, side: int | None) -> str:
    """Names a copy: a hash of everything but the contents of the images that decides its contents."""
    return _hash_records(listing, side, ['' for _ in listing.records])


def _fingerprint_0_1_0(listing: Listing, side: int | None) -> str:
    """The name of the copy that version 0.1.0 wrote: it noticed changed times, and only those of folders."""
    times = [
        file_status(listing.root / record.path)[1] if listing.slug == 'folder' else 0 for record in listing.records
    ]
    return _hash_records(listing, side, times)


def _hash_records(listing: Listing, side: int | None, times: Sequence[int | str]) -> str:
    digest = hashlib.sha256()
    digest.update(repr((os.fspath(listing.root), listing.class_names, side, str(RecordBuilder.VERSION))).encode())
    for record, mtime_ns in zip(listing.records, times, strict=True):
        digest.update(repr((record.path, record.label, record.split, mtime_ns)).encode())
        for array in (record.box, record.keypoints):
            digest.update(b'none' if array is None else array.tobytes())
    return digest.hexdigest()[:16]
