"""Examines a data set before it is trained on.

    python -m ssanet_jax.doctor --dataset=cub --data_dir=CUB_200_2011 [--fix_list=FILE]

Reads and decodes every image once and prints a table of what it found, with a cure for each. The exit
code is 0 if training would be right, 1 if it would be wrong, and 2 if there is nothing to examine.
Wrong are images that are missing or cannot be read, counts other than published, classes without
training images, labels outside the classes, boxes wholly outside their image, and the same picture in
train and test or under two classes. Grayscale images, boxes that overrun their image, part of the
classes, files of a folder that are left out, near copies, tiny images and uneven classes are reported
too, but leave the exit code at 0.

`--fix_list=FILE` also writes the files that have errors, one path a line, relative to the folder: those to
replace, and of a picture in both train and test the training copy, which is the one to remove.
"""

import os
import re
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

import ml_collections
from absl import flags
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from ssanet_jax import cli
from ssanet_jax.data.listing import SPLITS, Listing
from ssanet_jax.data.registry import READERS, read_listing
from ssanet_jax.doctor import checks, scan
from ssanet_jax.doctor.checks import Finding
from ssanet_jax.errors import UserError
from ssanet_jax.runs.files import write_whole

_DATASET = flags.DEFINE_enum('dataset', None, list(READERS), 'Kind of data set.', required=True)
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'Extracted folder of the set.', required=True)
_LEVEL = flags.DEFINE_string('level', None, 'Aircraft only: variant (the default), family or manufacturer.')
_CSV = flags.DEFINE_string('csv', None, 'Folder only: the CSV file that lists the images, if there is one.')
_SPLIT_SEED = flags.DEFINE_integer('split_seed', 0, 'Folder only: config.data.split_seed of the training.')
_FIX_LIST = flags.DEFINE_string('fix_list', None, 'File to write the paths of files that have errors to.')
flags.DEFINE_alias('fix-list', 'fix_list')

_EXAMPLES = 3  # printed of each finding
_STYLES = {'error': 'red', 'warning': 'yellow', 'note': 'cyan'}


def main(arguments: list[str]) -> None:
    """Prints the table; the last line on stdout is the verdict."""
    if arguments:
        raise UserError(f'{arguments[0]!r} is no flag: see --help')
    if _FIX_LIST.value and not Path(_FIX_LIST.value).absolute().parent.is_dir():
        raise UserError(f'--fix_list={_FIX_LIST.value}: there is no such folder to write it to')
    sys.stdout.reconfigure(errors='backslashreplace')  # for file names that the terminal's encoding lacks
    warnings.simplefilter('ignore', Image.DecompressionBombWarning)  # the table names gigantic images
    listing = _listing(
        name=_DATASET.value,
        dir=_DATA_DIR.value,
        level=_LEVEL.value,
        csv=_CSV.value,
        split_seed=_SPLIT_SEED.value,
    )
    read = track(
        scan.scan_images(listing),
        f'Reading {listing.name}',
        total=len({record.path for record in listing.records}),
        console=Console(stderr=True),
        transient=True,
    )
    report = checks.run_checks(listing, read)
    findings = [finding for found in report.values() for finding in found]
    if _FIX_LIST.value:
        # A set may lie deeper than the folder that was named.
        down = Path(os.path.relpath(listing.root, Path(_DATA_DIR.value).expanduser().resolve()))
        files = [(down / file).as_posix() for file in checks.files_to_fix(findings)]
        write_fix_list(Path(_FIX_LIST.value), files)
    Console().print(table(listing, report))
    print(verdict(listing, findings))
    if any(finding.level == 'error' for finding in findings):
        sys.exit(1)


def _listing(**fields) -> Listing:
    """Lists a set as training will.

    Args:
      fields: those of ``config.data`` that name the set and its files.

    Raises:
      UserError: the folder is not there or is no such set; the message names this command's flags.
    """
    try:
        return read_listing(ml_collections.ConfigDict(fields))
    except UserError as error:
        message = str(error).replace('config.data.dir', '--data_dir')
        raise UserError(re.sub(r'config\.data\.(\w+)', r'--\1', message)) from error
    except (OSError, UnicodeError) as error:
        raise UserError(
            f'{fields["dir"]} cannot be listed ({error}): repair or remove what the message names'
        ) from error


def table(listing: Listing, report: dict[str, list[Finding]]) -> Table:
    """One row a check: what it found, the first of each kind, and the cure."""
    result = Table(title=f'{listing.name}: {_size(listing)}', title_justify='left', expand=False)
    result.add_column('check', no_wrap=True)
    result.add_column('result', no_wrap=True)
    result.add_column('what, where, cure', overflow='fold')
    for name, found in report.items():
        totals, details = Text(), Text()
        for level, style in _STYLES.items():
            if count := sum(len(finding.examples) for finding in found if finding.level == level):
                totals.append(_counted(count, level) + '\n', style)
        for finding in found:
            details.append(f'{finding.what}\n', _STYLES[finding.level])
            for example in finding.examples[:_EXAMPLES]:
                details.append(f'  {printable(example)}\n')
            if len(finding.examples) > _EXAMPLES:
                details.append(f'  and {len(finding.examples) - _EXAMPLES} more\n')
            details.append(f'  -> {printable(finding.cure)}\n')
        for text in (totals, details):
            text.rstrip()
        result.add_row(name, totals or Text('ok', 'green'), details)
    return result


def verdict(listing: Listing, findings: Iterable[Finding]) -> str:
    """One line: 'ok: ...', or the number of problems and their kinds."""
    count = dict.fromkeys(_STYLES, 0)
    kinds = []
    for finding in findings:
        count[finding.level] += len(finding.examples)
        if finding.level == 'error':
            kinds.append(f'{finding.what} ({len(finding.examples)})')
    if kinds:
        return f'{_counted(count["error"], "problem")}: {", ".join(kinds)}'
    return f'ok: {_size(listing)}; {_counted(count["warning"], "warning")}, {_counted(count["note"], "note")}'


def write_fix_list(file: Path, paths: Iterable[str]) -> None:
    """Writes one path a line.

    Raises:
      UserError: it cannot be written.
    """
    # A name that holds a line break would read as two other files, which might then be removed.
    lines = [f'{path}\n' for path in paths if len(path.splitlines()) == 1]
    try:
        # Names that are not UTF-8 are written with the bytes that they have on disk.
        write_whole(file, ''.join(lines), errors='surrogateescape')
    except OSError as error:
        raise UserError(f'cannot write --fix_list={file} ({error.strerror}): name another file') from error


def printable(text: str) -> str:
    """A text without what could move the cursor or colour the terminal: file names may hold anything."""
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)


def _size(listing: Listing) -> str:
    parts = [f'{sum(record.split == split for record in listing.records)} {split}' for split in SPLITS]
    return f'{" and ".join(parts)} images, {len(listing.class_names)} classes'


def _counted(count: int, noun: str) -> str:
    return f'{count} {noun}' + ('' if count == 1 else 's')


if __name__ == '__main__':
    cli.run(main)
