"""Atomic file writes: a full disk, a killed process, and paths where no file can be."""

import signal
import subprocess
import sys
import time

import pytest
from commands import ROOT

from ssanet_jax.cli import check_out, write_out
from ssanet_jax.errors import UserError
from ssanet_jax.runs.files import write_atomically

# Overwrites a file forever with one of two texts.
WRITER = """
import itertools, sys
from pathlib import Path
from ssanet_jax.runs.files import write_atomically
for letter in itertools.cycle('ab'):
    write_atomically(Path(sys.argv[1]), letter * 2_000_000)
"""


def test_a_full_disk_leaves_the_earlier_file(tmp_path, monkeypatch):
    out = tmp_path / 'report.html'
    write_out(out, 'first')
    assert out.read_text() == 'first'

    def full(self, *arguments, **options):
        self.touch()
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(type(out), 'write_text', full)
    with pytest.raises(UserError, match=r'cannot write .*report.html \(No space left on device\): free some space'):
        write_out(out, 'second')
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ['report.html'] and out.read_text() == 'first'


def test_readers_and_a_kill_find_whole_files(tmp_path):
    file = tmp_path / 'folder/file'
    write_atomically(file, 'c')
    seen = []
    for _ in range(3):
        process = subprocess.Popen([sys.executable, '-c', WRITER, file], cwd=ROOT)
        until = time.monotonic() + 30
        while file.read_text() in ('c', *seen[-1:]) and time.monotonic() < until:
            time.sleep(0.01)
        for _ in range(30):
            seen.append(file.read_text())
        process.send_signal(signal.SIGKILL)
        process.wait()
        seen.append(file.read_text())
    assert {(len(text), *set(text)) for text in seen} == {(2_000_000, 'a'), (2_000_000, 'b')}


def test_paths_where_no_file_can_be(tmp_path):
    taken = tmp_path / 'taken'
    taken.write_text('text')
    with pytest.raises(UserError, match='is a folder: give the name of a file'):
        check_out(tmp_path)
    for function in (check_out, lambda out: write_out(out, 'text')):
        with pytest.raises(
            UserError, match=r'cannot write .*taken/page \(.*\): free some space, or give another --out'
        ):
            function(taken / 'page')
    check_out(tmp_path / 'new/page')
    assert [path.name for path in (tmp_path / 'new').iterdir()] == [] and taken.read_text() == 'text'
