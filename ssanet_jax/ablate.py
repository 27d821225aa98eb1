"""Trains the rows of one of the paper's tables with several seeds, and prints means and paired comparisons.

    python -m ssanet_jax.ablate --config=configs/demo.py:ablation --table=3 --seeds=5

Trains only the runs that are missing: the same command resumes after a kill, and more seeds add to the table. Rows
with the same first stages share them. The same command started a second time on the machine takes the seeds that the
first is not working on. docs/experiments.md lists the tables.
"""

import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags
from rich.table import Table

from ssanet_jax import cli
from ssanet_jax.errors import UserError
from ssanet_jax.experiments.ablation import (
    MEASURED,
    METRICS,
    Ablation,
    Metric,
    RowResult,
    collect,
    finished_runs,
    measure_rows,
    runs_without_predictions,
    train_rows,
)
from ssanet_jax.experiments.run_comparison import EVALUATE_AGAIN
from ssanet_jax.experiments.tables import TABLES
from ssanet_jax.experiments.unreadable_images import result_lines
from ssanet_jax.path_flags import define_path
from ssanet_jax.plain_text import PlainConsole, print_table
from ssanet_jax.printable import printable
from ssanet_jax.runs.evaluation_count import num_test_evaluations
from ssanet_jax.runs.files import RESULTS_FILE, write_json
from ssanet_jax.runs.image_predictions import PREDICTIONS_FILE
from ssanet_jax.runs.workdir import WorkdirLocked, check_workdir, lock_workdir

SIGNIFICANCE = 0.05

_CONFIG = config_flags.DEFINE_config_file('config', None, 'Configuration of full SSANet.', lock_config=True)
_TABLE = flags.DEFINE_enum('table', '3', list(TABLES), 'Rows to train.')
_SEEDS = flags.DEFINE_integer('seeds', 3, 'Runs of each row, with the seeds 0, 1, ...', lower_bound=1)
_WORKDIR = define_path('workdir', None, 'Folder of all runs; by default runs/ablate and the name of the config.')
_MEASURE = flags.DEFINE_multi_enum('measure', [], list(MEASURED), 'Measure this of each run too; may be given twice.')
flags.mark_flag_as_required('config')


def main() -> None:
    """Trains, measures, and prints the tables; the last line on stdout says how many runs there are."""
    if recipe := _CONFIG.value.get('recipe', ''):
        raise UserError(
            f'config.recipe={recipe}: rows are compared at fixed settings, which no recipe may choose: give a '
            'configuration of full SSANet without one, such as configs/folder.py:lite0'
        )
    ablation = Ablation(_CONFIG.value, _WORKDIR.value or Path(f'runs/ablate/{cli.config_name()}'))
    table, seeds = TABLES[_TABLE.value], range(_SEEDS.value)
    runs = [f'seed{seed}/{row.name}' for seed in seeds for row in table.rows]
    check_workdir(ablation.root, [stage.get('name', '') for stage in ablation.config.stages], runs)
    notes = PlainConsole(stderr=True, soft_wrap=True)
    for seed in seeds:
        try:
            with lock_workdir(ablation.seed_dir(seed)):
                train_rows(ablation, table.rows, seed, notes)
                measure_rows(ablation, table.rows, seed, _MEASURE.value, notes)
        except WorkdirLocked:
            notes.print(f'seed {seed} is left to the process that works on it', style='yellow')

    workdirs = finished_runs(ablation, table.rows, seeds)
    if missing := runs_without_predictions(workdirs):
        listed = ', '.join(map(str, missing[:3])) + (' ...' if len(missing) > 3 else '')
        notes.print(
            f'{len(missing)} runs of an earlier version have no {PREDICTIONS_FILE} and are left out of the comparisons '
            f'({listed}): {EVALUATE_AGAIN}',
            style='yellow',
        )
    files = {RESULTS_FILE, *(f'{name}.json' for name in _MEASURE.value)}
    found = {metric.name: collect(ablation, table.rows, seeds, metric) for metric in METRICS}
    found = {name: results for name, results in found.items() if results}
    asked = [metric.name for metric in METRICS if metric.file in files and metric.name in found]
    print_tables(table.title, {name: found[name] for name in asked})
    for line in result_lines(workdirs, _MEASURE.value):
        print(printable(line))
    count = sum(num_test_evaluations(workdir) for workdir in workdirs)
    print(f'test images evaluated {count} times by the {len(workdirs)} runs of this table')
    content = as_json(found) | {'test_evaluations': count}
    write_json(ablation.root / f'table_{_TABLE.value}.json', content)
    print(printable(f'{len(workdirs)} of {len(seeds) * len(table.rows)} runs are finished: see {ablation.root}'))


def print_tables(title: str, found: dict[str, list[RowResult]]) -> None:
    """Prints one table per metric, with the paper's accuracy beside ours, and what the columns mean."""
    # Without a terminal, rich would wrap the cells at 80 columns.
    console = PlainConsole(width=None if sys.stdout.isatty() else 120)
    metrics = {metric.name: metric for metric in METRICS}
    for name, results in found.items():
        print_table(_table(title, metrics[name], results), console)
    comparisons = [result.comparison for results in found.values() for result in results if result.comparison]
    explanations = ['±: standard deviation over runs.']
    if comparisons:
        explanations.append(
            'Difference: mean over pairs of runs with the same seed, with its 95 % confidence interval and p-value. '
            'Holm: p corrected for all comparisons of the table; * where it is below 0.05.'
        )
    if any(comparison.images for comparison in comparisons):
        explanations.append('Accuracies are compared by a paired bootstrap over seeds and test images.')
    if any(comparison.images and comparison.difference.count == 1 for comparison in comparisons):
        explanations.append(
            'With one seed the interval covers the choice of test images, but not another training run; McNemar: '
            'exact test of the two runs.'
        )
    if any(not comparison.images for comparison in comparisons):
        explanations.append("Other metrics are compared by Student's paired t-test over seeds.")
    console.print(' '.join(explanations))


def _table(title: str, metric: Metric, results: list[RowResult]) -> Table:
    table = Table(title=f'{title}: {metric.name}{", %" if metric.percent else ""}')
    paper = metric.name == 'accuracy' and any(result.row.paper for result in results)
    one_seed = any(len(result.single) == 1 for result in results)
    headings = ['', *(['paper'] if paper else []), 'mean', '±', 'runs', 'against', 'difference', '95 %', 'p', 'Holm']
    for heading in (*headings, *(['McNemar'] if one_seed else [])):
        table.add_column(heading, justify='left' if heading in ('', 'against') else 'right')
    titles = {result.row.name: result.row.title for result in results}
    for result in results:
        cells = [result.row.title]
        if paper:
            cells.append(f'{result.row.paper:.1f}' if result.row.paper else '')
        cells += [f'{result.summary.mean:.2f}', _unless_nan(result.summary.deviation, '.2f'), str(result.summary.count)]
        if result.comparison and result.row.against:
            c = result.comparison
            significant = result.corrected_p < SIGNIFICANCE  # False for nan
            cells += [titles[result.row.against], f'{c.difference.mean:+.2f}{"*" if significant else " "}']
            cells += [f'{c.low:+.2f} to {c.high:+.2f}' if c.high < math.inf else '']
            cells += [_unless_nan(c.p, '.3f'), _unless_nan(result.corrected_p, '.3f')]
            if len(result.single) == 1:
                cells += [f'{single.p:.3f}' for single in result.single.values()]
        table.add_row(*cells)
    return table


def _unless_nan(value: float, form: str) -> str:
    return '' if value != value else format(value, form)


def as_json(found: dict[str, list[RowResult]]) -> dict[str, Any]:
    """All figures as a tree of numbers; what is not defined for so few runs is None."""
    finite = lambda value: value if abs(value) < float('inf') else None  # nan neither
    tree: dict[str, Any] = {}
    for name, results in found.items():
        for result in results:
            entry: dict[str, Any] = {
                'title': result.row.title,
                'paper': result.row.paper,
                'values': result.values,
                'mean': result.summary.mean,
                'deviation': finite(result.summary.deviation),
            }
            if result.comparison:
                c = result.comparison
                entry['against'] = result.row.against
                entry['difference'] = {
                    'mean': c.difference.mean,
                    'deviation': finite(c.difference.deviation),
                    'seeds': c.difference.count,
                    'images': c.images,
                    'interval': [finite(c.low), finite(c.high)],
                    'p': finite(c.p),
                    'p_holm': finite(result.corrected_p),
                    'mcnemar': {str(seed): asdict(single) for seed, single in result.single.items()},
                }
            tree.setdefault(name, {})[result.row.name] = entry
    return json.loads(json.dumps(tree))


if __name__ == '__main__':
    cli.run(main, trains=True)
