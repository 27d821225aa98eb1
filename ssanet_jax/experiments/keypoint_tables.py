"""The content of `keypoints.json` as tables for a terminal, and in one line."""

import textwrap
from typing import Any

from rich.console import Group
from rich.table import Table

from ssanet_jax.experiments.measurements import AFTER, BEFORE

TABLE_WIDTH = 100  # characters that the tables fit into, with up to twelve parts
# Numbers of several sets of parts in a row of the table of key points; with more, only the last set is shown.
_MAX_NUMBERS = 10


def keypoint_tables(result: dict[str, Any]) -> Group:
    """The statistics of all parts and controls; and, for each key point, a percentage for part 1, 2, ..."""
    return Group(_part_table(result), _keypoint_table(result))


def _part_table(result: dict[str, Any]) -> Table:
    measured = result['boxes']
    title = f'{result["dataset"]}, stage {result["stage"]}: from parts to key points in {result["images"]} test images'
    table = Table(title=title)
    for heading in ('', *measured):
        table.add_column(textwrap.fill(heading, 12), justify='right' if heading else 'left')
    row = lambda text, show: table.add_row(text, *map(show, measured.values()))
    row('distance, pixels', lambda m: f'{m["distance"]:.2f}')
    row('  of the diagonal', lambda m: f'{m["distance_share"]:.4f}')
    for part in range(len(measured[BEFORE]['distance_of_part'])):
        row(f'  of part {part + 1}', lambda m, part=part: ''.join(_of_part(m, part)))
    row('inside the object', lambda m: f'{m["inside"]:.4f}')
    row('consistency', lambda m: f'{m["consistency"]:.4f}')
    row('  parts shuffled', lambda m: f'{m["consistency_shuffled"]:.4f}')
    row('  excess', lambda m: f'{m["consistency"] - m["consistency_shuffled"]:z.4f}')
    table.add_section()
    row('NMI x 100', lambda m: f'{100 * m["nmi"]:.1f}')
    row('  sides distinct', lambda m: f'{100 * m["nmi_unmerged"]:.1f}')
    row('ARI x 100', lambda m: f'{100 * m["ari"]:z.1f}')
    row('  sides distinct', lambda m: f'{100 * m["ari_unmerged"]:z.1f}')
    for index, name in enumerate(result['group_names'], start=len(result['keypoint_names'])):
        row(f'near {name}, %', lambda m, index=index: _best_part(m, index))
    return table


def _keypoint_table(result: dict[str, Any]) -> Table:
    measured, controls = result['boxes'], result['controls']
    parts = [name for name in measured if name not in controls]
    if len(parts) * len(measured[BEFORE]['pck']) > _MAX_NUMBERS:
        parts = parts[-1:]  # keypoints.json has them all
    near = f'near: within {result["near"]} of the diagonal, * the best part'
    table = Table(title=f'Percentages of test images for part 1, 2, ...; {near}')
    for heading in ('', *parts, *controls):
        is_control = heading in controls
        # Narrow headings of the controls leave room for the numbers of twelve parts.
        table.add_column(textwrap.fill(heading, 9 if is_control else 12), justify='right' if is_control else 'left')

    def row(text, of_parts, of_control):
        cells = [*(of_parts(measured[name]) for name in parts), *(of_control(measured[name]) for name in controls)]
        table.add_row(text, *cells)

    numbers = lambda m: ''.join(f'{part:3} ' for part in range(1, len(m['pck']) + 1))
    nothing = lambda m: ''
    if any(min(measured[name]['present']) < 1 for name in parts):
        row('present', lambda m: ''.join(f'{100 * share:3.0f} ' for share in m['present']), nothing)
        table.add_section()
    row('nearest', numbers, nothing)
    for point, name in enumerate(result['keypoint_names']):
        row(
            f'  {name}',
            lambda m, point=point: ''.join(f'{100 * shares[point]:3.0f} ' for shares in m['nearest']),
            lambda m, point=point: f'{100 * sum(shares[point] for shares in m["nearest"]) / len(m["nearest"]):.0f}',
        )
    table.add_section()
    row('near', numbers, nothing)
    for index, name in enumerate([*result['keypoint_names'], *result['group_names']]):
        row(f'  {name}', lambda m, i=index: _near(m, i), lambda m, i=index: _best_part(m, i).partition(' (')[0])
    return table


def _of_part(measured: dict[str, Any], part: int) -> list[str]:
    """The distance of one part; empty if there is only one part, or if it is never present."""
    distances = measured['distance_of_part'] if len(measured['distance_of_part']) > 1 else []
    return [f'{distance:.2f}' for distance in distances[part : part + 1] if distance is not None]


def _near(measured: dict[str, Any], target: int) -> str:
    """How often each part is near a key point or group, in percent; a star at the best. Empty if no image shows it."""
    if measured['best_part'][target] is None:
        return ''
    marks = ['*' if part == measured['best_part'][target] else ' ' for part in range(len(measured['pck']))]
    return ''.join(f'{100 * shares[target]:3.0f}{mark}' for shares, mark in zip(measured['pck'], marks))


def _best_part(measured: dict[str, Any], target: int) -> str:
    """How often the best part is near a key point or group, in percent, and which it is. Empty if no image shows it."""
    best = measured['best_part'][target]
    return '' if best is None else f'{100 * measured["pck"][best][target]:.1f} ({best + 1})'


def keypoint_summary(result: dict[str, Any]) -> str:
    """One line about the final parts: after scale mining, if there is any."""
    last = result['boxes'].get(AFTER) or result['boxes'][BEFORE]
    text = (
        f'parts {last["distance"]:.2f} pixels from the nearest key point in {result["images"]} images, '
        f'consistency {last["consistency"]:.4f} (shuffled {last["consistency_shuffled"]:.4f}), '
        f'NMI {100 * last["nmi"]:.1f}, ARI {100 * last["ari"]:z.1f}'
    )
    for index, name in enumerate(result['group_names'], start=len(result['keypoint_names'])):
        if (best := last['best_part'][index]) is not None:
            text += f', part {best + 1} near the {name} in {100 * last["pck"][best][index]:.1f} %'
    return text
