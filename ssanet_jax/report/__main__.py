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
from ssanet_jax import cli
from ssanet_jax.cli import check_out, write_out
from ssanet_jax.data.dataset import Dataset
from ssanet_jax.distributed import sharding
from ssanet_jax.errors import UserError
from ssanet_jax.report import answer_sections, files, run_sections
from ssanet_jax.report.answers import answer_all
from ssanet_jax.report.curves import learning_curves
from ssanet_jax.report.facts import Facts
from ssanet_jax.report.page import Section, page
from ssanet_jax.report.responses import Responses, check_comparable, measure_responses
from ssanet_jax.runs.checkpoints import stage_steps
from ssanet_jax.runs.files import RESULTS_FILE, read_run
from ssanet_jax.runs.run import Run, dataset_of, load_run

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of a trained run.', required=True)
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'Where the data lies now, if not in the config.data.dir of the run.')
_COMPARE = flags.DEFINE_string(
    'compare', None, 'Folder of a run without oriented pooling, whose maps to show beside those of this one.'
)
_OUT = flags.DEFINE_string('out', None, 'File to write; by default report.html in the folder of the run.')

SECTIONS = (
    ('results', 'Results', run_sections.results),
    ('curves', 'Learning curves', run_sections.curves),
    ('robustness', 'Robustness', run_sections.robustness),
    ('keypoints', 'Key points', run_sections.keypoints),
    ('sharing', 'Ways to share', run_sections.sharing),
    ('parts', 'Parts', answer_sections.parts),
    ('annotated', 'Parts among key points', answer_sections.annotated),
    ('responses', 'Oriented pooling', answer_sections.responses),
    ('confusion', 'Confusion', answer_sections.confusion),
    ('mistakes', 'Mistakes', answer_sections.errors),
    ('reading', 'Reading', answer_sections.reading),
    ('data', 'Data', run_sections.data),
    ('settings', 'Settings', run_sections.settings),
)


def main(arguments: list[str]) -> None:
    """Writes the page; the last line on stdout names it."""
    if arguments:
        raise UserError(f'{arguments[0]!r} is no flag: see --help')
    workdir = Path(_WORKDIR.value)
    run = load_run(workdir, data_dir=_DATA_DIR.value)
    out = Path(_OUT.value) if _OUT.value else workdir / 'report.html'
    check_out(out)  # before minutes of work
    dataset = dataset_of(run, workdir)

    console = Console(stderr=True)
    other = None
    if _COMPARE.value:
        try:
            other = load_run(Path(_COMPARE.value))
            check_comparable(run, other)
        except UserError as error:
            raise UserError(f'--compare={_COMPARE.value}: {error}') from error
    facts = gather(workdir, run, dataset, console, other)
    with console.status('drawing'):
        content = page(
            f'{dataset.name}: {workdir.resolve().name}',
            run_sections.lead(facts),
            [Section(key, title, body(facts)) for key, title, body in SECTIONS],
            f'Written by ssanet_jax {ssanet_jax.__version__} on {date.today()}.',
        )
    write_out(out, content)
    print(f'report written: {out}')


def gather(
    workdir: Path,
    run: Run,
    dataset: Dataset,
    console: Console,
    other: Run | None = None,
) -> Facts:
    """Reads what the run noted, and asks its network about every test image.

    Raises:
      UserError: a file of the run is damaged.
    """
    stages = [row['name'] for row in run.config.stages]
    read_stage = lambda name: files.read_result(workdir / name / 'evaluation.json', files.STAGE, files.STAGE_DEFAULTS)
    ended = {name: result for name in stages if (result := read_stage(name)) is not None}
    results = files.read_result(workdir / RESULTS_FILE, files.RESULTS, files.RESULTS_DEFAULTS)
    best = None  # of a training under way
    if results is None:
        best = files.read_result(workdir / run.stage / 'best.json', {'step': files.COUNT}, {})
    measured = run_sections.read_measured(workdir)
    begun = {name: stage_steps(workdir, name) for name in stages}
    curves = learning_curves(workdir, run.config.stages)
    damaged = files.damaged_histories(workdir, list(ended))
    mesh = sharding.make_mesh(images=run.config.data.eval_batch_size)
    return Facts(
        workdir=workdir,
        settings=read_run(workdir)['config'],
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


def _responses(run: Run, dataset: Dataset, console: Console, other: Run | None) -> Responses | None:
    if 'oriented_pooling' not in run.active:
        return None
    try:
        return measure_responses(run, dataset, console, other)
    except UserError:  # too few test images
        if other is not None:
            raise
        return None


if __name__ == '__main__':
    cli.run(main)
