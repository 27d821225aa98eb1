"""Archives that would leave their folder, fill the disk, or are damaged."""

import gzip
import io
import os
import tarfile

import pytest

from ssanet_jax.download import unpack as unpacking
from ssanet_jax.download.unpack import unpack
from ssanet_jax.errors import UserError


def member(name, content=b'', kind=tarfile.REGTYPE, **fields):
    info = tarfile.TarInfo(name)
    info.size, info.type = len(content), kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info, io.BytesIO(content)


def write(path, *members, mode='w:gz'):
    with tarfile.open(path, mode) as file:
        for info, content in members:
            file.addfile(info, content)
    return path


@pytest.mark.parametrize('mode', ['w:gz', 'w', 'w:bz2', 'w:xz'])
def test_files_and_folders_come_out_without_their_permissions(tmp_path, mode):
    archive = write(
        tmp_path / 'set.tar',
        member('set/empty', kind=tarfile.DIRTYPE),
        member('./set/a.txt', b'a', mode=0o6000),
        member('set/b/c.txt', b'c' * 10_000, uid=0, mode=0o4755),
        mode=mode,
    )
    unpack(archive, tmp_path / 'out')
    assert (tmp_path / 'out/set/a.txt').read_bytes() == b'a'
    file = tmp_path / 'out/set/b/c.txt'
    assert file.read_bytes() == b'c' * 10_000 and not file.stat().st_mode & 0o7111


REFUSED = {
    'parent': member('../evil', b'x'),
    'inner parent': member('set/../../evil', b'x'),
    'absolute': member('/tmp/evil', b'x'),
    'backslashes': member('..\\evil', b'x'),
    'link out': member('set/link', kind=tarfile.SYMTYPE, linkname='..'),
    'link in': member('set/link', kind=tarfile.SYMTYPE, linkname='a'),
    'hard link': member('set/link', kind=tarfile.LNKTYPE, linkname='../../outside'),
    'device': member('set/null', kind=tarfile.CHRTYPE, devmajor=1, devminor=3),
    'pipe': member('set/pipe', kind=tarfile.FIFOTYPE),
}


@pytest.mark.parametrize('name', REFUSED)
def test_what_leaves_the_folder_is_refused(tmp_path, name):
    (tmp_path / 'outside').write_text('kept')
    archive = write(tmp_path / 'set.tgz', member('set/first', b'1'), REFUSED[name])
    with pytest.raises(UserError, match='is refused: .* its folder|is refused: .*not a regular file') as caught:
        unpack(archive, tmp_path / 'deep/er/out')
    assert '\n' not in str(caught.value)
    assert (tmp_path / 'outside').read_text() == 'kept' and not list(tmp_path.rglob('*evil*'))
    assert os.listdir(tmp_path / 'deep/er/out/set') == ['first']


def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, '_SPARE', 2**16)
    archive = write(tmp_path / 'bomb.tgz', *[member(f'{i}', bytes(2**16)) for i in range(100)])
    with pytest.raises(UserError, match='far larger unpacked than packed'):
        unpack(archive, tmp_path / 'out')
    assert sum(file.stat().st_size for file in (tmp_path / 'out').iterdir()) <= 2**17


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, '_MAX_FILES', 10)
    with pytest.raises(UserError, match='far larger'):
        unpack(write(tmp_path / 'many.tgz', *[member(f'{i}') for i in range(11)]), tmp_path / 'out')


@pytest.mark.parametrize('cut', [0, 1, 10, 100, -100])
def test_a_damaged_archive_is_one_line(tmp_path, cut):
    content = write(tmp_path / 'set.tgz', member('a', os.urandom(5000)), member('b', b'b')).read_bytes()
    (tmp_path / 'set.tgz').write_bytes(content[:cut])
    with pytest.raises(UserError, match='is damaged') as caught:
        unpack(tmp_path / 'set.tgz', tmp_path / 'out')
    assert '\n' not in str(caught.value)


def test_changed_bytes_are_one_line(tmp_path):
    content = bytearray(write(tmp_path / 'set.tgz', member('a', b'a' * 5000), member('b', b'b')).read_bytes())
    for position in range(10, len(content) - 8):
        damaged = bytearray(content)
        damaged[position] ^= 0x55
        (tmp_path / 'set.tgz').write_bytes(damaged)
        try:
            unpack(tmp_path / 'set.tgz', tmp_path / 'out')
        except UserError as error:
            assert '\n' not in str(error)


def test_what_is_no_archive_is_one_line(tmp_path):
    (tmp_path / 'page.tgz').write_bytes(gzip.compress(b'<html>' * 1000))
    with pytest.raises(UserError, match='is damaged'):
        unpack(tmp_path / 'page.tgz', tmp_path / 'out')
