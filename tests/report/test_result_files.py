"""Damaged result files: a one-line error names the file and the cure; damaged histories are counted."""

import dataclasses
import json

import pytest

from ssanet_jax.errors import UserError
from ssanet_jax.report.result_files import (
    MEASURE_AGAIN,
    BestStep,
    RunSummary,
    StageSummary,
    damaged_histories,
    read_stage_summaries,
    read_summary,
)
from ssanet_jax.runs.files import read_json

WHOLE = {
    'accuracy': 0.5,
    'examples': 30,
    'heads': {'image_classifier': 0.25, 'sum': 1},
    'steps': 16,
    'epochs': 2,
    'wall_seconds': 3.5,
    'seed': 0,
    'device': '1 x cpu',
    'stage': 'one',
    'split': 'validation',
    'unreadable': ['cannot read a.jpg'],
    'stopped_early': '',
    'versions': {'jax': '0.10'},
    'later': None,
}


# Fields that files of early versions lack.
EARLY = {'stage': '', 'split': 'test', 'unreadable': (), 'versions': {}, 'epochs': 0, 'stopped_early': ''}


def read(path, content, kind):
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return read_summary(path, kind)


def fields(kind):
    return {field.name for field in dataclasses.fields(kind)}


def kind_with(name):
    return StageSummary if name in fields(StageSummary) else RunSummary


@pytest.mark.parametrize('kind', [StageSummary, RunSummary])
def test_valid_files(tmp_path, kind):
    path = tmp_path / 'results.json'
    assert read_summary(path, kind) is None
    expected = {name: WHOLE[name] for name in fields(kind)}
    assert dataclasses.asdict(read(path, WHOLE, kind)) == expected
    old = {name: value for name, value in WHOLE.items() if name not in EARLY}
    defaults = {name: value for name, value in EARLY.items() if name in expected}
    assert dataclasses.asdict(read(path, old, kind)) == expected | defaults


def test_best_step(tmp_path):
    assert read(tmp_path / 'best.json', {'accuracy': 0.5, 'step': 4}, BestStep) == BestStep(4)
    with pytest.raises(UserError, match="'step' is not a positive integer"):
        read(tmp_path / 'best.json', {'step': 0}, BestStep)


@pytest.mark.parametrize('name', [name for name in WHOLE if name not in {*EARLY, 'later'}])
def test_a_field_that_is_missing(tmp_path, name):
    with pytest.raises(
        UserError, match=f"results.json is damaged, '{name}' is missing: restore it from a copy, or rename it"
    ):
        read(
            tmp_path / 'results.json',
            {field: value for field, value in WHOLE.items() if field != name},
            kind_with(name),
        )


@pytest.mark.parametrize(
    'name, value, words',
    [
        ('accuracy', '0.5', 'a number between 0 and 1'),
        ('accuracy', 1.5, 'a number between 0 and 1'),
        ('accuracy', True, 'a number between 0 and 1'),
        ('accuracy', float('nan'), 'a number between 0 and 1'),
        ('examples', 0, 'a positive integer'),
        ('examples', 2.5, 'a positive integer'),
        ('examples', float('inf'), 'a positive integer'),
        ('heads', [0.5], 'an accuracy for each head'),
        ('heads', {'sum': None}, 'an accuracy for each head'),
        ('steps', None, 'a positive integer'),
        ('wall_seconds', -1, 'a time in seconds'),
        ('seed', {}, 'an integer'),
        ('device', 3, 'a string'),
        ('split', ['test'], 'a string'),
        ('versions', 'new', 'a version for each package'),
    ],
)
def test_a_field_of_another_type(tmp_path, name, value, words):
    with pytest.raises(UserError, match=f"damaged, '{name}' is not {words}"):
        read(tmp_path / 'results.json', WHOLE | {name: value}, kind_with(name))


@pytest.mark.parametrize(
    'content, problem',
    [
        (b'', 'not JSON:'),
        (json.dumps(WHOLE).encode()[:40], 'not JSON:'),
        (b'\xff\xfe\x00', 'not JSON:'),
        (b'[' * 100_000, 'not JSON:'),
        (b'[1]', 'not a JSON object:'),
        (b'null', 'not a JSON object:'),
    ],
    ids=['empty', 'half', 'bytes', 'deep', 'list', 'null'],
)
def test_a_file_that_is_no_object(tmp_path, content, problem):
    with pytest.raises(UserError, match=f'results.json is damaged, it is {problem}'):
        read(tmp_path / 'results.json', content, RunSummary)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match='cannot be read'):
        read_json(tmp_path, MEASURE_AGAIN)


def test_the_result_of_another_stage_is_not_shown(tmp_path):
    for name in ('one', 'two'):
        (tmp_path / name).mkdir()
    (tmp_path / 'one' / 'evaluation.json').write_text(json.dumps(WHOLE))
    assert list(read_stage_summaries(tmp_path, ['one', 'two', 'three'])) == ['one']
    (tmp_path / 'two' / 'evaluation.json').write_text(json.dumps(WHOLE))
    with pytest.raises(UserError, match=r'two/evaluation\.json is that of stage one: restore it'):
        read_stage_summaries(tmp_path, ['one', 'two', 'three'])


def test_damage_to_histories_is_counted(tmp_path):
    line = json.dumps({'kind': 'epoch', 'step': 3, 'epoch': 1, 'values': {}})
    contents = {
        'whole': f'{line}\n{line}\n',
        'one': f'{line}\n{{"kind"\n{line}\n',
        'two': f'[1]\n{line}\n{line[:-9]}',
        'empty': '',
        'nothing': '[1]\nword\n',
        'running': 'half a li',
        'hit': f'{line}\n[2]\nhalf a li',
    }
    for name, content in contents.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / 'history.jsonl').write_text(content)
    finished = [name for name in contents if name not in ('running', 'hit')]
    assert damaged_histories(tmp_path, ['of an earlier version', *contents], finished) == [
        '1 line of one/history.jsonl',
        '2 lines of two/history.jsonl',
        'all of empty/history.jsonl',
        'all of nothing/history.jsonl',
        '1 line of hit/history.jsonl',
    ]
