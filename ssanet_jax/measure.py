"""Measures a trained run beyond its accuracy: robustness, and how its parts lie to annotated key points.

    python -m ssanet_jax.measure --workdir=runs/cub

Prints two tables for the test set and writes `robustness.json` (the paper's Tables 1 and 2: accuracy on rotated and
on reduced images) and `keypoints.json` (its Figure 4, for data with key points) to the run's folder.
docs/experiments.md says what each number is.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from rich.console import Console
from rich.table import Table

from ssanet_jax import command
from ssanet_jax.data import dataset as datasets
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.robustness import ORIGINAL
from ssanet_jax.experiments.measurements import (
    AFTER,
    BEFORE,
    check_parts,
    measure_keypoints,
    measure_robustness,
    write_measurement,
)
from ssanet_jax.training import experiment

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of a trained run.', required=True)
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'Where the data lies now, if not in the config.data.dir of the run.')
_ONLY = flags.DEFINE_enum('only', None, ['robustness', 'keypoints'], 'Measure nothing else.')
_SEED = flags.DEFINE_integer('seed', 0, 'Draws the random angles.', lower_bound=0, upper_bound=2**32 - 1)


def main(arguments: list[str]) -> None:
    """Measures what was asked for; the last line on stdout sums it up."""
    if arguments:
        raise UserError(f'{arguments[0]!r} is no flag: see --help')
    workdir = Path(_WORKDIR.value)
    run = experiment.load_run(workdir)
    dataset = experiment.dataset_of(run, workdir, _DATA_DIR.value)

    names = [_ONLY.value] if _ONLY.value else list(MEASUREMENTS)
    notes = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    try:
        if 'keypoints' in names:
            check_parts(run, dataset)
    except UserError as error:
        if _ONLY.value:
            raise
        names.remove('keypoints')
        notes.print(f'key points are left out: {error}', style='yellow')

    lines = []
    for name in names:
        measurement = MEASUREMENTS[name]
        result = write_measurement(workdir, name, run, dataset, measurement.measure(run, dataset))
        for problem in result['unreadable']:
            notes.print(f'{measurement.unreadable}: {problem}', style='yellow')
        Console(highlight=False, markup=False).print(measurement.table(result))
        lines.append(measurement.line(result))
    print('; '.join(lines))


def _robustness_table(result: dict[str, Any]) -> Table:
    table = Table(title=f'{result["dataset"]}, stage {result["stage"]}: {result["examples"]} test images')
    for heading in ('input', 'accuracy', 'drop (points)'):
        table.add_column(heading, justify='left' if heading == 'input' else 'right')
    for name, accuracy in result['accuracy'].items():
        table.add_row(name, f'{accuracy:.4f}', '' if name == ORIGINAL else f'{result["drop"][name]:.1f}')
    return table


def _keypoints_table(result: dict[str, Any]) -> Table:
    """Below, for each key point: in how many percent of the images it is nearest to part 1, 2, ..."""
    measured = result['boxes']
    title = f'{result["dataset"]}, stage {result["stage"]}: from parts to key points in {result["images"]} test images'
    table = Table(title=title)
    for heading in ('', *measured):
        table.add_column(heading, justify='right' if heading else 'left')
    row = lambda text, show: table.add_row(text, *map(show, measured.values()))
    row('distance, pixels', lambda m: f'{m["distance"]:.2f}')
    row('  of the diagonal', lambda m: f'{m["distance_share"]:.4f}')
    for part in range(len(measured[BEFORE]['distance_of_part'])):
        row(f'  of part {part + 1}', lambda m, part=part: ''.join(f'{d:.2f}' for d in _of_part(m, part)))
    row('inside the object', lambda m: f'{m["inside"]:.4f}')
    row('consistency', lambda m: f'{m["consistency"]:.4f}')
    row('  parts shuffled', lambda m: f'{m["consistency_shuffled"]:.4f}')
    table.add_section()
    row('nearest to, %', lambda m: ' '.join(f'{part:3}' for part in range(1, len(m['nearest']) + 1)))
    for point, name in enumerate(result['keypoint_names']):
        row(f'  {name}', lambda m, point=point: ' '.join(f'{100 * shares[point]:3.0f}' for shares in m['nearest']))
    return table


def _of_part(measured: dict[str, Any], part: int) -> list[float]:
    """Its distance, where there are several parts."""
    return measured['distance_of_part'][part : part + 1] if len(measured['distance_of_part']) > 1 else []


def _robustness_line(result: dict[str, Any]) -> str:
    changed = ', '.join(f'{name} {value:.4f}' for name, value in result['accuracy'].items() if name != ORIGINAL)
    return f'accuracy {result["accuracy"][ORIGINAL]:.4f} on {result["examples"]} images, {changed}'


def _keypoints_line(result: dict[str, Any]) -> str:
    last = result['boxes'].get(AFTER) or result['boxes'][BEFORE]
    return (
        f'parts {last["distance"]:.2f} pixels from the nearest key point in {result["images"]} images, '
        f'consistency {last["consistency"]:.4f} (shuffled {last["consistency_shuffled"]:.4f})'
    )


class Measurement(NamedTuple):
    """One of the things that can be measured of a run."""

    measure: Callable[[experiment.Run, datasets.Dataset], dict[str, Any]]
    table: Callable[[dict[str, Any]], Table]
    line: Callable[[dict[str, Any]], str]
    unreadable: str  # what becomes of images that cannot be read


MEASUREMENTS = {
    'robustness': Measurement(
        lambda run, dataset: measure_robustness(run, dataset, _SEED.value),
        _robustness_table,
        _robustness_line,
        'counted as wrong',
    ),
    'keypoints': Measurement(measure_keypoints, _keypoints_table, _keypoints_line, 'left out'),
}


if __name__ == '__main__':
    command.run(main)
