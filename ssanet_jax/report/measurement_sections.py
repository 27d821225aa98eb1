"""Sections of the report about what `ssanet_jax.measure` wrote: robustness, key points, ways of sharing features."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ssanet_jax.errors import UserError
from ssanet_jax.evaluation.keypoints import CENTER
from ssanet_jax.evaluation.robustness import ORIGINAL
from ssanet_jax.experiments.unreadable_images import measurement_line
from ssanet_jax.report.inputs import ReportInputs
from ssanet_jax.report.rendering import Bar, Table
from ssanet_jax.report.result_files import MEASURE_AGAIN
from ssanet_jax.runs.files import read_json


@dataclass(frozen=True)
class FoldedTable:
    """A table that the reader unfolds."""

    title: str
    table: Table


@dataclass(frozen=True)
class MeasurementSection:
    """A measurement, or the command that makes it.

    Attributes:
      command: empty if the measurement exists.
      table: None without a measurement.
      details: further tables.
      warning: empty if the measurement is of this stage and data set.
      unreadable: which images could not be read; empty if all could.
    """

    command: str = ''
    table: Table | None = None
    details: tuple[FoldedTable, ...] = ()
    warning: str = ''
    unreadable: str = ''

    @property
    def folded(self) -> bool:
        """Whether the measurement was not made."""
        return bool(self.command)


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
    section = replace(_SECTIONS[name](content), unreadable=measurement_line(name, content))
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


# Title of a row of the section "Key points" -> its number, of the statistics of some boxes.
_PART_ROWS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    'distance, pixels': lambda m: f'{m["distance"]:.2f}',
    'distance / diagonal of the object': lambda m: f'{m["distance_share"]:.4f}',
    'centers inside the object': lambda m: f'{m["inside"]:.4f}',
    'consistency': lambda m: f'{m["consistency"]:.4f}',
    'consistency, parts shuffled': lambda m: f'{m["consistency_shuffled"]:.4f}',
    'consistency, excess over shuffled': lambda m: f'{m["consistency"] - m["consistency_shuffled"]:z.4f}',
}
# The same, of files that have them: those of version 0.1.0 do not.
_AGREEMENT_ROWS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    'NMI of parts and key points × 100': lambda m: f'{100 * m["nmi"]:.1f}',
    'NMI, left and right distinct': lambda m: f'{100 * m["nmi_unmerged"]:.1f}',
    'ARI of parts and key points × 100': lambda m: f'{100 * m["ari"]:z.1f}',
    'ARI, left and right distinct': lambda m: f'{100 * m["ari_unmerged"]:z.1f}',
}


def _keypoints(content: Mapping[str, Any]) -> MeasurementSection:
    """Files of version 0.1.0 have fewer statistics and one control."""
    measured, names = content['boxes'], content['keypoint_names']
    has_agreement = 'controls' in content
    rows = [
        [title, *map(show, measured.values())]
        for title, show in (_PART_ROWS | (_AGREEMENT_ROWS if has_agreement else {})).items()
    ]
    group_names = content['group_names'] if has_agreement else []
    for index, group in enumerate(group_names, start=len(names)):
        rows.append(
            [f'best part near the {group}, % (part)', *(_best_part(of_boxes, index) for of_boxes in measured.values())]
        )
    caption = (
        f'From the centers of the parts to the nearest visible key point, in {content["images"]:,} test images '
        f'of {content["image_size"]} pixels'
    )
    if group_names:
        caption += f"; near: within {content['near']} of the diagonal of the object's box"
    controls = content['controls'] if has_agreement else [CENTER]
    name, last = [(name, of_boxes) for name, of_boxes in measured.items() if name not in controls][-1]
    num_parts = len(last['nearest'])
    part_names = [f'part {part + 1}' for part in range(num_parts)]
    nearest = [
        [point, *(f'{100 * of_part[index]:.0f}' for of_part in last['nearest'])] for index, point in enumerate(names)
    ]
    caption_of_nearest = f'Percentage of the images in which the key point is the one nearest to the part ({name})'
    details = [
        FoldedTable('Nearest key points of each part', Table(['key point', *part_names], nearest, caption_of_nearest))
    ]
    if has_agreement:
        details.append(_near_table(content, name, part_names))
    return MeasurementSection(table=Table(['', *measured], rows, caption), details=tuple(details))


def _near_table(content: Mapping[str, Any], name: str, part_names: Sequence[str]) -> FoldedTable:
    """How often the parts `name`, and the best of each control, are near the key points and their groups."""
    measured = content['boxes']
    percent = lambda share: '' if share is None else f'{100 * share:.0f}'
    rows = [
        [
            target,
            *(percent(of_part[index]) for of_part in measured[name]['pck']),
            *(_best_part(measured[control], index).split(' ')[0] for control in content['controls']),
        ]
        for index, target in enumerate([*content['keypoint_names'], *content['group_names']])
    ]
    present = [f'{100 * share:.0f}' for share in measured[name]['present']]
    rows.append(['present', *present, *[''] * len(content['controls'])])
    caption = (
        f'Percentage of the images that show the key point, or a key point of the group, in which the part ({name}) is '
        f"within {content['near']} of the diagonal of the object's box from it"
    )
    headings = ['key point or group', *part_names, *content['controls']]
    return FoldedTable('Parts near key points', Table(headings, rows, caption))


def _best_part(measured: Mapping[str, Any], target: int) -> str:
    """How often the best part is near a key point or group, in percent, and which part that is."""
    best = measured['best_part'][target]
    return '' if best is None else f'{100 * measured["pck"][best][target]:.1f} ({best + 1})'


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
