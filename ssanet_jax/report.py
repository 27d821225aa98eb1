"""Writes one page about a run, to read, print or mail: results, learning curves, parts, mistakes, settings.

    python -m ssanet_jax.report --workdir=runs/cub

The page, `report.html` in the run's folder, needs neither network nor other files: pictures and drawings are in it.
Robustness and key points are in it if `ssanet_jax.measure` was run before. docs/experiments.md says what is shown.
"""

from datetime import date
from pathlib import Path

from absl import flags
from rich.console import Console

import ssanet_jax
from ssanet_jax import command, parallel
from ssanet_jax.data import dataset as datasets
from ssanet_jax.errors import UserError
from ssanet_jax.evaluation import report_answers, report_files, report_run
from ssanet_jax.evaluation.curves import learning_curves
from ssanet_jax.evaluation.mistakes import answer_all
from ssanet_jax.evaluation.page import Section, page
from ssanet_jax.evaluation.report_facts import Facts
from ssanet_jax.evaluation.responses import Responses, check_comparable, measure_responses
from ssanet_jax.training import experiment, run_files
from ssanet_jax.whole_files import check_out, write_out

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of a trained run.', required=True)
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'Where the data lies now, if not in the config.data.dir of the run.')
_COMPARE = flags.DEFINE_string(
    'compare', None, 'Folder of a run without oriented pooling, whose maps to show beside those of this one.'
)
_OUT = flags.DEFINE_string('out', None, 'File to write; by default report.html in the folder of the run.')

SECTIONS = (
    ('results', 'Results', report_run.results),
    ('curves', 'Learning curves', report_run.curves),
    ('robustness', 'Robustness', report_run.robustness),
    ('keypoints', 'Key points', report_run.keypoints),
    ('sharing', 'Ways to share', report_run.sharing),
    ('parts', 'Parts', report_answers.parts),
    ('annotated', 'Parts among key points', report_answers.annotated),
    ('responses', 'Oriented pooling', report_answers.responses),
    ('confusion', 'Confusion', report_answers.confusion),
    ('mistakes', 'Mistakes', report_answers.errors),
    ('reading', 'Reading', report_answers.reading),
    ('data', 'Data', report_run.data),
    ('settings', 'Settings', report_run.settings),
)


def main(arguments: list[str]) -> None:
    """Writes the page; the last line on stdout names it."""
    if arguments:
        raise UserError(f'{arguments[0]!r} is no flag: see --help')
    workdir = Path(_WORKDIR.value)
    run = experiment.load_run(workdir)
    out = Path(_OUT.value) if _OUT.value else workdir / 'report.html'
    check_out(out)  # before minutes of work
    dataset = experiment.dataset_of(run, workdir, _DATA_DIR.value)

    console = Console(stderr=True)
    other = None
    if _COMPARE.value:
        try:
            other = experiment.load_run(Path(_COMPARE.value))
            check_comparable(run, other)
        except UserError as error:
            raise UserError(f'--compare={_COMPARE.value}: {error}') from error
    facts = gather(workdir, run, dataset, console, other)
    with console.status('drawing'):
        content = page(
            f'{dataset.name}: {workdir.resolve().name}',
            report_run.lead(facts),
            [Section(key, title, body(facts)) for key, title, body in SECTIONS],
            f'Written by ssanet_jax {ssanet_jax.__version__} on {date.today()}.',
        )
    write_out(out, content)
    print(f'report written: {out}')


def gather(
    workdir: Path,
    run: experiment.Run,
    dataset: datasets.Dataset,
    console: Console,
    other: experiment.Run | None = None,
) -> Facts:
    """Reads what the run noted, and asks its network about every test image.

    Raises:
      UserError: a file of the run is damaged.
    """
    stages = [row['name'] for row in run.config.stages]
    read_stage = lambda name: report_files.read_result(
        workdir / name / 'evaluation.json', report_files.STAGE, report_files.STAGE_DEFAULTS
    )
    ended = {name: result for name in stages if (result := read_stage(name)) is not None}
    results = report_files.read_result(
        workdir / run_files.RESULTS_FILE, report_files.RESULTS, report_files.RESULTS_DEFAULTS
    )
    best = None  # of a training under way
    if results is None:
        best = report_files.read_result(workdir / run.stage / 'best.json', {'step': report_files.COUNT}, {})
    measured = report_run.read_measured(workdir)
    begun = {name: experiment.stage_steps(workdir, name) for name in stages}
    curves = learning_curves(workdir, run.config.stages)
    damaged = report_files.damaged_histories(workdir, list(ended))
    mesh = parallel.make_mesh(images=run.config.data.eval_batch_size)
    return Facts(
        workdir=workdir,
        settings=run_files.read_run(workdir)['config'],
        run=run,
        dataset=dataset,
        answers=answer_all(run, dataset, mesh, console),
        results=results,
        stages=ended,
        steps={name: steps[-1] for name, steps in begun.items() if steps},
        chosen=best['step'] if best else None,
        measured=measured,
        curves=curves,
        damaged=damaged,
        responses=_responses(run, dataset, console, other),
    )


def _responses(
    run: experiment.Run, dataset: datasets.Dataset, console: Console, other: experiment.Run | None
) -> Responses | None:
    if 'oriented_pooling' not in run.active:
        return None
    try:
        return measure_responses(run, dataset, console, other)
    except UserError:  # too few test images
        if other is not None:
            raise
        return None


if __name__ == '__main__':
    command.run(main)
