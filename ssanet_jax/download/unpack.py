"""Unpacks tar archives that nobody has vetted: nothing leaves the folder, and nothing fills the disk."""

from __future__ import annotations

import gzip
import lzma
import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from ssanet_jax.errors import UserError

_MAX_FILES = 200_000
_MAX_GROWTH = 4  # bytes unpacked per byte of the archive; photographs are compressed already
_SPARE = 64 * 2**20  # bytes that small archives may have beyond that


def unpack(archive: Path, folder: Path) -> None:
    """Extracts the regular files of a tar archive, compressed or not.

    Args:
      archive: the file.
      folder: created if it does not exist.

    Raises:
      UserError: the archive is damaged, holds links or devices or paths outside the folder, or is far larger unpacked
        than packed. Files before the offending one remain in the folder.
      OSError: the folder cannot be written.
    """
    limit = _MAX_GROWTH * archive.stat().st_size + _SPARE
    try:
        with tarfile.open(archive) as file:
            for count, member in enumerate(file):
                path = PurePosixPath(member.name)
                if path.is_absolute() or '..' in path.parts or '\\' in member.name:
                    raise _refused(archive, f'{member.name!r} lies outside its folder')
                if not (member.isreg() or member.isdir()):
                    raise _refused(archive, f'{member.name!r} is not a regular file')
                limit -= member.size
                if limit < 0 or count >= _MAX_FILES:
                    raise _refused(archive, 'it is far larger unpacked than packed')
                if not member.isreg():
                    continue
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                data = file.extractfile(member)
                assert data is not None  # it is a regular file
                with data, open(target, 'wb') as out:
                    shutil.copyfileobj(data, out)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, ValueError) as error:
        reason = ' '.join(str(error).split())[:80]
        raise UserError(f'{archive} is damaged ({reason}): rename it and run the same command again') from error


def _refused(archive: Path, reason: str) -> UserError:
    return UserError(f'{archive} is refused: {reason}; get the archive from its publisher')
