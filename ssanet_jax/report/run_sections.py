"""Sections of the report about the run: its header, results, learning curves, data and settings."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats
from markupsafe import Markup

from ssanet_jax.data.pipeline import num_steps
from ssanet_jax.evaluation.accuracy import HEADS
from ssanet_jax.report.charts import CurveStyle, curve_style, learning_curves_chart
from ssanet_jax.report.curves import TRAINING_BATCHES, TRAINING_LOSS, Line
from ssanet_jax.report.inputs import ReportInputs
from ssanet_jax.report.predictions import class_accuracy, unreadable_images
from ssanet_jax.report.rendering import Bar, Table
from ssanet_jax.runs.history import PREDICTION
from ssanet_jax.runs.results import unreadable_line

FEW_CLASSES = 20  # up to this number, the table of all classes is open from the start


@dataclass(frozen=True)
class Figure:
    """A figure of the header, such as the accuracy."""

    name: str
    value: str
    note: str = ''


@dataclass(frozen=True)
class Header:
    """The head of the page.

    Attributes:
      title: its title.
      subtitle: the network and the run.
      warning: empty for a finished run.
      figures: the key figures.
      unreadable: `unreadable_line` of the accuracy; empty if every image could be read.
    """

    title: str
    subtitle: str
    warning: str
    figures: list[Figure]
    unreadable: str = ''


def header(inputs: ReportInputs) -> Header:
    """Title and key figures."""
    run, result, predictions = inputs.run, inputs.result, inputs.predictions
    config = run.config
    if result:
        accuracy, images, problems = result.accuracy, result.examples, result.unreadable
    else:
        problems = unreadable_images(inputs.dataset, predictions)
        accuracy, images = float((predictions.predicted == predictions.labels).mean()), len(predictions.labels)
    low, high = confidence_interval(accuracy, images)
    figures = [
        Figure(
            'accuracy' if result else 'accuracy so far',
            f'{accuracy:.4f}',
            f'{low:.3f} to {high:.3f}, 95 % interval for {images:,} images',
        ),
        Figure('classes', f'{len(run.class_names):,}'),
        Figure('training images', f'{len(inputs.dataset.train):,}'),
        Figure('test images', f'{len(inputs.dataset.test):,}'),
    ]
    if result:
        figures.append(Figure('training time', format_duration(result.wall_seconds), f'on {result.device}'))
    subtitle = (
        f'{config.model.backbone} at {config.data.image_size} pixels, the network after stage {run.stage}; '
        f'run {inputs.workdir.resolve().name}'
    )
    warning = '' if result else _unfinished_warning(inputs)
    return Header(inputs.dataset.name, subtitle, warning, figures, unreadable_line(problems, images))


def confidence_interval(accuracy: float, images: int) -> tuple[float, float]:
    """Wilson's 95 % confidence interval of an accuracy measured on this many independent images."""
    interval = scipy.stats.binomtest(round(accuracy * images), images).proportion_ci(0.95, method='wilson')
    return float(interval.low), float(interval.high)


def _unfinished_warning(inputs: ReportInputs) -> str:
    run, stages = inputs.run, list(inputs.run.config.stages)
    number = 1 + [stage['name'] for stage in stages].index(run.stage)
    step, total = inputs.steps[run.stage], _stage_steps(inputs, stages[number - 1])
    progress = 'is finished' if run.finished else f'is at step {step:,} of {total:,}'
    network = 'the newest checkpoint'
    if inputs.best_step is not None:
        network = f'the network at step {inputs.best_step:,}, the best so far on the validation images'
    return (
        f'The training of this run is not finished: stage {number} of {len(stages)}, {run.stage}, {progress}. '
        f'This report is about {network}.'
    )


@dataclass(frozen=True)
class ResultsSection:
    """Results; `unreadable`, `warning`, `stopped` and `provenance` may be empty."""

    table: Table
    unreadable: str
    warning: str
    stopped: list[str]  # why stages stopped early, a line for each
    provenance: str


def results_section(inputs: ReportInputs) -> ResultsSection:
    """The accuracy of every head after every stage."""
    results, final = inputs.stage_results, inputs.result
    heads = _sort_heads({head for result in [*results.values(), *([final] if final else [])] for head in result.heads})
    splits = {result.split for result in results.values()}
    cell = lambda accuracy: '' if accuracy is None else f'{accuracy:.4f}'
    rows: list[list[str]] = []
    for stage in inputs.run.config.stages:
        name, epochs = stage['name'], f'{stage["epochs"]:g}'
        result = results.get(name)
        if result is None:
            progress = f'{inputs.steps.get(name, 0):,} of {_stage_steps(inputs, stage):,}'
            rows.append([name, *([''] * (len(heads) + 1)), epochs, progress, ''])
            continue
        accuracies = [cell(result.heads.get(head)) for head in heads]
        duration = format_duration(result.wall_seconds)
        if result.stopped_early:
            epochs = f'{result.epochs} of {epochs}'
        rows.append([name, cell(result.accuracy), *accuracies, epochs, f'{result.steps:,}', duration])
    if splits == {'validation'} and final:
        accuracies = [cell(final.heads.get(head)) for head in heads]
        duration = format_duration(final.wall_seconds)
        rows.append(['test images, once at the end', cell(final.accuracy), *accuracies, '', '', duration])
    split = 'validation' if 'validation' in splits else 'test'
    headings = ['after stage', 'accuracy', *(_head_name(inputs, head) for head in heads), 'epochs', 'steps', 'time']
    caption = f'Accuracy on the {split} images: of the prediction, the sum of the fused heads, then of each head alone.'
    lines = {unreadable_line(result.unreadable, result.examples) for result in results.values()}
    unreadable = '; '.join(sorted(filter(None, lines)))
    stopped = [f'Stage {name} {result.stopped_early}.' for name, result in results.items() if result.stopped_early]
    table = Table(headings, rows, caption)
    return ResultsSection(table, unreadable, _deviation_warning(inputs), stopped, _provenance(inputs))


def _deviation_warning(inputs: ReportInputs) -> str:
    """A warning if the predictions for this report disagree with the recorded accuracy."""
    correct = inputs.predictions.predicted == inputs.predictions.labels
    accuracy = float(correct.mean())
    if inputs.result is None or abs(accuracy - inputs.result.accuracy) <= 0.5 / len(correct):
        return ''
    return (
        f'Evaluated again for this report, the network has accuracy {accuracy:.4f} on {len(correct):,} test images: '
        'the data, the software or the device has changed since the training.'
    )


def _provenance(inputs: ReportInputs) -> str:
    if inputs.result is None:
        return ''
    versions = [f'{name} {version}' for name, version in inputs.result.versions.items()]
    return f'Trained with {", ".join([f"seed {inputs.result.seed}, on {inputs.result.device}", *versions])}.'


@dataclass(frozen=True)
class CurveChart:
    """A chart; `legend` holds the names and styles of its curves."""

    title: str
    legend: list[tuple[str, CurveStyle]]
    svg: Markup


@dataclass(frozen=True)
class CurvesSection:
    """Learning curves; `warning` and `note` may be empty."""

    warning: str
    charts: list[CurveChart]
    note: str


def curves_section(inputs: ReportInputs) -> CurvesSection | str:
    """Accuracy and loss over epochs."""
    curves = inputs.curves
    warning = ''
    if inputs.damaged_histories:
        warning = f'Damaged and left out: {", ".join(inputs.damaged_histories)}.'
    if curves is None:
        if warning:
            return CurvesSection(warning, [], '')
        return 'This run was trained by an early version that recorded no history, so there are no learning curves.'
    if not any(curves.loss) and all(sum(map(len, lines)) <= 1 for lines in curves.accuracy.values()) and not warning:
        return 'The classifiers were fitted by L-BFGS and evaluated once, so there are no learning curves.'
    heads = _sort_heads(curves.accuracy.keys() - {PREDICTION, TRAINING_BATCHES})
    names = [name for name in [PREDICTION, *heads, TRAINING_BATCHES] if name in curves.accuracy]
    charts: list[CurveChart] = []
    contents: list[tuple[str, Mapping[str, list[Line]]]] = [
        (f'Accuracy on {curves.split} images', {name: curves.accuracy[name] for name in names}),
        ('Training loss', {TRAINING_LOSS: curves.loss}),
    ]
    for title, lines in contents:
        if any(line for of_curve in lines.values() for line in of_curve):
            legend = [(_head_name(inputs, name), curve_style(name)) for name in lines]
            charts.append(
                CurveChart(title, legend, learning_curves_chart(f'{title} over epochs', lines, curves.stages))
            )
    note = f'The loss and “{TRAINING_BATCHES}” are means over an epoch, on augmented images and while weights change.'
    if len(curves.stages) > 1:
        numbered = ', '.join(f'{number} {name}' for number, (name, _) in enumerate(curves.stages, 1))
        note = f'Stages: {numbered}. They weigh losses differently, so their losses are not comparable. {note}'
    return CurvesSection(warning, charts, note)


@dataclass(frozen=True)
class DataSection:
    """The data set in numbers."""

    splits: Table
    fields: dict[str, str]
    classes_title: str
    classes_open: bool
    classes: Table


def data_section(inputs: ReportInputs) -> DataSection:
    """The number of images, in total and of each class."""
    dataset, names = inputs.dataset, inputs.run.class_names
    sources = {'training': dataset.train, 'validation': dataset.validation, 'test': dataset.test}
    counts = {
        name: np.bincount(source.labels, minlength=len(names)) for name, source in sources.items() if source is not None
    }
    splits = [[name, f'{n.sum():,}', n.min(), f'{np.median(n):g}', n.max()] for name, n in counts.items()]
    accuracy = class_accuracy(inputs.predictions, len(names))
    classes = [
        [
            name,
            *(n[label] for n in counts.values()),
            '' if np.isnan(accuracy[label]) else f'{accuracy[label]:.3f}',
            Bar(float(np.nan_to_num(accuracy[label]))),
        ]
        for label, name in enumerate(names)
    ]
    caption = f'{dataset.name}: number of images, in total and per class'
    return DataSection(
        splits=Table(['', 'images', 'fewest', 'median', 'most'], splits, caption),
        fields={
            'folder': inputs.run.config.data.get('dir') or '',
            'key points': ', '.join(dataset.keypoint_names),
        },
        classes_title=f'All {len(names):,} classes',
        classes_open=len(names) <= FEW_CLASSES,
        classes=Table(['class', *counts, 'accuracy', ''], classes),
    )


@dataclass(frozen=True)
class SettingsSection:
    """The configuration, its stages apart."""

    fields: dict[str, Any]  # outside of any group
    groups: dict[str, Mapping[str, Any]]
    stages: list[Mapping[str, Any]]


def settings_section(inputs: ReportInputs) -> SettingsSection:
    """Every field of the configuration."""
    groups = {name: value for name, value in inputs.settings.items() if isinstance(value, Mapping)}
    fields = {name: value for name, value in inputs.settings.items() if name not in groups and name != 'stages'}
    return SettingsSection(fields, groups, inputs.settings['stages'])


def format_duration(seconds: float) -> str:
    """'42 s', '12 min 5 s', '1 h 1 min'."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f'{hours:,} h {minutes} min'
    return f'{minutes} min {rest} s' if minutes else f'{rest} s'


def _stage_steps(inputs: ReportInputs, stage: Mapping[str, Any]) -> int:
    return num_steps(stage['epochs'], len(inputs.dataset.train), inputs.run.config.data.batch_size)


def _sort_heads(heads: Iterable[str]) -> list[str]:
    return sorted(heads, key=lambda head: (HEADS.index(head) if head in HEADS else len(HEADS), head))


def _head_name(inputs: ReportInputs, head: str) -> str:
    if head == 'scale_mining' and inputs.run.config.model.get('num_scales') == 1:
        return 'parts'  # no scale is mined: it is a classifier of the parts
    return head.replace('_', ' ')
