"""Writing a page to disk: whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ssanet_jax.errors import UserError


def check_writable(out: Path) -> None:
    """Raises `UserError` if a file cannot be made there; makes the folders that are missing."""
    if out.is_dir():
        raise UserError(f'--out={out} is a folder: give the name of a file')
    with _partial(out) as partial:
        partial.touch()


def write(out: Path, content: str) -> None:
    """Writes a page at one stroke, so that no reader ever sees half of it.

    Raises:
      UserError: it cannot be written; then an earlier one is as it was.
    """
    with _partial(out) as partial:
        partial.write_text(content, encoding='utf-8', errors='replace')  # of folders with names in other codes
        os.replace(partial, out)


@contextlib.contextmanager
def _partial(out: Path) -> Iterator[Path]:
    """Where to write a file before it is whole; gone in the end."""
    partial = out.with_name(f'{out.name}.partial')
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield partial
    except OSError as error:
        raise UserError(f'cannot write {out} ({error.strerror}): make room, or give another --out') from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
