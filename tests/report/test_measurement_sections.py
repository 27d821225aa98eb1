"""The section "Key points" of files of this version and of version 0.1.0."""

import json

import numpy as np
import pytest
from measurement_files import OLD_KEYPOINTS

from ssanet_jax.evaluation.keypoint_layout import keypoint_layout
from ssanet_jax.evaluation.keypoints import KeypointResult
from ssanet_jax.evaluation.part_statistics import Annotations, LocatedParts, part_statistics
from ssanet_jax.report.measurement_sections import _keypoints, read_measurements


def new_content():
    """Two parts in three images without the tail; the second part is always on the right eye."""
    layout = keypoint_layout(('beak', 'left eye', 'right eye', 'tail'), {'head': ('beak', 'left eye')})
    points = np.array([[[1, 1, 1], [9, 9, 1], [20, 20, 1], [0, 0, 0]]] * 3, float)
    boxes = np.array([[[0, 0, 2, 2], [20, 20, 20, 20]]] * 3, float)
    annotations = Annotations(points, np.array([[0, 0, 24, 32]] * 3, float), 32)
    names = {
        'parts': LocatedParts(boxes, np.array([[1, 1], [1, 1], [0, 1]], bool)),
        'control': LocatedParts(boxes[:, :1]),
    }
    statistics = {name: part_statistics(parts, annotations, layout) for name, parts in names.items()}
    result = KeypointResult(3, 0, [], statistics, ['control'], {})
    header = {'dataset': 'birds', 'stage': 'joint', 'image_size': 32, 'near': 0.2}
    names = {'keypoint_names': list(layout.names), 'group_names': list(layout.groups)}
    return json.loads(json.dumps(header | names | result.to_json()))


def test_a_file_of_version_0_1_0():
    section = _keypoints(OLD_KEYPOINTS)
    rows = {row[0]: row[1:] for row in section.table.rows}
    assert rows['distance, pixels'] == ['3.00', '4.00']
    assert rows['consistency, excess over shuffled'] == ['0.1250', '0.1250']
    assert not any('NMI' in title or 'head' in title for title in rows)
    (nearest,) = section.details
    assert nearest.table.headings == ['key point', 'part 1', 'part 2']
    assert nearest.table.rows == [['beak', '25', '0'], ['left eye', '25', '100'], ['right eye', '50', '0']]


def test_a_file_of_this_version():
    section = _keypoints(new_content())
    rows = {row[0]: row[1:] for row in section.table.rows}
    assert section.table.headings == ['', 'parts', 'control']
    assert rows['best part near the head, % (part)'] == ['66.7 (1)', '100.0 (1)'], 'absent in one of three images'
    assert len(rows['NMI of parts and key points × 100']) == 2
    assert "near: within 0.2 of the diagonal of the object's box" in section.table.caption
    nearest, near = section.details
    assert nearest.table.rows == [['beak', '100', '0'], ['eye', '0', '100'], ['tail', '0', '0']]
    assert near.table.headings == ['key point or group', 'part 1', 'part 2', 'control']
    assert near.table.rows == [
        ['beak', '67', '0', '100.0'],
        ['eye', '0', '100', '0.0'],
        ['tail', '', '', ''],
        ['head', '67', '0', '100.0'],
        ['present', '67', '100', ''],
    ]


@pytest.mark.parametrize('content', [OLD_KEYPOINTS, new_content()])
def test_both_are_read(tmp_path, content):
    (tmp_path / 'keypoints.json').write_text(json.dumps(content))
    assert read_measurements(tmp_path) == {'keypoints': content}
