"""Writes a report about a run as one HTML file: results, learning curves, parts, mistakes and settings.

    python -m ssanet_jax.report --workdir=runs/cub

The file, `report.html` in the work directory, needs no network and no other file: pictures and charts are embedded.
It includes robustness and key points if `ssanet_jax.measure` has measured them. docs/experiments.md describes the
sections.
"""

from datetime import date
from pathlib import Path

from rich.console import Console

import ssanet_jax
from ssanet_jax import cli
from ssanet_jax.activity import activity
from ssanet_jax.cli import check_out, write_out
from ssanet_jax.data.dataset import Dataset
from ssanet_jax.distributed import sharding
from ssanet_jax.errors import UserError
from ssanet_jax.path_flags import define_path
from ssanet_jax.plain_text import PlainConsole
from ssanet_jax.printable import printable
from ssanet_jax.report import (
    confidence_section,
    explained_section,
    measurement_sections,
    prediction_sections,
    run_sections,
)
from ssanet_jax.report.curves import learning_curves
from ssanet_jax.report.inputs import ReportInputs
from ssanet_jax.report.part_similarity import PartSimilarity, check_comparable, compare_parts
from ssanet_jax.report.predictions import predict_test_set
from ssanet_jax.report.rendering import Section, render_report
from ssanet_jax.report.result_files import BestStep, RunSummary, damaged_histories, read_stage_summaries, read_summary
from ssanet_jax.runs.checkpoints import stage_steps
from ssanet_jax.runs.evaluation_count import count_test_evaluation, evaluation_count_line
from ssanet_jax.runs.files import RESULTS_FILE, read_run
from ssanet_jax.runs.run import Run, dataset_of, load_run

_WORKDIR = define_path('workdir', None, 'Folder of a trained run.', required=True)
_DATA_DIR = define_path('data_dir', None, 'Folder of the data, if it is no longer config.data.dir of the run.')
_COMPARE = define_path(
    'compare', None, 'Folder of a run without oriented pooling, whose maps are shown beside those of this run.'
)
_OUT = define_path('out', None, 'File to write; by default report.html in the folder of the run.')

SECTIONS = (  # id, title, template, function that makes the content
    ('results', 'Results', 'results', run_sections.results_section),
    ('curves', 'Learning curves', 'curves', run_sections.curves_section),
    ('robustness', 'Robustness', 'measurement', measurement_sections.robustness_section),
    ('keypoints', 'Key points', 'measurement', measurement_sections.keypoints_section),
    ('sharing', 'Sharing of features', 'measurement', measurement_sections.sharing_section),
    ('parts', 'Parts', 'parts', prediction_sections.parts_section),
    ('explained', 'Explanations', 'explained', explained_section.explained_section),
    ('attention', 'Attention of the prototypes', 'annotated', prediction_sections.attention_section),
    ('annotated', 'Parts among key points', 'annotated', prediction_sections.annotated_section),
    ('responses', 'Oriented pooling', 'similarity', prediction_sections.similarity_section),
    ('confidence', 'Confidence', 'confidence', confidence_section.confidence_section),
    ('confusion', 'Confusion', 'confusion', prediction_sections.confusion_section),
    ('mistakes', 'Mistakes', 'mistakes', prediction_sections.mistakes_section),
    ('reading', 'Loading time', 'loading', prediction_sections.loading_section),
    ('data', 'Data', 'data', run_sections.data_section),
    ('settings', 'Settings', 'settings', run_sections.settings_section),
)


def main() -> None:
    """Writes the report; the last line on stdout names the file."""
    workdir = _WORKDIR.value
    run = load_run(workdir, data_dir=_DATA_DIR.value)
    out = _OUT.value or workdir / 'report.html'
    check_out(out)  # before minutes of work
    dataset = dataset_of(run, workdir)

    console = PlainConsole(stderr=True)
    other = None
    if _COMPARE.value:
        try:
            other = load_run(_COMPARE.value)
            check_comparable(run, other)
        except UserError as error:
            raise UserError(f'--compare={_COMPARE.value}: {error}') from error
    inputs = collect_inputs(workdir, run, dataset, console, other)
    _count_evaluation(workdir, console)
    with activity(console, 'drawing the sections'):
        content = render_report(
            f'{dataset.name}: {workdir.resolve().name}',
            run_sections.header(inputs),
            [Section(id, title, f'{template}.html.j2', make(inputs)) for id, title, template, make in SECTIONS],
            f'Written by ssanet_jax {ssanet_jax.__version__} on {date.today()}.',
        )
    write_out(out, content)
    print(printable(f'report written: {out}'))


def _count_evaluation(workdir: Path, console: Console) -> None:
    """Counts the evaluation on the test images; a run that may only be read can be reported all the same."""
    try:
        count_test_evaluation(workdir, 'report')
        console.print(evaluation_count_line(workdir), highlight=False, soft_wrap=True)
    except UserError as error:
        console.print(f'not counted: {error}', style='yellow', highlight=False, soft_wrap=True)


def collect_inputs(
    workdir: Path,
    run: Run,
    dataset: Dataset,
    console: Console,
    other: Run | None = None,
) -> ReportInputs:
    """Reads the files of the run and predicts every test image.

    Raises:
      UserError: a file of the run is damaged.
    """
    stages = [stage['name'] for stage in run.config.stages]
    stage_results = read_stage_summaries(workdir, stages)
    result = read_summary(workdir / RESULTS_FILE, RunSummary)
    best = None if result else read_summary(workdir / run.stage / 'best.json', BestStep)
    measurements = measurement_sections.read_measurements(workdir)
    saved_steps = {name: stage_steps(workdir, name) for name in stages}
    ended = {name: found.epochs for name, found in stage_results.items() if found.stopped_early}
    curves = learning_curves(workdir, run.config.stages, ended)
    damaged = damaged_histories(workdir, stages, stage_results.keys())
    mesh = sharding.make_mesh(images=run.config.data.eval_batch_size)
    return ReportInputs(
        workdir=workdir,
        settings=read_run(workdir)['config'],
        run=run,
        dataset=dataset,
        predictions=predict_test_set(run, dataset, mesh, console),
        result=result,
        stage_results=stage_results,
        steps={name: steps[-1] for name, steps in saved_steps.items() if steps},
        best_step=best.step if best else None,
        measurements=measurements,
        curves=curves,
        damaged_histories=damaged,
        similarity=_part_similarity(run, dataset, console, other),
    )


def _part_similarity(run: Run, dataset: Dataset, console: Console, other: Run | None) -> PartSimilarity | None:
    if 'oriented_pooling' not in run.active:
        return None
    try:
        return compare_parts(run, dataset, console, other)
    except UserError:  # too few test images
        if other is not None:
            raise
        return None


if __name__ == '__main__':
    cli.run(main)
