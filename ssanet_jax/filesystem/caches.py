"""Folders for files that can be made again, also for users without a home folder that can be written to."""

import logging
import os
import tempfile
from pathlib import Path

from ssanet_jax.errors import UserError


def is_writable(folder: Path) -> bool:
    """Creates a folder if it does not exist, and returns whether this user can write to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def writable_cache(preferred: str, cure: str) -> Path:
    """The folder for cached files; a temporary one, with a warning, for users whose home folder cannot be written to.

    Args:
      preferred: the folder, below `~`.
      cure: how to choose another folder, for the warning.

    Raises:
      UserError: no folder can be written.
    """
    try:
        folder = Path(preferred).expanduser()
        if is_writable(folder):
            return folder
    except RuntimeError:  # a container's user may have no home
        pass
    try:
        temporary = Path(tempfile.gettempdir()) / f'ssanet_jax-{os.getuid()}'
        temporary.mkdir(mode=0o700, exist_ok=True)
        # Another user may have created a folder whose name is so easily guessed.
        usable = temporary.stat().st_uid == os.getuid() and is_writable(temporary)
    except OSError:
        usable = False
    if not usable:
        raise UserError(f'{preferred} cannot be written, nor can the temporary folder: {cure}')
    logging.warning(
        '%s cannot be written, so %s is used, which may be emptied: %s to keep it', preferred, temporary, cure
    )
    return temporary
