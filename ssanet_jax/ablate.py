"""Trains the rows of one of the paper's tables with several seeds, and prints means and paired comparisons.

    python -m ssanet_jax.ablate --config=configs/demo.py:ablation --table=3 --seeds=5

Trains only the runs that are missing: the same command resumes after a kill, and more seeds add to the table. Rows
with the same first stages share them. The same command started a second time on the machine takes the seeds that the
first is not working on. docs/experiments.md lists the tables.
"""

import json
import math
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags
from rich.console import Console
from rich.table import Table

from ssanet_jax import cli
from ssanet_jax.experiments.ablation import (
    MEASURED,
    METRICS,
    Ablation,
    Metric,
    RowResult,
    collect,
    measure_rows,
    train_rows,
)
from ssanet_jax.experiments.tables import TABLES
from ssanet_jax.runs.files import RESULTS_FILE, write_json
from ssanet_jax.runs.workdir import WorkdirLocked, lock_workdir

_CONFIG = config_flags.DEFINE_config_file('config', None, 'Configuration of full SSANet.', lock_config=True)
_TABLE = flags.DEFINE_enum('table', '3', list(TABLES), 'Rows to train.')
_SEEDS = flags.DEFINE_integer('seeds', 3, 'Runs of each row, with the seeds 0, 1, ...', lower_bound=1)
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Folder of all runs; by default runs/ablate and the name of the config.'
)
_MEASURE = flags.DEFINE_multi_enum('measure', [], list(MEASURED), 'Measure this of each run too; may be given twice.')
flags.mark_flag_as_required('config')


def main() -> None:
    """Trains, measures, and prints the tables; the last line on stdout says how many runs there are."""
    ablation = Ablation(_CONFIG.value, Path(_WORKDIR.value or f'runs/ablate/{cli.config_name()}'))
    table, seeds = TABLES[_TABLE.value], range(_SEEDS.value)
    notes = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    for seed in seeds:
        try:
            with lock_workdir(ablation.seed_dir(seed)):
                train_rows(ablation, table.rows, seed, notes)
                measure_rows(ablation, table.rows, seed, _MEASURE.value, notes)
        except WorkdirLocked:
            notes.print(f'seed {seed} is left to the process that works on it', style='yellow')

    files = {RESULTS_FILE, *(f'{name}.json' for name in _MEASURE.value)}
    found = {metric.name: collect(ablation, table.rows, seeds, metric) for metric in METRICS}
    found = {name: results for name, results in found.items() if results}
    asked = [metric.name for metric in METRICS if metric.file in files and metric.name in found]
    print_tables(table.title, {name: found[name] for name in asked})
    write_json(ablation.root / f'table_{_TABLE.value}.json', as_json(found))
    runs = sum(len(result.values) for result in found.get('accuracy', []))
    print(f'{runs} of {len(seeds) * len(table.rows)} runs are finished: see {ablation.root}')


def print_tables(title: str, found: dict[str, list[RowResult]]) -> None:
    """Prints one table per metric, with the paper's accuracy beside ours."""
    console = Console(highlight=False, markup=False)
    metrics = {metric.name: metric for metric in METRICS}
    for name, results in found.items():
        console.print(_table(title, metrics[name], results))
    console.print(
        '±: deviation of one run from the mean. Difference: run by run with the same seed, with the interval that '
        'holds the true one with 95 % confidence; * where that leaves out 0, as one in twenty does by chance.'
    )


def _table(title: str, metric: Metric, results: list[RowResult]) -> Table:
    table = Table(title=f'{title}: {metric.name}{", %" if metric.percent else ""}')
    paper = metric.name == 'accuracy' and any(result.row.paper for result in results)
    for heading in ('', *(['paper'] if paper else []), 'mean', '±', 'runs', 'against', 'difference', '95 %', 'p'):
        table.add_column(heading, justify='left' if heading in ('', 'against') else 'right')
    titles = {result.row.name: result.row.title for result in results}
    for result in results:
        cells = [result.row.title]
        if paper:
            cells.append(f'{result.row.paper:.1f}' if result.row.paper else '')
        cells += [f'{result.summary.mean:.2f}', _unless_nan(result.summary.deviation, '.2f'), str(result.summary.count)]
        if result.comparison and result.row.against:
            c = result.comparison
            cells += [titles[result.row.against], f'{c.difference.mean:+.2f}{"*" if c.significant else " "}']
            cells += [f'{c.low:+.2f} to {c.high:+.2f}' if c.high < math.inf else '', _unless_nan(c.p, '.3f')]
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
                    'interval': [finite(c.low), finite(c.high)],
                    'p': finite(c.p),
                }
            tree.setdefault(name, {})[result.row.name] = entry
    return json.loads(json.dumps(tree))


if __name__ == '__main__':
    cli.run(main)
