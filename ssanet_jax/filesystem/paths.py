"""Paths as users write them, in flags, configuration fields and function arguments."""

import os
import re
from pathlib import Path

from ssanet_jax.errors import UserError

LONGEST_PATH = 4095  # bytes, PATH_MAX of Linux
_URL = re.compile('[A-Za-z][A-Za-z0-9+.-]+://')
_LONGEST_NAME = 255  # bytes, on every file system in common use
_MOST_FOLDERS = 500  # below each other; `Path.mkdir` makes each in a call of its own, and Python limits nested calls


def user_path(path: str | os.PathLike[str], setting: str) -> Path:
    """Reads a path as a user wrote it: a leading `~` or `~NAME` is a home folder, any other character is literal.

    Args:
      path: the path. It may be relative, and need not exist.
      setting: the flag or field that holds it, for the message, such as '--workdir' or 'config.data.dir'.

    Raises:
      UserError: the path is empty, a URL, or too long, or there is no such home folder; or it has a `~` that an earlier
        version took for the name of a folder, which is still there.
    """
    text = os.fspath(path)
    if not text:
        raise UserError(f'{setting} is empty: give a path, and check the variable that it comes from, if any')
    if '\0' in text:
        raise UserError(f'{setting}={text!r} contains a zero byte: give a path without it')
    if _URL.match(text) and not os.path.lexists(text):
        raise UserError(f'{setting}={_shortened(text)} is a URL, not a path: mount it, or copy it to this machine')
    expanded = _expand_home(text, setting)
    _check_length(expanded.absolute(), f'{setting}={_shortened(text)} is too long for a path: give a shorter one')
    return expanded


def check_folder(folder: Path, setting: str) -> None:
    """Checks that a path is a folder, or that one may be created there.

    Args:
      folder: the path.
      setting: the flag or field that holds it, for the message, such as '--workdir'.

    Raises:
      UserError: the path, or a folder above it, is a file or a link that leads nowhere.
    """
    place = _existing(folder.absolute())
    if not os.path.isdir(place):
        kind = f'a link to {os.readlink(place)}, where there is no folder' if place.is_symlink() else 'not a folder'
        below = '' if place == folder.absolute() else f'{setting}={_shortened(str(folder))} lies below it, '
        raise UserError(f'{place} is {kind}: {below}give another {setting}')


def check_writable_folder(folder: Path, setting: str, longest_file: str) -> None:
    """Checks that files can be written in a folder, which need not exist yet; it creates nothing.

    Args:
      folder: the path.
      setting: the flag or field that holds it, for the message, such as '--workdir'.
      longest_file: the longest path of a file in the folder.

    Raises:
      UserError: as `check_folder`; the folder cannot be written; or the path of the longest file is too long.
    """
    check_folder(folder, setting)
    place = _existing(folder.absolute())
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f'cannot write in {_shortened(str(place))}: allow it, or give another {setting}')
    shown = f'{setting}={_shortened(str(folder))}'
    for path in (folder.absolute(), os.path.realpath(folder)):  # libraries may follow links
        _check_length(Path(path) / longest_file, f'{shown} is too long for the paths of its files: give a shorter one')


def _existing(path: Path) -> Path:
    """The path itself or the nearest folder above it that exists, also as a link that leads nowhere."""
    return next(place for place in (path, *path.parents) if os.path.lexists(place))


def _check_length(path: Path, message: str) -> None:
    """Raises `UserError` if a path, or a name in it, is longer than the file system allows."""
    names = os.fsencode(path).split(b'/')
    too_deep = len(names) > _MOST_FOLDERS
    if too_deep or max(map(len, names)) > _LONGEST_NAME or sum(map(len, names)) + len(names) - 1 > LONGEST_PATH:
        raise UserError(message)


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f'{text[:40]}...{text[-37:]}'


def _expand_home(text: str, setting: str) -> Path:
    literal = Path(text)
    if not literal.parts or not literal.parts[0].startswith('~'):
        return literal
    if not text.startswith('~'):  # as in './~'; absolute, so that no later reader takes it for a home folder
        return literal.absolute()
    exists = os.path.lexists(text)
    try:
        expanded = literal.expanduser()
    except RuntimeError as error:
        if exists:  # such as a file '~backup.jpg'
            return literal.absolute()
        start = literal.parts[0]
        raise UserError(
            f'{setting}={text}: there is no home folder {start}: give the full path, or ./{start} if that is a name'
        ) from error
    if exists and not os.path.lexists(expanded):
        raise UserError(
            f'{setting}={text} is {expanded}, which does not exist, but the working directory has a folder '
            f'{literal.parts[0]!r} with that path: give ./{literal} to use it, or move it to your home folder'
        )
    return expanded
