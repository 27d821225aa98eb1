"""Downloads a published data set, checks it and unpacks it.

    python -m ssanet_jax.download cub [--data_dir=FOLDER]

Data sets: cub, cars, aircraft, flowers, pets, dogs. The folder is $SSANET_DATA_DIR/NAME by default, or data/NAME, where
training finds it by itself. A download that is interrupted continues when the same command is run again. Every file has
a published checksum. Files that were downloaded elsewhere can be put into NAME.download beside the folder.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from absl import flags
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from ssanet_jax import cli
from ssanet_jax.data import locations
from ssanet_jax.data.listing import SPLITS, Listing
from ssanet_jax.doctor.checks import check_counts
from ssanet_jax.download import install
from ssanet_jax.download.sources import PUBLISHED_SETS, Archive, PublishedSet
from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.locks import lock_file
from ssanet_jax.path_flags import define_path
from ssanet_jax.plain_text import PlainConsole, text_column

_DATA_DIR = define_path('data_dir', None, 'Folder of the data set; by default $SSANET_DATA_DIR/NAME, or data/NAME.')
_KEEP_ARCHIVES = flags.DEFINE_bool('keep_archives', False, 'Keep the archives in NAME.download beside the folder.')


def main(names: list[str]) -> None:
    """Downloads one data set; the last line on stdout is the command that trains on it."""
    if len(names) != 1 or names[0] not in PUBLISHED_SETS:
        given = f'{" ".join(names)!r} is not the name of a data set' if names else 'the name of a data set is missing'
        raise UserError(f'{given}: give one of {", ".join(PUBLISHED_SETS)}')
    name, source = names[0], PUBLISHED_SETS[names[0]]
    folder = _DATA_DIR.value or locations.places(name)[0]
    try:
        download(name, source, folder.absolute(), PlainConsole(stderr=True))
    except OSError as error:
        raise UserError(
            f'cannot write {error.filename or folder} ({error.strerror}): free some space, or give another --data_dir'
        ) from error
    except KeyboardInterrupt:
        print('interrupted: run the same command again; the download continues where it stopped', file=sys.stderr)
        sys.exit(130)


def download(name: str, source: PublishedSet, folder: Path, console: Console) -> None:
    """Downloads a data set into a folder, unless it is there already, and prints what it is and how to train on it."""
    tell = lambda text: console.print(text, soft_wrap=True)
    tell(f'{source.title}, {source.page}; license: {source.license}')
    if source.remark:
        tell(f'note: {source.remark}')
    if _in_use(folder):
        try:
            listing = install.list_installed(name, source, folder)
        except UserError as error:
            raise UserError(
                f'{folder} is not empty, and does not hold {source.title} ({error}): move it away, or give another '
                '--data_dir'
            ) from error
        tell(f'{folder} is complete already')
    else:
        with _locked(folder), _progress(console) as progress:
            listing = install.install(name, source, folder, progress)
        if not _KEEP_ARCHIVES.value:
            install.remove_downloads(folder)
    _report(name, source, folder, listing)


def _report(name: str, source: PublishedSet, folder: Path, listing: Listing) -> None:
    """Prints the counts, which must be the published ones, and the next command."""
    wrong = [example for finding in check_counts(listing, {}) for example in finding.examples]
    if wrong:
        raise UserError(f'{folder} is not the published set ({"; ".join(wrong)}): download it again')
    counts = ' and '.join(f'{sum(record.split == split for record in listing.records)} {split}' for split in SPLITS)
    print(f'{folder}: {counts} images of {len(listing.class_names)} classes, as published')
    found = folder in locations.places(name) and source.list_images is None
    given = '' if found else f' --config.data.dir={folder}'
    if source.list_images:
        given += f' --config.data.csv={install.csv_name(name)}'
    config = 'folder' if source.list_images else name
    print(f'train with: python -m ssanet_jax.main --config=configs/{config}.py --workdir=runs/{name}{given}')


def _in_use(folder: Path) -> bool:
    if folder.exists() and not folder.is_dir():
        raise UserError(f'{folder} is a file: give another --data_dir')
    return folder.is_dir() and any(folder.iterdir())


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps a second download of the same folder out, where the file system has locks."""
    downloads = install.downloads_dir(folder)
    downloads.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock_file(downloads / '.lock', wait=False))
        except BlockingIOError:
            raise UserError(f'another process downloads to {folder}: wait for it, or give another --data_dir') from None
        yield


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[install.ProgressOf]:
    """Shows one bar per file."""
    columns = text_column('{task.description}'), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, TimeRemainingColumn(), console=console) as bars:

        def progress_of(archive: Archive):
            task = bars.add_task(archive.name, total=archive.size)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield progress_of


if __name__ == '__main__':
    cli.run(main, accepts_arguments=True)
