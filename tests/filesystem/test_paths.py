"""One rule for every path that a user writes."""

import os
from pathlib import Path

import pytest

from ssanet_jax.errors import UserError
from ssanet_jax.filesystem.paths import user_path


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
