"""Paths as users write them, in flags, configuration fields and function arguments."""

import os
from pathlib import Path

from ssanet_jax.errors import UserError

LONGEST_PATH = 4095  # bytes, PATH_MAX of Linux
_LONGEST_NAME = 255  # bytes, on every file system in common use


def user_path(path: str | os.PathLike[str], setting: str) -> Path:
    """Reads a path as a user wrote it: a leading `~` or `~NAME` is a home folder, any other character is literal.

    Args:
      path: the path. It may be relative, and need not exist.
      setting: the flag or field that holds it, for the message, such as '--workdir' or 'config.data.dir'.

    Raises:
      UserError: the path is empty or too long, or there is no such home folder; or it has a `~` that an earlier
        version took for the name of a folder, which is still there.
    """
    text = os.fspath(path)
    if not text:
        raise UserError(f'{setting} is empty: give a path, and check the variable that it comes from, if any')
    if '\0' in text:
        raise UserError(f'{setting}={text!r} contains a zero byte: give a path without it')
    expanded = _expand_home(text, setting)
    names = os.fsencode(expanded.absolute()).split(b'/')
    if max(map(len, names)) > _LONGEST_NAME or sum(map(len, names)) + len(names) - 1 > LONGEST_PATH:
        shown = text if len(text) <= 80 else f'{text[:40]}...{text[-37:]}'
        raise UserError(f'{setting}={shown} is too long for a path: give a shorter one')
    return expanded


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
