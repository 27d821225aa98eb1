"""A table for spreadsheets: one row per image, with its most probable classes."""

import csv
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from ssanet_jax.prediction_files.journal import Record


def write(file: TextIO, records: Iterable[Record], network: str) -> None:
    """Writes the columns file, class, probability, class_2, probability_2, ..., then the other single values of a line.

    These are fields such as `angle`, whose value is a number, a text or a boolean. Lists, such as the boxes, are left
    out.
    """
    del network
    count, others = 1, {}  # a dict as an ordered set
    for record in records:
        if record.line is not None:
            count = max(count, len(record.line['probabilities']))
            others |= dict.fromkeys(_single_values(record.line))
    writer = csv.writer(file, lineterminator='\n')
    columns = [
        'class',
        'probability',
        *(f'{name}_{i}' for i in range(2, count + 1) for name in ('class', 'probability')),
    ]
    writer.writerow(['file', *columns, *others])
    for record in records:
        if record.line is not None:
            classes = [value for pair in record.line['probabilities'].items() for value in pair]
            classes += [''] * (len(columns) - len(classes))
            single = _single_values(record.line)
            writer.writerow([record.file, *classes, *(single.get(name, '') for name in others)])


def _single_values(line: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: value for name, value in line.items() if isinstance(value, (str, int, float))}
    return {name: value for name, value in values.items() if name not in ('file', 'class')}
