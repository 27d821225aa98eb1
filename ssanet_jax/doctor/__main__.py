"""Checks a data set before training, and its labels afterwards.

    python -m ssanet_jax.doctor --dataset=cub --data_dir=CUB_200_2011 [--fix_list=FILE]
    python -m ssanet_jax.doctor --workdir=runs/cub

Decodes every image once, and prints a table of problems with a cure for each. The exit code is 0 if there are no
errors, 1 if there are errors, and 2 if the data set cannot be listed. Errors are missing or unreadable images, counts
that differ from the published ones, classes without training images, labels out of range, boxes outside their image,
and the same image in train and test or in two classes. Grayscale images, boxes that extend beyond their image, a
subset of the classes, skipped files, duplicates within a class, near duplicates, tiny images and imbalanced classes are
reported as warnings or notes, which do not change the exit code. The last line is 'ok: ...', or 'N problems: ...' with
the number of errors.

`--fix_list=FILE` also writes the files that have errors, one path per line, relative to the folder: those to replace;
for an image in both train and test the copy in train, which is the one to remove; and for an image in two classes all
copies, of which the one with the right class is the one to keep.

With `--workdir`, it lists the training images that a trained run takes to be labeled wrongly, near duplicates in two
classes, and images unlike all others, in `label_errors.csv` of that folder and, with pictures, in `label_errors.html`.
The exit code is 0.
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
from rich.table import Table
from rich.text import Text

from ssanet_jax import cli
from ssanet_jax.data.listing import SPLITS, Listing
from ssanet_jax.data.registry import READERS, read_listing
from ssanet_jax.doctor import checks, label_errors, scan
from ssanet_jax.doctor.checks import Finding
from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.atomic_files import write_atomically
from ssanet_jax.path_flags import define_path
from ssanet_jax.plain_text import PlainConsole, print_table, track
from ssanet_jax.printable import printable
from ssanet_jax.runs.run import dataset_of, load_run

_DATASET = flags.DEFINE_enum('dataset', None, list(READERS), 'Kind of data set.')
_DATA_DIR = define_path(
    'data_dir', None, 'Extracted folder of the data set; by default where training finds it, such as data/cub.'
)
_WORKDIR = define_path('workdir', None, 'Folder of a trained run, whose training images are checked for wrong labels.')
_LEVEL = flags.DEFINE_string('level', None, 'Aircraft only: variant (the default), family or manufacturer.')
_CSV = flags.DEFINE_string('csv', None, 'Folder only: the CSV file that lists the images, if any.')
_SPLIT_SEED = flags.DEFINE_integer('split_seed', 0, 'Folder only: config.data.split_seed of the training run.')
_FIX_LIST = define_path('fix_list', None, 'File to which the paths of files with errors are written.')
flags.DEFINE_alias('fix-list', 'fix_list')

_MAX_EXAMPLES = 3  # printed per finding
_STYLES = {'error': 'red', 'warning': 'yellow', 'note': 'cyan'}


def main() -> None:
    """Prints the table; the last line on stdout is the verdict."""
    if (_WORKDIR.value is None) == (_DATASET.value is None):
        raise UserError(
            'give either --dataset, to check a data set, or --workdir, to check the labels by a trained run'
        )
    if _WORKDIR.value is not None:
        _check_labels(_WORKDIR.value)
        return
    if _FIX_LIST.value and not _FIX_LIST.value.absolute().parent.is_dir():
        raise UserError(f'--fix_list={_FIX_LIST.value}: its folder does not exist: create it, or name another file')
    warnings.simplefilter('ignore', Image.DecompressionBombWarning)  # the table lists huge images
    listing = _listing(
        name=_DATASET.value,
        dir=str(_DATA_DIR.value or ''),
        level=_LEVEL.value,
        csv=_CSV.value,
        split_seed=_SPLIT_SEED.value,
    )
    read = track(
        scan.scan_images(listing),
        f'Reading {listing.name}',
        total=len({record.path for record in listing.records}),
        console=PlainConsole(stderr=True),
        transient=True,
    )
    report = checks.run_checks(listing, read)
    findings = [finding for found in report.values() for finding in found]
    if _FIX_LIST.value:
        # The data set may be in a subfolder of --data_dir.
        folder = _DATA_DIR.value.resolve() if _DATA_DIR.value else listing.root
        prefix = Path(os.path.relpath(listing.root, folder))
        files = [(prefix / file).as_posix() for file in checks.files_to_fix(findings)]
        write_fix_list(_FIX_LIST.value, files)
    print_table(table(listing, report), PlainConsole())
    print(printable(f'understood as {listing.summary}'))
    print(verdict(listing, findings))
    if any(finding.level == 'error' for finding in findings):
        sys.exit(1)


def _check_labels(workdir: Path) -> None:
    """Lists the training images of a run that are probably labeled wrongly, near duplicates, and outliers."""
    run = load_run(workdir, data_dir=_DATA_DIR.value)
    errors = label_errors.label_errors(run, workdir)
    try:
        dataset = dataset_of(run, workdir)
    except UserError as error:
        raise UserError(str(error).replace('config.data.dir', '--data_dir')) from error
    problems = None
    try:
        problems = label_errors.image_problems(run, PlainConsole(stderr=True))
    except UserError as error:
        print(printable(f'near duplicates and outliers are not looked for: {error}'), file=sys.stderr)
    label_errors.write_label_errors(workdir, errors, run, dataset, problems)
    total = len(run.held_out.labels) if run.held_out else 0
    for error in errors[:_MAX_EXAMPLES]:
        names = [run.class_names[index] for index in (error.label, error.suggested)]
        print(printable(f'labeled {names[0]}, looks like {names[1]} ({error.suggested_probability:.2f})'))
    if problems is not None:
        similar, outliers = _counted(len(problems.similar), 'near duplicate'), _counted(len(problems.outliers), 'image')
        print(f'{similar} in two classes, {outliers} unlike all others')
    images = _counted(len(errors), 'label')
    print(printable(f'{images} to check among {total} images: see {workdir / "label_errors.html"}'))


def _listing(**fields) -> Listing:
    """Lists the data set as training does.

    Args:
      fields: the fields of ``config.data``.

    Raises:
      UserError: the folder does not hold the data set; the message names this command's flags.
    """
    try:
        return read_listing(ml_collections.ConfigDict(fields))
    except UserError as error:
        message = str(error).replace('config.data.dir', '--data_dir')
        raise UserError(re.sub(r'config\.data\.(\w+)', r'--\1', message)) from error
    except (OSError, UnicodeError) as error:
        raise UserError(
            f'{fields["dir"]} cannot be listed ({error}): repair that file, or move it out of the data set'
        ) from error


def table(listing: Listing, report: dict[str, list[Finding]]) -> Table:
    """Formats the findings: one row per check, with its first examples and the cure."""
    result = Table(title=f'{listing.name}: {_size(listing)}', title_justify='left', expand=False)
    result.add_column('check', no_wrap=True)
    result.add_column('result', no_wrap=True)
    result.add_column('problem, files, cure', overflow='fold')
    for name, found in report.items():
        totals, details = Text(), Text()
        for level, style in _STYLES.items():
            if count := sum(len(finding.examples) for finding in found if finding.level == level):
                totals.append(_counted(count, level) + '\n', style)
        for finding in found:
            details.append(f'{finding.title}\n', _STYLES[finding.level])
            for example in finding.examples[:_MAX_EXAMPLES]:
                details.append(f'  {printable(example)}\n')
            if len(finding.examples) > _MAX_EXAMPLES:
                details.append(f'  and {len(finding.examples) - _MAX_EXAMPLES} more\n')
            details.append(f'  -> {printable(finding.cure)}\n')
        for text in (totals, details):
            text.rstrip()
        result.add_row(name, totals or Text('ok', 'green'), details)
    return result


def verdict(listing: Listing, findings: Iterable[Finding]) -> str:
    """The result in one line: 'ok: ...', or the number of errors and their kinds."""
    count = dict.fromkeys(_STYLES, 0)
    kinds = []
    for finding in findings:
        count[finding.level] += len(finding.examples)
        if finding.level == 'error':
            kinds.append(f'{finding.title} ({len(finding.examples)})')
    if kinds:
        return f'{_counted(count["error"], "problem")}: {", ".join(kinds)}'
    return f'ok: {_size(listing)}; {_counted(count["warning"], "warning")}, {_counted(count["note"], "note")}'


def write_fix_list(file: Path, paths: Iterable[str]) -> None:
    """Writes one path per line.

    Args:
      file: the file to write.
      paths: paths of files in the data set. Those with line breaks in their names are omitted.

    Raises:
      UserError: the file cannot be written.
    """
    # A name with a line break would read as two other files, which might be removed by mistake.
    lines = [f'{path}\n' for path in paths if len(path.splitlines()) == 1]
    try:
        # Names that are not UTF-8 are written as the bytes on disk.
        write_atomically(file, ''.join(lines), errors='surrogateescape')
    except OSError as error:
        raise UserError(f'cannot write --fix_list={file} ({error.strerror}): name another file') from error


def _size(listing: Listing) -> str:
    parts = [f'{sum(record.split == split for record in listing.records)} {split}' for split in SPLITS]
    return f'{" and ".join(parts)} images, {len(listing.class_names)} classes'


def _counted(count: int, noun: str) -> str:
    return f'{count} {noun}' + ('' if count == 1 else 's')


if __name__ == '__main__':
    cli.run(main)
