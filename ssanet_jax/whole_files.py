"""Files that are there whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ssanet_jax.errors import UserError


def write_whole(path: Path, text: str, errors: str = 'strict') -> None:
    """Writes a text at one stroke, so that no reader ever sees half of it, and a kill leaves what was there before.

    Args:
      path: the file, whose folder is made if it is missing.
      text: written as UTF-8.
      errors: of the encoding, as in `str.encode`.

    Raises:
      OSError: it cannot be written; nothing is left of the attempt.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'{path.name}.partial')
    try:
        partial.write_text(text, encoding='utf-8', errors=errors)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def check_out(out: Path) -> None:
    """Makes the folder of the file that `--out` names.

    Raises:
      UserError: no file can be made there.
    """
    if out.is_dir():
        raise UserError(f'--out={out} is a folder: give the name of a file')
    with _named(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=out.parent):
            pass


def write_out(out: Path, text: str) -> None:
    """`write_whole` for the file that `--out` names; what is no text, as of folders in other codes, becomes '?'.

    Raises:
      UserError: it cannot be written; then an earlier one is as it was.
    """
    with _named(out):
        write_whole(out, text, errors='replace')


@contextlib.contextmanager
def _named(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f'cannot write {out} ({error.strerror}): make room, or give another --out') from error
