"""Learning curves: what is read of a run, and whether the drawing puts it where its axes say."""

import itertools
import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssanet_jax.errors import UserError
from ssanet_jax.report.curves import Curves, curves_svg, learning_curves, nice_ticks
from ssanet_jax.runs.history import read_history

STAGES = [{'name': 'first', 'epochs': 2}, {'name': 'second', 'epochs': 3}, {'name': 'third', 'epochs': 4}]


def line(kind, step, epoch, **values):
    return {'kind': kind, 'step': step, 'epoch': epoch, 'values': values}


def write(workdir, stage, *lines):
    (workdir / stage).mkdir(exist_ok=True)
    (workdir / stage / 'history.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))


def test_a_history_without_its_flaws(tmp_path):
    path = tmp_path / 'history.jsonl'
    assert read_history(path) == []
    good = [line('epoch', 3, 1, accuracy=0.5), line('evaluation', 3, 1, prediction=0.25)]
    flaws = [
        b'',
        b'{"kind": "epoch"}',
        b'[1, 2]',
        b'{"kind": "epoch", "step": 1, "epoch": 1, "values": {"accuracy": NaN}}',
        b'{"kind": "epoch", "step": 1, "epoch": 1, "values": {"accuracy": "high"}}',
        b'{"kind": "epoch", "step": 1, "epoch": 1e999, "values": {}}',
        b'{"kind": "epoch", "step": 1, "epoch": 1' + b'0' * 400 + b', "values": {}}',
        b'{"kind": "other", "step": 1, "epoch": 1, "values": {}}',
        b'{"kind": "epoch", "step": 1.5, "epoch": 1, "values": {}}',
        b'\xff\xfe\x00',
    ]
    lines = [json.dumps(good[0]).encode(), *flaws, json.dumps(good[1]).encode()]
    path.write_bytes(b'\n'.join(lines) + b'\n{"kind": "epoch", "step": 12')
    assert read_history(path) == good


def test_a_line_without_its_end_does_not_count(tmp_path):
    # Cut within the last number, what is left is JSON all the same.
    path = tmp_path / 'history.jsonl'
    path.write_text('{"kind": "epoch", "step": 1, "epoch": 1, "values": {}}')
    assert read_history(path) == []


def test_a_history_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(UserError, match='cannot read'):
        read_history(tmp_path)


def test_curves_go_on_from_stage_to_stage(tmp_path):
    write(
        tmp_path,
        'first',
        {**line('epoch', 5, 1, accuracy=0.1, **{'loss/total': 8.0})},
        {**line('evaluation', 5, 1, prediction=0.2, image_classifier=0.15), 'split': 'validation'},
        {**line('epoch', 10, 2, accuracy=0.3, **{'loss/total': 6.0})},
    )
    write(
        tmp_path,
        'second',
        {**line('epoch', 5, 1, accuracy=0.4, **{'loss/total': 5.0})},
        {**line('evaluation', 5, 1, prediction=0.5), 'split': 'validation'},
    )
    curves = learning_curves(tmp_path, STAGES)
    assert curves == Curves(
        stages=[('first', 2), ('second', 3)],
        split='validation',
        accuracy={
            'training batches': [[(1, 0.1), (2, 0.3)], [(3, 0.4)]],
            'prediction': [[(1, 0.2)], [(3, 0.5)]],
            'image_classifier': [[(1, 0.15)]],
        },
        loss=[[(1, 8.0), (2, 6.0)], [(3, 5.0)]],
    )


def test_without_a_history_there_are_no_curves(tmp_path):
    assert learning_curves(tmp_path, STAGES) is None
    write(tmp_path, 'first')
    assert learning_curves(tmp_path, STAGES) is None
    # A run that an earlier version began: what is there stands where it belongs.
    write(tmp_path, 'second', line('evaluation', 5, 1, prediction=0.5))
    curves = learning_curves(tmp_path, STAGES)
    assert curves.stages == [('first', 2), ('second', 3)] and curves.accuracy == {'prediction': [[(3, 0.5)]]}
    assert 'circle' in curves_svg('t', curves.accuracy, curves.stages)


def test_points_lie_where_the_axes_say():
    lines = {'prediction': [[(1, 0.131), (2, 0.52)], [(3, 0.871), (5, 0.9)]], 'a <b>': [[(1, 0.4), (2, 0.44)]]}
    drawing = ElementTree.fromstring(curves_svg('<title>', lines, [('one', 2), ('<two>', 3)]))
    assert drawing.find('title').text == '<title>'

    def fit(kind, place):  # the axis as its labels tell it
        labels = [e for e in drawing.findall('text') if e.get('class') == kind and e.get('dy')]
        return np.polyfit([float(e.get(place)) for e in labels], [float(e.text) for e in labels], 1)

    to_x, to_y = fit('x', 'x'), fit('y', 'y')
    assert to_x[0] > 0 > to_y[0], 'time goes to the right, and more is higher'
    groups = {group.get('class'): group for group in drawing.findall('g')}
    assert groups.keys() == {'curve-prediction', 'curve-a__b_'}
    for (name, expected), group in zip(lines.items(), groups.values()):
        points = list(itertools.chain(*expected))
        circles = group.findall('circle')
        assert len(circles) == len(points) and len(group.findall('polyline')) == len(expected)
        for circle, (x, y) in zip(circles, points):
            assert np.polyval(to_x, float(circle.get('cx'))) == pytest.approx(x, abs=0.01)
            assert np.polyval(to_y, float(circle.get('cy'))) == pytest.approx(y, abs=0.001)
            assert circle.find('title').text == f'{name}, epoch {x}: {y:.4g}'
        drawn = ' '.join(polyline.get('points') for polyline in group.findall('polyline'))
        assert drawn.split() == [f'{circle.get("cx")},{circle.get("cy")}' for circle in circles]
    # One rule between the two stages, and their numbers above.
    (rule,) = [e for e in drawing.findall('line') if e.get('class') == 'stage']
    assert np.polyval(to_x, float(rule.get('x1'))) == pytest.approx(2, abs=0.01)
    numbers = [e for e in drawing.findall('text') if e.find('title') is not None]
    assert [(e.text, e.find('title').text) for e in numbers] == [('1', 'one'), ('2', '<two>')]
    # All within the frame.
    width, height = (float(value) for value in drawing.get('viewBox').split()[2:])
    for name, limit in (('cx', width), ('cy', height), ('x', width), ('y', height)):
        assert all(0 <= float(e.get(name)) <= limit for e in drawing.iter() if e.get(name))


def test_one_stage_needs_no_number_and_epochs_are_whole():
    drawing = ElementTree.fromstring(curves_svg('t', {'a': [[(1, 0.2), (3, 0.4)]]}, [('one', 3)]))
    assert [e.text for e in drawing.findall('text') if e.get('class') == 'x'] == ['0', '1', '2', '3', 'epoch']


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.integers(2, 12))
def test_ticks_are_round_and_hold_all_values(low, extent, most):
    high = low + extent
    ticks = nice_ticks(low, high, most)
    step = ticks[1] - ticks[0]
    slack = 1e-6 * step + 1e-9 * max(abs(low), abs(high), 1)
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack
    assert np.allclose(np.diff(ticks), step, rtol=1e-6, atol=1e-9 * max(abs(low), abs(high), 1))
    assert 2 <= len(ticks) <= most + 2


@pytest.mark.parametrize(
    ('low', 'high', 'expected'),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.71, 0.83, [0.7, 0.75, 0.8, 0.85]),
        (7.4, 18.1, [5, 10, 15, 20]),
        (0.5, 0.5, [0.5, 0.51, 0.52, 0.53, 0.54, 0.55]),
        (0, 0, [0, 0.02, 0.04, 0.06, 0.08, 0.1]),
    ],
)
def test_ticks_that_people_would_choose(low, high, expected):
    assert nice_ticks(low, high) == pytest.approx(expected)


def test_labels_have_the_digits_they_need():
    for low, high, label in ((0.801, 0.806, '0.801'), (0, 30, '10'), (0.1, 0.4, '0.1'), (0.71, 0.83, '0.80')):
        drawing = curves_svg('t', {'a': [[(1, low), (2, high)]]}, [('one', 2)])
        labels = re.findall(r'<text class="y"[^>]*>([^<]*)<', drawing)
        assert label in labels and len(set(labels)) == len(labels)
