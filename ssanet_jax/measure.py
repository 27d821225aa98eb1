"""Measures a trained run beyond its accuracy: robustness, parts against key points, ways to share features.

    python -m ssanet_jax.measure --workdir=runs/cub

Prints tables for the test set and writes `robustness.json` (the paper's Tables 1 and 2: accuracy on rotated and
on reduced images), `keypoints.json` (its Figure 4, for data with key points) and `keypoints.npz` (the distances of
each image) to the run's folder.

    python -m ssanet_jax.measure --workdir=runs/cub --only=sharing

prints accuracy and latency of the same weights for each `config.model.sharing`, and writes `sharing.json`.
docs/experiments.md explains each number.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags
from rich.console import Console, Group
from rich.table import Table

from ssanet_jax import cli
from ssanet_jax.data.dataset import Dataset
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.robustness import ORIGINAL
from ssanet_jax.experiments.keypoint_tables import TABLE_WIDTH, keypoint_summary, keypoint_tables
from ssanet_jax.experiments.measurements import MEASUREMENTS, Options, write_measurement
from ssanet_jax.experiments.sharing_tradeoff import GLOBAL_POOLING
from ssanet_jax.experiments.unreadable_images import measurement_line
from ssanet_jax.path_flags import define_path
from ssanet_jax.plain_text import PlainConsole, print_table
from ssanet_jax.printable import printable
from ssanet_jax.runs.evaluation_count import evaluation_count_line
from ssanet_jax.runs.run import Run, dataset_of, load_run

_WORKDIR = define_path('workdir', None, 'Folder of a trained run.', required=True)
_DATA_DIR = define_path('data_dir', None, 'Folder of the data, if it is no longer config.data.dir of the run.')
_ONLY = flags.DEFINE_enum('only', None, list(MEASUREMENTS), 'Measure only this; by default all but sharing.')
_SEED = flags.DEFINE_integer('seed', 0, 'Draws the random angles.', lower_bound=0, upper_bound=2**32 - 1)
_BATCH = flags.DEFINE_integer(
    'batch', None, "Images per call for --only=sharing; by default the run's evaluation batch.", lower_bound=1
)
_ROUNDS = flags.DEFINE_integer(
    'rounds', 5, 'Rounds of timing for --only=sharing; the median is reported.', lower_bound=1
)


def main() -> None:
    """Runs the measurements; the last line on stdout is a summary."""
    workdir = _WORKDIR.value
    run = load_run(workdir, data_dir=_DATA_DIR.value)
    dataset = dataset_of(run, workdir)

    names = [_ONLY.value] if _ONLY.value else [name for name in MEASUREMENTS if name != 'sharing']  # it takes long
    notes = PlainConsole(stderr=True, soft_wrap=True)
    options = Options(seed=_SEED.value, rounds=_ROUNDS.value, batch_size=_BATCH.value)
    lines = []
    for name in _measurable(names, run, dataset, notes):
        result = write_measurement(workdir, name, run, dataset, MEASUREMENTS[name].measure(run, dataset, options))
        table, line = _FORMATS[name]
        print_table(table(result), PlainConsole(width=None if sys.stdout.isatty() else TABLE_WIDTH))
        if unreadable := measurement_line(name, result):
            print(printable(unreadable))
        lines.append(line(result))
    notes.print(evaluation_count_line(workdir))
    print('; '.join(lines))


def _measurable(names: Sequence[str], run: Run, dataset: Dataset, notes: Console) -> list[str]:
    """The measurements that this run and its data allow; raises `UserError` if none is left."""
    allowed = []
    for name in names:
        try:
            MEASUREMENTS[name].check(run, dataset)
            allowed.append(name)
        except UserError as error:
            if len(names) == 1:
                raise
            notes.print(f'{_TITLES.get(name, name)} are left out: {error}', style='yellow')
    return allowed


def _robustness_table(result: dict[str, Any]) -> Table:
    table = Table(title=f'{result["dataset"]}, stage {result["stage"]}: {result["examples"]} test images')
    for heading in ('input', 'accuracy', 'drop (points)'):
        table.add_column(heading, justify='left' if heading == 'input' else 'right')
    for name, accuracy in result['accuracy'].items():
        table.add_row(name, f'{accuracy:.4f}', '' if name == ORIGINAL else f'{result["drop"][name]:.1f}')
    return table


def _robustness_line(result: dict[str, Any]) -> str:
    changed = ', '.join(f'{name} {value:.4f}' for name, value in result['accuracy'].items() if name != ORIGINAL)
    return f'accuracy {result["accuracy"][ORIGINAL]:.4f} on {result["examples"]} images, {changed}'


def _sharing_table(result: dict[str, Any]) -> Table:
    """The times are those of one image, by images per call. The caption says why a way does not fit."""
    bare = result['global_pooling']
    title = f'{result["dataset"]}, stage {result["stage"]}: {result["examples"]} test images; {result["device"]}'
    notes = ['* as trained; ms of one image by images per call, and how many times those of global pooling']
    table = Table(title=title)
    headings = [heading for batch in bare['milliseconds'] for heading in (f'ms at {batch}', 'times')]
    for heading in ('way to share', 'crops', 'accuracy', 'points', *headings):
        table.add_column(heading, justify='left' if heading == 'way to share' else 'right')

    def times(milliseconds):
        return (
            cell
            for batch, value in milliseconds.items()
            for cell in (f'{value:.1f}', f'{value / bare["milliseconds"][batch]:.2f}')
        )

    accuracy = '' if bare['accuracy'] is None else f'{bare["accuracy"]:.4f}'
    table.add_row(GLOBAL_POOLING, '', accuracy, '', *times(bare['milliseconds']), end_section=True)
    for row in result['ways']:
        name = f'{row["way"]} *' if row['trained'] else row['way']
        if 'problem' in row:
            table.add_row(name, '', 'unfit')
            notes.append(f'{row["way"]}: {row["problem"]}')
            continue
        difference = '' if row['trained'] else f'{row["difference"]:+.1f} ± {row["half_width"]:.1f}'
        crops = str(row['crop_size'] or '')
        table.add_row(name, crops, f'{row["accuracy"]:.4f}', difference, *times(row['milliseconds']))
    table.caption = '\n'.join(notes)
    return table


def _sharing_line(result: dict[str, Any]) -> str:
    rows = (
        f'{row["way"]} {row["accuracy"]:.4f} in {row["milliseconds"]["1"]:.1f} ms{" (as trained)" * row["trained"]}'
        for row in result['ways']
        if 'problem' not in row
    )
    return f'sharing on {result["examples"]} images: {", ".join(rows)}'


_TITLES = {'keypoints': 'key points'}
# Measurement -> how its result is printed: as tables, and in one line.
_FORMATS: dict[str, tuple[Callable[[dict[str, Any]], Table | Group], Callable[[dict[str, Any]], str]]] = {
    'robustness': (_robustness_table, _robustness_line),
    'keypoints': (keypoint_tables, keypoint_summary),
    'sharing': (_sharing_table, _sharing_line),
}


if __name__ == '__main__':
    cli.run(main)
