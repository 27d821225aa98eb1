"""The tables and the summary of key points, of made-up statistics."""

import numpy as np
import pytest
from rich.console import Console

from ssanet_jax.data import cub
from ssanet_jax.evaluation.keypoint_layout import keypoint_layout
from ssanet_jax.evaluation.keypoints import KeypointResult, control_parts
from ssanet_jax.evaluation.part_statistics import Annotations, LocatedParts, part_statistics
from ssanet_jax.experiments.keypoint_tables import TABLE_WIDTH, keypoint_summary, keypoint_tables
from ssanet_jax.experiments.measurements import AFTER, BEFORE

LAYOUT = keypoint_layout(cub._PARTS, cub.KEYPOINT_GROUPS)


def made_up_result(num_parts, present=None):
    """Random parts before and after scale mining, in 20 images without a tail."""
    random = np.random.default_rng(0)
    keypoints = np.dstack(
        [random.random((20, 15, 2)) * 224, np.ones((20, 15)) * [name != 'tail' for name in cub._PARTS]]
    )
    annotations = Annotations(keypoints, np.tile([20, 30, 200, 180], (20, 1)), 224)
    boxes = np.sort(random.random((2, 20, num_parts, 2, 2)) * 224, axis=-2).reshape(2, 20, num_parts, 4)
    parts = dict(zip((BEFORE, AFTER), (LocatedParts(of_stage, present) for of_stage in boxes)))
    controls = control_parts(np.arange(20), annotations.objects, num_parts, 224)
    statistics = {name: part_statistics(value, annotations, LAYOUT) for name, value in (parts | controls).items()}
    header = {'dataset': 'CUB-50 (50 of 200 classes, official split)', 'stage': 'oriented_pooling', 'near': 0.2}
    header |= {'keypoint_names': list(LAYOUT.names), 'group_names': list(LAYOUT.groups)}
    return header | KeypointResult(20, 0, [], statistics, list(controls), {}).to_json()


def printed(result):
    console = Console(width=TABLE_WIDTH, highlight=False, markup=False)
    with console.capture() as captured:
        console.print(keypoint_tables(result))
    return captured.get()


def numbers(text, label):
    """The number of each part, and of the controls, in the row of the second table."""
    row = next(line for line in reversed(text.splitlines()) if line.startswith(f'│   {label} '))
    cells = [cell.split() for cell in row.split('│')[2:-1]]
    return cells[:-3], [' '.join(cell) for cell in cells[-3:]]


@pytest.mark.parametrize('num_parts', [1, 5, 6, 12])
def test_nothing_is_cut_off_in_100_columns(num_parts):
    result = made_up_result(num_parts)
    text = printed(result)
    assert '…' not in text and max(map(len, text.splitlines())) <= TABLE_WIDTH
    assert 'present' not in text and '-0.0000' not in text
    labels = [line.split('│')[1] for line in text.splitlines() if line.startswith('│')]
    assert all(map(str.strip, labels)), 'no row is wrapped'
    parts, controls = numbers(text, 'head')
    stages = (BEFORE, AFTER) if num_parts < 6 else (AFTER,)
    index = LAYOUT.targets.index('head')
    for cells, stage in zip(parts, stages, strict=True):
        shares = [of_part[index] for of_part in result['boxes'][stage]['pck']]
        assert [cell.rstrip('*') for cell in cells] == [f'{100 * share:.0f}' for share in shares]
        assert [cell.endswith('*') for cell in cells].index(True) == int(np.argmax(shares))
    best = [max(of_part[index] for of_part in result['boxes'][name]['pck']) for name in result['controls']]
    assert controls == [f'{100 * share:.1f}' for share in best]
    parts, controls = numbers(text, 'tail')
    assert not any([*parts, *controls]), 'no image shows it'


def test_parts_that_are_not_present():
    """Part 2 is present in every other image, part 3 in none."""
    present = np.tile([[True, True, False], [True, False, False]], (10, 1))
    text = printed(made_up_result(3, present))
    assert next(line for line in text.splitlines() if line.startswith('│ present')).split()[3:6] == ['100', '50', '0']
    row = next(line for line in text.splitlines() if line.startswith('│   of part 3'))
    assert [cell.strip() for cell in row.split('│')[2:4]] == ['', ''], 'no distance'


def test_the_summary():
    result = made_up_result(4)
    last = result['boxes'][AFTER]
    shares = [of_part[LAYOUT.targets.index('head')] for of_part in last['pck']]
    line = keypoint_summary(result)
    assert f', part {np.argmax(shares) + 1} near the head in {100 * max(shares):.1f} %, part ' in line
    assert f', NMI {100 * last["nmi"]:.1f}, ARI ' in line and f'{last["distance"]:.2f} pixels' in line
