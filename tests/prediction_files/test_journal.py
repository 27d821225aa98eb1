"""The journal: what is kept after a kill, and what is dropped."""

import contextlib
import json
import os
from pathlib import Path

import pytest

from ssanet_jax.errors import UserError
from ssanet_jax.prediction_files.journal import JOURNAL_FILE, Record, file_version, open_journal

SETTINGS = {'the network': 'abc', '--top': 5}


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f'{name}.jpg' for name in 'abcdef']
    for path in paths:
        path.write_text(path.name)
    return [str(path) for path in paths]


def record(file):
    if file.endswith('b.jpg'):
        return Record(file, reason='damaged', version=file_version(file))
    return Record(file, {'class': 'wren', 'probabilities': {'wren': 0.1}}, 30, 40, version=file_version(file))


def interrupt(out, files, count):
    """Adds batches of two and breaks off after `count` files."""
    with contextlib.suppress(ZeroDivisionError), open_journal(out, SETTINGS, files) as journal:
        for start in range(0, count, 2):
            journal.add([record(file) for file in files[start : start + 2]])
        raise ZeroDivisionError


def test_goes_on_after_the_last_whole_batch(tmp_path, files):
    out = tmp_path / 'out'
    interrupt(out, files, 4)
    path = out / JOURNAL_FILE
    whole = path.read_bytes()
    others = (b'[{"file": "e.jpg"', b'[{"file": "e.jpg"}]', b'\0\0\n', b'{}\n', b'[1]\n', b'[{"other": 1}]\n')
    for torn in (b'', *others):
        path.write_bytes(whole + torn)
        with contextlib.suppress(ZeroDivisionError), open_journal(out, SETTINGS, files) as journal:
            assert journal.done == 4
            assert journal.message == 'going on after 4 of 6 images of an earlier start'
            assert [found.file for found in journal] == files[:4]
            raise ZeroDivisionError
        assert path.read_bytes() == whole
    with open_journal(out, SETTINGS, files) as journal:
        journal.add([record(file) for file in files[4:]])
        found = list(journal)
        assert found == list(journal)
    assert [(one.file, one.line is None, one.reason, one.height, one.width) for one in found] == [
        (file, file == files[1], 'damaged' if file == files[1] else '', *((0, 0) if file == files[1] else (30, 40)))
        for file in files
    ]
    assert not path.exists()


@pytest.mark.parametrize(
    'change, message',
    [
        ({'the network': 'other'}, 'changed since: the network'),
        ({'--top': 3}, 'changed since: --top'),
        ({'--top': 3, 'the network': 'other'}, 'changed since: the network, --top'),
    ],
)
def test_other_settings_start_again(tmp_path, files, change, message):
    interrupt(tmp_path, files, 4)
    with open_journal(tmp_path, SETTINGS | change, files) as journal:
        assert journal.done == 0 and message in journal.message and 'starting again' in journal.message
        assert list(journal) == []
    interrupt(tmp_path, files, 4)
    (tmp_path / JOURNAL_FILE).write_text('{"file": "a line of 0.1.0"')
    with open_journal(tmp_path, SETTINGS, files) as journal:
        assert journal.done == 0 and 'damaged' in journal.message


def test_files_that_have_changed_are_predicted_again(tmp_path, files):
    interrupt(tmp_path, files, 6)
    Path(files[3]).write_text('another image')
    with open_journal(tmp_path, SETTINGS, files) as journal:
        assert journal.done == 2 and f'{files[3]} is new or has changed since' in journal.message
    interrupt(tmp_path, files, 6)
    with open_journal(tmp_path, SETTINGS, [*files[:4], 'new.jpg', *files[4:]]) as journal:
        assert journal.done == 4 and 'new.jpg is new' in journal.message
    interrupt(tmp_path, files, 6)
    os.remove(files[1])
    with open_journal(tmp_path, SETTINGS, files) as journal:
        assert journal.done == 0 and 'has changed since' in journal.message
    interrupt(tmp_path, files, 6)
    with open_journal(tmp_path, SETTINGS, files[:3]) as journal:
        assert journal.done == 2 and 'is new or has changed' in journal.message


def test_nothing_is_left_of_a_start_without_a_record(tmp_path, files):
    interrupt(tmp_path, files, 0)
    assert not (tmp_path / JOURNAL_FILE).exists()


def test_two_processes_do_not_share_a_journal(tmp_path, files):
    with open_journal(tmp_path, SETTINGS, files) as journal:
        with pytest.raises(UserError, match='another process'), open_journal(tmp_path, SETTINGS, files):
            pass
        journal.add([record(files[0])])
        assert len(list(journal)) == 1


def test_names_that_are_not_utf8(tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path) + b'/\xff "x",\n.jpg')
    Path(name).write_text('x')
    interrupt(tmp_path, [name, name], 2)
    with open_journal(tmp_path, SETTINGS, [name, name]) as journal:
        assert journal.done == 2 and [one.file for one in journal] == [name, name]
    assert json.loads(json.dumps(name)) == name
