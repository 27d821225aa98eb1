"""One rule for every path that a user writes."""

import os
from pathlib import Path

import pytest

from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.paths import check_folder, check_writable_folder, user_path


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder beside the working directory."""
    (tmp_path / 'home').mkdir()
    (tmp_path / 'work').mkdir()
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    monkeypatch.chdir(tmp_path / 'work')
    return tmp_path / 'home'


def test_a_leading_tilde_is_the_home_folder(home):
    assert user_path('~', '--out') == home
    assert user_path('~/runs/x', '--out') == home / 'runs/x'
    assert user_path('~root/x', '--out') == Path(os.path.expanduser('~root')) / 'x'
    assert user_path(Path('~/x'), '--out') == home / 'x'


@pytest.mark.parametrize(
    'text', ['runs/x', '/a/b', 'a/~/b', 'a~', "it's", 'a "b"', 'run [1]', 'a\\b', '50%', '$HOME/x', '中文', ' a ', '-a']
)
def test_any_other_character_is_literal(text):
    assert user_path(text, '--out') == Path(text)
    assert user_path(user_path(text, '--out'), '--out') == Path(text)


def test_a_tilde_that_is_a_name(home):
    """The result is absolute: reading it once more gives the same."""
    here = Path.cwd()
    assert user_path('./~/x', '--out') == here / '~/x'
    (here / '~backup.jpg').touch()  # no such user
    assert user_path('~backup.jpg', '--out') == here / '~backup.jpg'
    assert user_path(user_path('./~backup.jpg', '--out'), '--out') == here / '~backup.jpg'
    with pytest.raises(UserError, match=r'^--out=~nobody-here/x: .* no home folder ~nobody-here: .* \./~nobody-here'):
        user_path('~nobody-here/x', '--out')


def test_a_folder_that_an_earlier_version_called_tilde_is_pointed_out(home):
    Path('~/runs/x').mkdir(parents=True)
    with pytest.raises(UserError, match=r'^--workdir=~/runs/x is .*/home/runs/x, which does not exist, .* \./~/runs/x'):
        user_path('~/runs/x', '--workdir')
    (home / 'runs/x').mkdir(parents=True)
    assert user_path('~/runs/x', '--workdir') == home / 'runs/x'


def test_no_home_at_all(monkeypatch):
    monkeypatch.delenv('HOME', raising=False)
    monkeypatch.setattr('os.getuid', lambda: 2**31 - 3)
    with pytest.raises(UserError, match='^--out=~/x: there is no home folder ~: give the full path'):
        user_path('~/x', '--out')
    assert user_path('x', '--out') == Path('x')


@pytest.mark.parametrize(
    'text, problem',
    [
        ('', 'is empty'),
        ('a\0b', 'zero byte'),
        ('x' * 256, 'too long'),
        ('鸟' * 86, 'too long'),  # 258 bytes
        ('/'.join(['x' * 200] * 21), 'too long'),
    ],
)
def test_what_no_file_system_takes_is_one_short_line(text, problem):
    with pytest.raises(UserError, match=f'^--out.*{problem}') as error:
        user_path(text, '--out')
    assert len(str(error.value)) < 250
    assert user_path('鸟' * 85, '--out') == Path('鸟' * 85)


@pytest.fixture
def places(tmp_path):
    """A file, a dangling link, a loop of links, a link to a file, and folders."""
    (tmp_path / 'file').write_text('')
    (tmp_path / 'folder').mkdir()
    for name, target in {'dangling': 'nowhere', 'loop': 'loop', 'to_file': 'file', 'to_folder': 'folder'}.items():
        (tmp_path / name).symlink_to(target)
    return tmp_path


@pytest.mark.parametrize('check', [check_folder, lambda *given: check_writable_folder(*given, 'config.json')])
@pytest.mark.parametrize(
    'name, message',
    {
        'file': 'file is not a folder: give another --workdir',
        'file/run': 'file is not a folder: --workdir={}/file/run lies below it, give another --workdir',
        'dangling': 'dangling is a link to nowhere, where there is no folder: give another --workdir',
        'dangling/run': 'dangling is a link to nowhere, where there is no folder: --workdir={}/dangling/run lies below',
        'loop': 'loop is a link to loop, where there is no folder: give another --workdir',
        'to_file': 'to_file is a link to file, where there is no folder: give another --workdir',
    }.items(),
)
def test_places_where_no_folder_can_be(places, check, name, message):
    with pytest.raises(UserError) as error:
        check(places / name, '--workdir')
    shortened = str(error.value).replace('...', '')
    assert shortened.startswith(f'{places}/{message.partition("{}")[0]}'), error.value
    assert '\n' not in shortened


@pytest.mark.parametrize('name', ['folder', 'to_folder', 'folder/new/run', 'to_folder/run', 'new'])
def test_places_where_a_folder_can_be(places, name):
    before = set(places.rglob('*'))
    check_writable_folder(places / name, '--workdir', 'config.json')
    assert set(places.rglob('*')) == before


def test_a_place_that_cannot_be_written(places, monkeypatch):
    monkeypatch.setattr('os.access', lambda path, mode: False)  # also for root
    with pytest.raises(UserError, match=r'^cannot write in .*: allow it, or give another --workdir$'):
        check_writable_folder(places / 'folder/new', '--workdir', 'config.json')


def test_paths_that_are_too_long_only_with_their_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    room = 4095 - len(os.fsencode(tmp_path)) - 1
    longest = 'a' * 200
    fits = Path(*['d' * 199] * ((room - 201) // 200)) / ('e' * ((room - 201) % 200 or 1))
    check_writable_folder(tmp_path / fits, '--workdir', longest)
    message = r'^--workdir=.* is too long for the paths of its files: give a shorter one$'
    with pytest.raises(UserError, match=message):
        check_writable_folder(tmp_path / fits, '--workdir', f'bb/{longest}')
    with pytest.raises(UserError, match='is too long for a path'):
        user_path('d/' * 600, '--workdir')  # too many for `Path.mkdir`
    with pytest.raises(UserError, match=message):
        check_writable_folder(tmp_path, '--workdir', 'b' * 256)  # such as the name of a stage
    # What a relative path and a link hide.
    with pytest.raises(UserError, match=message):
        check_writable_folder(fits, '--workdir', f'bb/{longest}')
    (tmp_path / 'deep').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'deep')
    monkeypatch.setattr('os.path.realpath', lambda path: str(tmp_path / fits))
    with pytest.raises(UserError, match=message):
        check_writable_folder(tmp_path / 'link', '--workdir', f'bb/{longest}')


@pytest.mark.parametrize('url', ['gs://bucket/run', 's3://b', 'file:///tmp/x', 'https://x.org/a.pth', 'hf+x://y'])
def test_a_url_is_no_path(url, tmp_path, monkeypatch):
    """It would be a folder 'gs:' in the working directory, which is lost with the machine."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r'^--workdir=.* is a URL, not a path: mount it, or copy it to this machine$'):
        user_path(url, '--workdir')
    (tmp_path / url).mkdir(parents=True)  # as an earlier version made it
    assert user_path(url, '--workdir') == Path(url)


@pytest.mark.parametrize('name', ['a:b', 'gs:', 'c:/x', '//x//y', './gs://x'])
def test_colons_and_slashes_are_no_url(name):
    assert user_path(name, '--workdir') == Path(name)
