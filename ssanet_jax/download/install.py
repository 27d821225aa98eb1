"""From archives to a data set that training can read."""

from __future__ import annotations

import csv
import dataclasses
import io
import shutil
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from ssanet_jax.data.listing import Listing
from ssanet_jax.data.registry import read_listing
from ssanet_jax.download.fetch import fetch
from ssanet_jax.download.sources import Archive, PublishedSet
from ssanet_jax.download.unpack import unpack
from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.atomic_files import write_atomically

ProgressOf = Callable[[Archive], Callable[[int, int | None], None]]


def downloads_dir(folder: Path) -> Path:
    """Where the archives of a data set are kept until it is complete, beside its folder."""
    return folder.with_name(f'{folder.name}.download')


def install(name: str, source: PublishedSet, folder: Path, progress: ProgressOf) -> Listing:
    """Downloads a data set, unpacks it, writes the CSV file of `configs/folder.py`, and lists its images.

    The folder appears complete or not at all: what is not complete stays in `downloads_dir`, where the next start
    continues.

    Args:
      name: `config.data.name`, or the name of the CSV file.
      source: the data set.
      folder: the data set's folder; must not exist, or be empty.
      progress: makes the function that is called as data of a file arrives.

    Raises:
      UserError: no server has a file, an archive is refused, or the data set cannot be read.
      OSError: a folder cannot be written.
    """
    downloads = downloads_dir(folder)
    downloads.mkdir(parents=True, exist_ok=True)
    _check_space(source, downloads)
    files = [(archive, fetch(archive, downloads, progress(archive))) for archive in source.archives]
    unpacked = downloads / 'unpacked'
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir()
    for archive, file in files:
        if archive.is_archive:
            unpack(file, unpacked)
        else:
            shutil.copyfile(file, unpacked / archive.name)
    list_installed(name, source, unpacked)  # its errors come before the folder appears
    if folder.exists():
        folder.rmdir()
    unpacked.rename(folder)
    return list_installed(name, source, folder)


def list_installed(name: str, source: PublishedSet, folder: Path) -> Listing:
    """Lists the images of an extracted data set, as training does, and writes its CSV file if it lacks one.

    Args:
      name: as for `install`.
      source: the data set.
      folder: its folder.

    Raises:
      UserError: the folder does not hold the data set, or an image is missing.
    """
    config = ConfigDict(dict(name=source.reader, dir=str(folder)))
    if source.list_images:
        table = folder / csv_name(name)
        if not table.exists():
            lines = io.StringIO(newline='')
            csv.writer(lines).writerows([('path', 'label', 'split'), *source.list_images(folder)])
            write_atomically(table, lines.getvalue())
        config.csv = table.name
    listing = read_listing(config)
    for record in listing.records:
        if not (listing.root / record.path).is_file():
            raise UserError(f'{listing.root / record.path} is missing: download the data set again')
    return dataclasses.replace(listing, published=source.published, origin=source.page)


def csv_name(name: str) -> str:
    """The CSV file that lists the images of a data set without a reader of its own."""
    return f'{name}.csv'


def _check_space(source: PublishedSet, downloads: Path) -> None:
    """Raises `UserError` if the disk cannot hold the archives that are missing, and all of them unpacked."""
    needed = 0
    for archive in source.archives:
        have = [downloads / archive.name, downloads / f'{archive.name}.part']
        size = archive.size or 0
        needed += 2 * size - min(size, sum(path.stat().st_size for path in have if path.exists()))
    free = shutil.disk_usage(downloads).free
    if needed > free:
        raise UserError(
            f'{source.title} needs {needed / 1e9:.1f} GB in {downloads.parent}, where {free / 1e9:.1f} GB are free: '
            'free some space, or give another --data_dir'
        )


def remove_downloads(folder: Path) -> None:
    """Removes the archives of a data set that is complete."""
    shutil.rmtree(downloads_dir(folder), ignore_errors=True)
