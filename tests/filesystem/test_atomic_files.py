"""Atomic writes reach the disk before and after the rename; damaged files move out of the way and are never lost."""

import errno
import os

import pytest

from ssanet_jax.filesystem import atomic_files
from ssanet_jax.filesystem.atomic_files import set_aside, write_atomically


@pytest.fixture
def calls(monkeypatch):
    """The system calls of a write, in their order."""
    found = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor):
        found.append(f'fsync {os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))}')
        fsync(descriptor)

    def record_replace(source, target):
        found.append(f'rename {os.path.basename(source)}')
        replace(source, target)

    monkeypatch.setattr(os, 'fsync', record_fsync)
    monkeypatch.setattr(os, 'replace', record_replace)
    return found


def test_the_file_is_on_the_disk_before_its_name_and_the_name_after(tmp_path, calls):
    write_atomically(tmp_path / 'a.json', '{}')
    assert calls == ['fsync a.json.partial', 'rename a.json.partial', f'fsync {tmp_path.name}']


def test_file_systems_without_synchronization_are_written(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.EINVAL, 'Invalid argument')

    monkeypatch.setattr(os, 'fsync', refuse)
    write_atomically(tmp_path / 'a', 'new')
    assert (tmp_path / 'a').read_text() == 'new'


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_write_that_does_not_reach_the_disk_leaves_the_old_file(tmp_path, monkeypatch, code):
    (tmp_path / 'a').write_text('old')

    def fail(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, 'fsync', fail)
    with pytest.raises(OSError, match=os.strerror(code)):
        write_atomically(tmp_path / 'a', 'new')
    assert (tmp_path / 'a').read_text() == 'old' and os.listdir(tmp_path) == ['a']


def test_nothing_that_was_set_aside_before_is_overwritten(tmp_path):
    names = []
    for content in 'abc':
        (tmp_path / '7').mkdir()
        (tmp_path / '7' / content).touch()
        names.append(set_aside(tmp_path / '7').name)
    assert names == ['7.damaged', '7.damaged-2', '7.damaged-3']
    assert [sorted(os.listdir(tmp_path / name)) for name in names] == [['a'], ['b'], ['c']]


def test_a_folder_that_cannot_be_opened_does_no_harm(tmp_path):
    atomic_files.sync_folder(tmp_path / 'missing')
    assert not list(tmp_path.iterdir())
