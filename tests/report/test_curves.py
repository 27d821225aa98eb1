"""Learning curves as read from the histories of a run."""

import json

import pytest

from ssanet_jax.errors import UserError
from ssanet_jax.report.curves import LearningCurves, learning_curves
from ssanet_jax.runs.history import read_history
from ssanet_jax.runs.json_checksums import add_checksum

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
    other = path.parent / 'other' / path.name
    other.parent.mkdir()
    content = ''.join(json.dumps(add_checksum({**line, 'stage': path.parent.name})) + '\n' for line in good)
    for copy in (path, other):
        copy.write_text(content)
    assert read_history(path) == good and read_history(other) == []


def test_a_line_without_its_end_does_not_count(tmp_path):
    # A line cut within its last number is still valid JSON.
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
    assert curves == LearningCurves(
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
    # A run that an early version started: the first stage has no history, the second keeps its place.
    write(tmp_path, 'second', line('evaluation', 5, 1, prediction=0.5))
    curves = learning_curves(tmp_path, STAGES)
    assert curves.stages == [('first', 2), ('second', 3)] and curves.accuracy == {'prediction': [[(3, 0.5)]]}
