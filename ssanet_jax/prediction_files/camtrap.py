"""Observations of a Camera Trap Data Package (Camtrap DP 1.0, https://camtrap-dp.tdwg.org/data/#observations)."""

import csv
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from ssanet_jax.prediction_files.journal import Record

# The columns of the table schema, in its order.
COLUMNS = (
    *('observationID', 'deploymentID', 'mediaID', 'eventID', 'eventStart', 'eventEnd', 'observationLevel'),
    *('observationType', 'cameraSetupType', 'scientificName', 'count', 'lifeStage', 'sex', 'behavior', 'individualID'),
    *('individualPositionRadius', 'individualPositionAngle', 'individualSpeed'),
    *('bboxX', 'bboxY', 'bboxWidth', 'bboxHeight', 'classificationMethod', 'classifiedBy', 'classificationTimestamp'),
    *('classificationProbability', 'observationTags', 'observationComments'),
)
# Names of classes, in lower case, that stand for another type of observation than an animal.
_TYPES = {
    'blank': 'blank',
    'empty': 'blank',
    'human': 'human',
    'person': 'human',
    'vehicle': 'vehicle',
}


def write(file: TextIO, records: Iterable[Record], network: str) -> None:
    """Writes an observation at the level of the media file for each image that could be read.

    Columns of what a photo alone does not tell, such as the deployment and the time of the event, are empty.
    """
    writer = csv.DictWriter(file, COLUMNS, restval='', lineterminator='\n')
    writer.writeheader()
    number = 0
    for record in records:
        if record.line is None:
            continue
        number += 1
        # The same in every run over the same files; the number, since a file may be given twice.
        name = f'{number} {record.file}'.encode(errors='backslashreplace').decode()
        writer.writerow(
            {
                'observationID': uuid.uuid5(uuid.NAMESPACE_URL, name),
                'mediaID': record.file,
                'observationLevel': 'media',
                'classificationMethod': 'machine',
                'classifiedBy': network,
                **_classification(record.line),
            }
        )


def _classification(line: Mapping[str, Any]) -> dict[str, Any]:
    label, probability = line['class'], line['probabilities'].get(line['class'], '')
    if reason := line.get('unsure'):
        comment = f'{reason}; most probable class: {label} ({probability})'
        return {'observationType': 'unknown', 'observationComments': comment}
    kind = _TYPES.get(label.lower(), 'animal')
    name = {'scientificName': label} if kind == 'animal' else {}
    return {'observationType': kind, 'classificationProbability': probability, **name}
