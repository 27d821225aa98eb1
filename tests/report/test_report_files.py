"""Damaged files of a run: each is one line that names it and the cure, or is left out of the curves and said to be."""

import json

import pytest

from ssanet_jax.errors import UserError
from ssanet_jax.report import files
from ssanet_jax.report.files import RESULTS, RESULTS_DEFAULTS, STAGE, STAGE_DEFAULTS
from ssanet_jax.runs.files import read_json

WHOLE = {
    'accuracy': 0.5,
    'examples': 30,
    'heads': {'image_classifier': 0.25, 'sum': 1},
    'steps': 16,
    'wall_seconds': 3.5,
    'seed': 0,
    'device': '1 x cpu',
    'split': 'validation',
    'versions': {'jax': '0.10'},
    'later': None,
}


def read(path, content):
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return files.read_result(path, STAGE | RESULTS, STAGE_DEFAULTS | RESULTS_DEFAULTS)


def test_what_is_whole_is_read(tmp_path):
    path = tmp_path / 'results.json'
    assert files.read_result(path, RESULTS, RESULTS_DEFAULTS) is None
    assert read(path, WHOLE) == WHOLE
    old = {name: value for name, value in WHOLE.items() if name not in ('split', 'versions')}
    assert read(path, old) == old | {'split': 'test', 'versions': {}}


@pytest.mark.parametrize('name', [name for name in WHOLE if name not in ('split', 'versions', 'later')])
def test_a_field_that_is_missing(tmp_path, name):
    with pytest.raises(UserError, match=f"results.json is damaged, '{name}' is missing: restore it from a copy, or de"):
        read(tmp_path / 'results.json', {field: value for field, value in WHOLE.items() if field != name})


@pytest.mark.parametrize(
    'name, value, words',
    [
        ('accuracy', '0.5', 'a share'),
        ('accuracy', 1.5, 'a share'),
        ('accuracy', True, 'a share'),
        ('accuracy', float('nan'), 'a share'),
        ('examples', 0, 'a number of images'),
        ('examples', 2.5, 'a number of images'),
        ('examples', float('inf'), 'a number of images'),
        ('heads', [0.5], 'a share of each head'),
        ('heads', {'sum': None}, 'a share of each head'),
        ('steps', None, 'a number of images or steps'),
        ('wall_seconds', -1, 'a time'),
        ('seed', {}, 'a whole number'),
        ('device', 3, 'text'),
        ('split', ['test'], 'text'),
        ('versions', 'new', 'a text of each package'),
    ],
)
def test_a_field_of_another_type(tmp_path, name, value, words):
    with pytest.raises(UserError, match=f"damaged, '{name}' is not {words}"):
        read(tmp_path / 'results.json', WHOLE | {name: value})


@pytest.mark.parametrize(
    'content, problem',
    [
        (b'', 'no JSON:'),
        (json.dumps(WHOLE).encode()[:40], 'no JSON:'),
        (b'\xff\xfe\x00', 'no JSON:'),
        (b'[' * 100_000, 'no JSON:'),
        (b'[1]', 'no JSON object:'),
        (b'null', 'no JSON object:'),
    ],
    ids=['empty', 'half', 'bytes', 'deep', 'list', 'null'],
)
def test_a_file_that_is_no_object(tmp_path, content, problem):
    with pytest.raises(UserError, match=f'results.json is damaged, it .* {problem}'):
        read(tmp_path / 'results.json', content)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match='cannot be read'):
        read_json(tmp_path, files.MEASURE_AGAIN)


def test_damage_to_histories_is_counted(tmp_path):
    line = json.dumps({'kind': 'epoch', 'step': 3, 'epoch': 1, 'values': {}})
    contents = {
        'whole': f'{line}\n{line}\n',
        'one': f'{line}\n{{"kind"\n{line}\n',
        'two': f'[1]\n{line}\n{line[:-9]}',
        'empty': '',
        'nothing': '[1]\nword\n',
        'running': 'half a li',
    }
    for name, content in contents.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / 'history.jsonl').write_text(content)
    finished = [name for name in contents if name != 'running']
    assert files.damaged_histories(tmp_path, ['of an earlier version', *finished]) == [
        '1 line of one/history.jsonl',
        '2 lines of two/history.jsonl',
        'all of empty/history.jsonl',
        'all of nothing/history.jsonl',
    ]
