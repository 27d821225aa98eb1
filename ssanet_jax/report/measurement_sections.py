"""Sections of the report about what `ssanet_jax.measure` wrote: robustness, key points, ways of sharing features."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.robustness import ORIGINAL
from ssanet_jax.experiments.measurements import CENTER
from ssanet_jax.report.inputs import ReportInputs
from ssanet_jax.report.rendering import Bar, Table
from ssanet_jax.report.result_files import MEASURE_AGAIN
from ssanet_jax.runs.files import read_json


@dataclass(frozen=True)
class MeasurementSection:
    """A measurement, or the command that makes it.

    Attributes:
      command: empty if the measurement exists.
      table: None without a measurement.
      details: a further table, folded.
      details_title: its summary.
      warning: empty if the measurement is of this stage and data set.
    """

    command: str = ''
    table: Table | None = None
    details: Table | None = None
    details_title: str = ''
    warning: str = ''


def read_measurements(workdir: Path) -> dict[str, dict[str, Any]]:
    """Reads the files that `ssanet_jax.measure` wrote to a work directory, by name of the measurement.

    Raises:
      UserError: a file is damaged, or its content cannot be shown.
    """
    measurements = {}
    for name, make_section in _SECTIONS.items():
        path = workdir / f'{name}.json'
        content = read_json(path, MEASURE_AGAIN)
        if content is None:
            continue
        try:
            make_section(content)  # fails now instead of after minutes of other work
            if not all(isinstance(content[field], str) for field in ('stage', 'dataset')):
                raise TypeError('stage and dataset must be strings')
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
            raise UserError(f'{path} is damaged or of another version: {MEASURE_AGAIN}') from error
        measurements[name] = content
    return measurements


def robustness_section(inputs: ReportInputs) -> MeasurementSection:
    """Accuracy on rotated and downscaled images."""
    return _measurement_section(inputs, 'robustness')


def keypoints_section(inputs: ReportInputs) -> MeasurementSection | str:
    """Distances from parts to key points."""
    if not inputs.dataset.keypoint_names:
        return 'This data set has no key points.'
    if 'proposals' not in inputs.run.active:
        return 'This network does not locate parts.'
    return _measurement_section(inputs, 'keypoints')


def sharing_section(inputs: ReportInputs) -> MeasurementSection | str:
    """Accuracy and latency of each way of sharing features."""
    if 'proposals' not in inputs.run.active:
        return 'This network does not locate parts.'
    return _measurement_section(inputs, 'sharing')


def _measurement_section(inputs: ReportInputs, name: str) -> MeasurementSection:
    content = inputs.measurements.get(name)
    if content is None:
        workdir = shlex.quote(str(inputs.workdir))
        return MeasurementSection(command=f'python -m ssanet_jax.measure --workdir={workdir} --only={name}')
    section = _SECTIONS[name](content)
    if (content['stage'], content['dataset']) != (inputs.run.stage, inputs.dataset.name):
        return replace(section, warning=f'Measured after stage {content["stage"]}, on {content["dataset"]}.')
    return section


def _robustness(content: Mapping[str, Any]) -> MeasurementSection:
    rows = [
        [name, f'{accuracy:.4f}', '' if name == ORIGINAL else f'{content["drop"][name]:.1f}', Bar(accuracy)]
        for name, accuracy in content['accuracy'].items()
    ]
    caption = f'Accuracy on {content["examples"]:,} rotated or downscaled test images'
    return MeasurementSection(table=Table(['input', 'accuracy', 'drop, points', ''], rows, caption))


def _keypoints(content: Mapping[str, Any]) -> MeasurementSection:
    measured = content['boxes']
    fields = {
        'distance, pixels': ('distance', '.2f'),
        'distance / diagonal of the object': ('distance_share', '.4f'),
        'centers inside the object': ('inside', '.4f'),
        'consistency': ('consistency', '.4f'),
        'consistency, parts shuffled': ('consistency_shuffled', '.4f'),
    }
    rows = [
        [title, *(format(of_boxes[field], digits) for of_boxes in measured.values())]
        for title, (field, digits) in fields.items()
    ]
    caption = (
        f'From the centers of the parts to the nearest visible key point, in {content["images"]:,} test images '
        f'of {content["image_size"]} pixels'
    )
    name, last = [(name, boxes) for name, boxes in measured.items() if name != CENTER][-1]
    num_parts = len(last['nearest'])
    nearest = [
        [point, *(f'{100 * last["nearest"][part][index]:.0f}' for part in range(num_parts))]
        for index, point in enumerate(content['keypoint_names'])
    ]
    return MeasurementSection(
        table=Table(['', *measured], rows, caption),
        details=Table(
            ['key point', *(f'part {part + 1}' for part in range(num_parts))],
            nearest,
            f'Percentage of the images in which the key point is the one nearest to the part ({name})',
        ),
        details_title='Nearest key points of each part',
    )


def _sharing(content: Mapping[str, Any]) -> MeasurementSection:
    baseline = content['global_pooling']
    batches = list(baseline['milliseconds'])

    def latencies(milliseconds: Mapping[str, float]) -> list[str]:
        return [f'{milliseconds[b]:.1f} ({milliseconds[b] / baseline["milliseconds"][b]:.2f})' for b in batches]

    accuracy = '' if baseline['accuracy'] is None else f'{baseline["accuracy"]:.4f}'
    rows = [['global pooling', accuracy, '', *latencies(baseline['milliseconds'])]]
    for way in content['ways']:
        name = f'{way["way"]}, as trained' if way['trained'] else way['way']
        if 'problem' in way:
            rows.append([name, f'does not fit: {way["problem"]}', '', *[''] * len(batches)])
            continue
        difference = '' if way['trained'] else f'{way["difference"]:+.1f} ± {way["half_width"]:.1f}'
        rows.append([name, f'{way["accuracy"]:.4f}', difference, *latencies(way['milliseconds'])])
    headings = ['sharing', 'accuracy', 'difference, points', *(f'ms per image, batch {b}' for b in batches)]
    caption = (
        f'The same weights with each config.model.sharing, on {content["examples"]:,} test images; '
        f'{content["device"]}; in parentheses, relative to the backbone with global pooling'
    )
    return MeasurementSection(table=Table(headings, rows, caption))


_SECTIONS: dict[str, Callable[[Mapping[str, Any]], MeasurementSection]] = {
    'robustness': _robustness,
    'keypoints': _keypoints,
    'sharing': _sharing,
}
