"""Files and folders that appear whole or not at all, also if the power fails; and damaged ones out of the way."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# What file systems without synchronization answer, such as some FUSE and network mounts.
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EROFS, errno.EBADF)


def write_atomically(path: Path, content: str | bytes, errors: str = 'strict') -> None:
    """Writes a file atomically: readers see the old content or the new one, also after a kill or a power failure.

    Args:
      path: the file. Its folder is created if it does not exist.
      content: text is written as UTF-8.
      errors: what to do with characters that cannot be encoded, as in `str.encode`.

    Raises:
      OSError: the file cannot be written. An existing file is then unchanged.
    """
    data = content.encode(errors=errors) if isinstance(content, str) else content
    with atomic_writer(path) as file:
        file.write(data)


@contextlib.contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that replaces `path` at the end of the context, as `write_atomically` does.

    If the context ends with an exception, an existing file is unchanged.

    Args:
      path: the file. Its folder is created if it does not exist.

    Raises:
      OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'{path.name}.partial')
    try:
        with partial.open('wb') as file:
            yield file
            file.flush()
            sync_descriptor(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_descriptor(descriptor: int) -> None:
    """Brings an open file to the disk, where the file system can do that.

    Raises:
      OSError: it cannot be written, such as on a full disk.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def sync_folder(folder: Path) -> None:
    """Brings the names in a folder to the disk, so that a rename outlasts a power failure."""
    with contextlib.suppress(OSError):  # the files themselves are on the disk; not every system can open folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def set_aside(path: Path) -> Path:
    """Renames a damaged file or folder to `NAME.damaged` (`NAME.damaged-2`, ... if that exists); returns the new path.

    Raises:
      OSError: it cannot be renamed.
    """
    target, number = path.with_name(f'{path.name}.damaged'), 1
    while os.path.lexists(target):
        number += 1
        target = path.with_name(f'{path.name}.damaged-{number}')
    path.rename(target)
    sync_folder(path.parent)
    return target
